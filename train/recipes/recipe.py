"""A recipe: how a network is trained. Each field is defined once: its default, what it may be, its help text."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

SCHEDULES = ("cosine", "step", "onecycle")
OPTIMIZERS = ("sgd", "adamw")


@dataclass(frozen=True)
class Allowed:
    """The values that a field may have by itself.

    Attributes:
        contains: whether a value is one of them.
        text: the values in words, as in "choose 0 or more".
        choices: all of them, where they are names.
    """

    contains: Callable[[Any], bool]
    text: str
    choices: tuple[str, ...] = ()


def _at_least(least: float) -> Allowed:
    return Allowed(lambda value: value >= least, f"{least:g} or more")


def _between(least: float, most: float) -> Allowed:
    return Allowed(lambda value: least <= value <= most, f"{least:g} to {most:g}")


def _below(limit: float) -> Allowed:
    return Allowed(lambda value: 0 <= value < limit, f"0 or more, and less than {limit:g}")


def _one_of(choices: tuple[str, ...]) -> Allowed:
    return Allowed(lambda value: value in choices, " or ".join((", ".join(choices[:-1]), choices[-1])), choices)


ANY = Allowed(lambda _: True, "a finite number")
POSITIVE = Allowed(lambda value: value > 0, "more than 0")
FRACTION = Allowed(lambda value: 0 < value <= 1, "more than 0, and 1 at most")


def _field(default: Any, allowed: Allowed, text: str) -> Any:
    """Declare a field that the command line has an option for."""
    return field(default=default, metadata={"allowed": allowed, "help": text})


@dataclass(frozen=True)
class Recipe:
    """How a network is trained; with the data and the seed all that determines the result."""

    name: str
    epochs: int = _field(100, _at_least(1), "Epochs.")
    batch_size: int = _field(256, _at_least(2), "Samples of a step, over all processes.")
    optimizer: str = _field("sgd", _one_of(OPTIMIZERS), "Optimizer.")
    lr: float = _field(0.01, POSITIVE, "Highest learning rate.")
    lr_min: float = _field(0.0, _at_least(0), "Learning rate at the end of cosine and onecycle.")
    schedule: str = _field("cosine", _one_of(SCHEDULES), "Schedule of the learning rate.")
    warmup: float = _field(0.0, _at_least(0), "Epochs of linear warm-up; for onecycle, of its rise.")
    step_epochs: int = _field(30, _at_least(1), "Epochs between two falls of the step schedule.")
    gamma: float = _field(0.1, FRACTION, "Factor of a fall of the step schedule.")
    momentum: float = _field(0.9, _below(1), "Momentum of sgd; first beta of adamw.")
    nesterov: bool = _field(False, ANY, "Use Nesterov's momentum.")
    weight_decay: float = _field(1e-4, _at_least(0), "Weight decay.")
    clip_grad: float = _field(0.0, _at_least(0), "Largest norm of the gradients; 0 for no limit.")
    grad_accum_steps: int = _field(1, _at_least(1), "Parts that a batch is computed in, to save memory.")
    ema: float = _field(0.0, _below(1), "Decay per step of the averaged weights that are evaluated; 0 for none.")
    label_smoothing: float = _field(0.0, _below(1), "Label smoothing.")
    mixup: float = _field(0.0, _between(0, 1), "Alpha of mixup; 0 for none.")
    cutmix: float = _field(0.0, _between(0, 1), "Alpha of cutmix; 0 for none.")
    flip: bool = _field(True, ANY, "Mirror half of the samples.")
    random_shift: int = _field(0, _at_least(0), "Largest random shift, in pixels of a plane.")

    def __str__(self) -> str:
        """Return its name and every field, as options."""
        values = (f"{name.replace('_', '-')} {value}" for name, value in list(vars(self).items())[1:])
        return f"{self.name}: {', '.join(values)}"


@dataclass(frozen=True)
class RecipeField:
    """What is known of a field of a recipe, besides its name.

    Attributes:
        kind: str, int, float or bool.
        allowed: the values that it may have by itself.
        help: one sentence for the command line; empty for the name, which is no option.
    """

    kind: type
    allowed: Allowed = ANY
    help: str = ""


FIELDS: dict[str, RecipeField] = {"name": RecipeField(str)} | {
    entry.name: RecipeField(type(entry.default), **entry.metadata) for entry in fields(Recipe)[1:]
}
OPTIONS = {name: entry for name, entry in FIELDS.items() if entry.help}  # those that the command line sets


def out_of_range(name: str, value: Any) -> str:
    """Return in words what a field may be, if `value` is not that; else an empty string."""
    allowed = FIELDS[name].allowed
    finite = not isinstance(value, float) or math.isfinite(value)
    return "" if finite and allowed.contains(value) else allowed.text
