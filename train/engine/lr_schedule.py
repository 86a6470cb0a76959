"""The learning rate as a pure function of the step."""

from __future__ import annotations

import math

from ..recipes import Recipe

START = 1 / 25  # of the highest rate, where onecycle begins


def learning_rate(step: int, steps_per_epoch: int, recipe: Recipe) -> float:
    """The rate for optimizer step `step`, counted from 0.

    Rises to lr over the warm-up: linearly, for 'onecycle' from START along a cosine (Smith and Topin 2018). Then
    'cosine' and 'onecycle' fall from lr to lr_min over the remaining epochs (Loshchilov and Hutter 2017, without
    restarts); 'step' multiplies lr by gamma every `step_epochs` epochs.
    """
    warm = round(recipe.warmup * steps_per_epoch)
    if step < warm:
        if recipe.schedule == "onecycle":
            return recipe.lr * (1 + (START - 1) * (1 + math.cos(math.pi * step / warm)) / 2)
        return recipe.lr * (step + 1) / warm
    if recipe.schedule == "step":
        return recipe.lr * recipe.gamma ** (step // steps_per_epoch // recipe.step_epochs)
    progress = (step - warm) / max(recipe.epochs * steps_per_epoch - warm, 1)
    return recipe.lr_min + (recipe.lr - recipe.lr_min) * (1 + math.cos(math.pi * progress)) / 2
