"""The learning rate as a pure function of the step."""

from __future__ import annotations

import math

SCHEDULES = ("cosine", "step")


def learning_rate(
    step: int, steps_per_epoch: int, *, epochs: int, lr: float, lr_min: float, warmup: float, schedule: str,
    step_epochs: int, gamma: float,
) -> float:
    """The rate for optimizer step `step`, counted from 0.

    Rises linearly from lr/steps over `warmup` epochs. Then 'cosine' falls from lr to lr_min over the
    remaining epochs (Loshchilov and Hutter 2017, without restarts); 'step' multiplies lr by gamma
    every `step_epochs` epochs.
    """
    warm = round(warmup * steps_per_epoch)
    if step < warm:
        return lr * (step + 1) / warm
    if schedule == "step":
        return lr * gamma ** (step // steps_per_epoch // step_epochs)
    progress = (step - warm) / max(epochs * steps_per_epoch - warm, 1)
    return lr_min + (lr - lr_min) * (1 + math.cos(math.pi * progress)) / 2
