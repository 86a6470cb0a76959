"""A recipe: how a network is trained, each field with the values that it may have by itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

SCHEDULES = ("cosine", "step", "onecycle")
OPTIMIZERS = ("sgd", "adamw")


def _said(default: Any, text: str) -> Any:
    """A field that the command line has an option for."""
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class Recipe:
    """How a network is trained; with the data and the seed all that determines the result."""

    name: str
    epochs: int = _said(100, "Epochs.")
    batch_size: int = _said(256, "Samples of a step, over all processes.")
    optimizer: str = _said("sgd", f"{' or '.join(OPTIMIZERS)}.")
    lr: float = _said(0.01, "Highest learning rate.")
    lr_min: float = _said(0.0, "Learning rate at the end of cosine and onecycle.")
    schedule: str = _said("cosine", f"{', '.join(SCHEDULES[:-1])} or {SCHEDULES[-1]}.")
    warmup: float = _said(0.0, "Epochs of linear warm-up; of onecycle its rise.")
    step_epochs: int = _said(30, "Epochs between two falls of step.")
    gamma: float = _said(0.1, "Factor of a fall of step.")
    momentum: float = _said(0.9, "Of sgd; of adamw its first beta.")
    nesterov: bool = _said(False, "Nesterov's momentum.")
    weight_decay: float = _said(1e-4, "Weight decay.")
    clip_grad: float = _said(0.0, "Largest norm of the gradients; 0 for any.")
    grad_accum_steps: int = _said(1, "Parts that a batch is computed in, to save memory.")
    ema: float = _said(0.0, "Decay, a step, of the averaged weights that are evaluated; 0 for none.")
    label_smoothing: float = _said(0.0, "Label smoothing.")
    mixup: float = _said(0.0, "Alpha of mixup; 0 for none.")
    cutmix: float = _said(0.0, "Alpha of cutmix; 0 for none.")
    flip: bool = _said(True, "Mirror half of the samples.")
    random_shift: int = _said(0, "Random shifts of a plane, in its pixels.")

    def __str__(self) -> str:
        """Its name and every field."""
        values = (f"{name.replace('_', '-')} {value}" for name, value in list(vars(self).items())[1:])
        return f"{self.name}: {', '.join(values)}"


FIELDS: dict[str, type] = {"name": str} | {f.name: type(f.default) for f in fields(Recipe)[1:]}


def _least(least: float) -> tuple[Callable[[Any], bool], str]:
    return lambda value: value >= least, f"{least:g} or more"


def _between(least: float, most: float) -> tuple[Callable[[Any], bool], str]:
    return lambda value: least <= value <= most, f"{least:g} to {most:g}"


def _below(limit: float) -> tuple[Callable[[Any], bool], str]:
    return lambda value: 0 <= value < limit, f"0 or more, and less than {limit:g}"


def _one_of(choices: tuple[str, ...]) -> tuple[Callable[[Any], bool], str]:
    return lambda value: value in choices, " or ".join((", ".join(choices[:-1]), choices[-1]))


RANGES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "epochs": _least(1),
    "batch_size": _least(2),
    "optimizer": _one_of(OPTIMIZERS),
    "lr": (lambda value: value > 0, "more than 0"),
    "lr_min": _least(0),
    "schedule": _one_of(SCHEDULES),
    "warmup": _least(0),
    "step_epochs": _least(1),
    "gamma": (lambda value: 0 < value <= 1, "more than 0, and 1 at most"),
    "momentum": _below(1),
    "weight_decay": _least(0),
    "clip_grad": _least(0),
    "grad_accum_steps": _least(1),
    "ema": _below(1),
    "label_smoothing": _below(1),
    "mixup": _between(0, 1),
    "cutmix": _between(0, 1),
    "random_shift": _least(0),
}


def out_of_range(name: str, value: Any) -> str:
    """What a field may be, if `value` is not that; else empty."""
    good, said = RANGES.get(name, (lambda _: True, ""))
    finite = not isinstance(value, float) or math.isfinite(value)
    return "" if finite and good(value) else said or "a finite number"
