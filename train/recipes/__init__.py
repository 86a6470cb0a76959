"""Training recipes as data: one TOML file each, every field of `Recipe` that differs from its default."""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields, replace
from importlib import resources
from typing import Any

from ..errors import TrainError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SCHEDULES = ("cosine", "step")


@dataclass(frozen=True)
class Recipe:
    """How a network is trained; with the data and the seed all that determines the result.

    Stochastic gradient descent; lr and its schedule per step (train.schedule).  warmup, step_epochs: in
    epochs.  flip: mirror half of the samples.  shift: random shifts of planes by up to so many pixels.
    """

    name: str
    epochs: int = 100
    batch_size: int = 256
    lr: float = 0.01
    lr_min: float = 0.0
    schedule: str = "cosine"
    warmup: float = 0.0
    step_epochs: int = 30
    gamma: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 1e-4
    label_smoothing: float = 0.0
    flip: bool = True
    shift: int = 0

    def checked(self) -> Recipe:
        """The recipe itself, if its values make sense. Raises TrainError, naming the field."""
        for name, good in (
            ("epochs", self.epochs >= 1),
            ("batch_size", self.batch_size >= 2),
            ("lr", self.lr > 0),
            ("lr_min", 0 <= self.lr_min <= self.lr),
            ("schedule", self.schedule in SCHEDULES),
            ("warmup", 0 <= self.warmup <= self.epochs),
            ("step_epochs", self.step_epochs >= 1),
            ("momentum", 0 <= self.momentum < 1),
            ("weight_decay", self.weight_decay >= 0),
            ("label_smoothing", 0 <= self.label_smoothing < 1),
            ("shift", self.shift >= 0),
        ):
            if not good:
                raise TrainError(f"--{name.replace('_', '-')} {getattr(self, name)} is out of range")
        return self


def names() -> list[str]:
    """The recipes that come with the package."""
    return sorted(f.name[:-5] for f in resources.files(__package__).iterdir() if f.name.endswith(".toml"))


def load(name: str, **overrides: Any) -> Recipe:
    """A recipe by name with some fields replaced; None leaves a field as it is. Raises TrainError."""
    if name not in names():
        raise TrainError(f"--recipe {name}: choose {', '.join(names())}")
    values = tomllib.loads((resources.files(__package__) / f"{name}.toml").read_text())
    unknown = values.keys() - {f.name for f in fields(Recipe)}
    if unknown:
        raise TrainError(f"recipe {name} has the unknown field {min(unknown)}")
    chosen = {key: value for key, value in overrides.items() if value is not None}
    return replace(Recipe(name, **values), **chosen).checked()
