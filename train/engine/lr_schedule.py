"""The learning rate as a pure function of the step."""

from __future__ import annotations

import math
from collections.abc import Callable

from ..recipes import Recipe

START = 1 / 25  # of the highest rate, where onecycle begins


def learning_rate(step: int, steps_per_epoch: int, recipe: Recipe) -> float:
    """Return the learning rate of a step: it rises over the warm-up, then falls as the recipe's schedule says.

    Args:
        step: The optimizer step, counted from 0 over the run.
        steps_per_epoch: Steps of an epoch.
        recipe: Its schedule, lr, lr_min, warmup, epochs, step_epochs and gamma are used.
    """
    warm = round(recipe.warmup * steps_per_epoch)
    if step < warm:
        return recipe.lr * RISES.get(recipe.schedule, _linear)(step, warm)
    return FALLS[recipe.schedule](step, warm, steps_per_epoch, recipe)


def _linear(step: int, warm: int) -> float:
    """Return the share of lr at a step of the warm-up, 0 to 1."""
    return (step + 1) / warm


def _onecycle_rise(step: int, warm: int) -> float:
    """Rise from START along a cosine (Smith and Topin 2018)."""
    return 1 + (START - 1) * (1 + math.cos(math.pi * step / warm)) / 2


def _cosine(step: int, warm: int, steps_per_epoch: int, recipe: Recipe) -> float:
    """Fall from lr to lr_min over the epochs after the warm-up (Loshchilov and Hutter 2017, without restarts)."""
    progress = (step - warm) / max(recipe.epochs * steps_per_epoch - warm, 1)
    return recipe.lr_min + (recipe.lr - recipe.lr_min) * (1 + math.cos(math.pi * progress)) / 2


def _step(step: int, warm: int, steps_per_epoch: int, recipe: Recipe) -> float:
    """Multiply lr by gamma every `step_epochs` epochs."""
    return recipe.lr * recipe.gamma ** (step // steps_per_epoch // recipe.step_epochs)


# one for each of recipes.SCHEDULES; a warm-up is linear unless it says otherwise
FALLS: dict[str, Callable[[int, int, int, Recipe], float]] = {"cosine": _cosine, "onecycle": _cosine, "step": _step}
RISES: dict[str, Callable[[int, int], float]] = {"onecycle": _onecycle_rise}
