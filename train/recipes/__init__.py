"""Training recipes as data: one TOML file each, every field of `Recipe` that differs from its default."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass, field, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any

from ..errors import TrainError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SCHEDULES = ("cosine", "step", "onecycle")
OPTIMIZERS = ("sgd", "adamw")
# what a data set is trained by, unless --recipe says otherwise; the longest name that a manifest's begins with
OF_DATASETS = {"imagenet21k": "imagenet21k", "fall11": "imagenet21k", "winter21": "imagenet21k", "cifar10": "cifar10"}
DEFAULT = "imagenet1k"


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
    clip: float = _said(0.0, "Largest norm of the gradients; 0 for any.")
    accumulate: int = _said(1, "Parts that a batch is computed in, to save memory.")
    ema: float = _said(0.0, "Decay, a step, of the averaged weights that are evaluated; 0 for none.")
    label_smoothing: float = _said(0.0, "Label smoothing.")
    mixup: float = _said(0.0, "Alpha of mixup; 0 for none.")
    cutmix: float = _said(0.0, "Alpha of cutmix; 0 for none.")
    flip: bool = _said(True, "Mirror half of the samples.")
    shift: int = _said(0, "Random shifts of a plane, in its pixels.")

    def __str__(self) -> str:
        """Its name and every field."""
        values = (f"{name.replace('_', '-')} {value}" for name, value in list(vars(self).items())[1:])
        return f"{self.name}: {', '.join(values)}"

    def checked(self) -> Recipe:
        """The recipe itself, if its values make sense. Raises TrainError, naming the field."""
        for name, good in (
            ("epochs", self.epochs >= 1),
            ("batch_size", self.batch_size >= 2),
            ("optimizer", self.optimizer in OPTIMIZERS),
            ("lr", self.lr > 0),
            ("lr_min", 0 <= self.lr_min <= self.lr),
            ("schedule", self.schedule in SCHEDULES),
            ("warmup", 0 <= self.warmup <= self.epochs),
            ("step_epochs", self.step_epochs >= 1),
            ("gamma", 0 < self.gamma <= 1),
            ("momentum", 0 <= self.momentum < 1),
            ("weight_decay", self.weight_decay >= 0),
            ("clip", self.clip >= 0),
            ("accumulate", 1 <= self.accumulate <= self.batch_size // 2),
            ("ema", 0 <= self.ema < 1),
            ("label_smoothing", 0 <= self.label_smoothing < 1),
            ("mixup", 0 <= self.mixup <= 1),
            ("cutmix", 0 <= self.cutmix <= 1),
            ("shift", self.shift >= 0),
            *((name, math.isfinite(value)) for name, value in vars(self).items() if isinstance(value, float)),
        ):
            if not good:
                raise TrainError(f"--{name.replace('_', '-')} {getattr(self, name)} is out of range")
        return self


FIELDS: dict[str, type] = {"name": str} | {f.name: type(f.default) for f in fields(Recipe)[1:]}
NOUNS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


def names() -> list[str]:
    """The recipes that come with the package."""
    return sorted(f.name[:-5] for f in resources.files(__package__).iterdir() if f.name.endswith(".toml"))


def of_dataset(dataset: str) -> str:
    """The name of the recipe of a data set, as manifests name it."""
    plain = "".join(letter for letter in dataset.lower() if letter.isalnum())
    return next((recipe for name, recipe in OF_DATASETS.items() if plain.startswith(name)), DEFAULT)


def load(name: str, **overrides: Any) -> Recipe:
    """A recipe with some fields replaced; None leaves a field as it is. Raises TrainError.

    name: of one that comes with the package, or a file that ends with .toml, such as the recipe.toml of a run.
    """
    if name in names():
        text = (resources.files(__package__) / f"{name}.toml").read_text()
    elif name.endswith(".toml"):
        text = _text(Path(name))
    else:
        raise TrainError(f"--recipe {name}: choose {', '.join(names())}, or a file that ends with .toml")
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise TrainError(f"--recipe {name} is not valid TOML ({error})") from None
    values = {"name": Path(name).stem, **values}
    for key, value in values.items():
        wanted = FIELDS.get(key)
        if wanted is None:
            raise TrainError(f"--recipe {name} has the unknown field {key}: choose {', '.join(FIELDS)}")
        if wanted is float and type(value) is int and abs(value) < 2**1023:
            values[key] = float(value)
        elif type(value) is not wanted:
            raise TrainError(f"--recipe {name}: {key} = {value!r} is not {NOUNS[wanted]}")
    chosen = {key: value for key, value in overrides.items() if value is not None}
    return replace(Recipe(**values), **chosen).checked()


def dump(recipe: Recipe) -> str:
    """All fields as TOML, one a line; `load` reads it."""
    return "".join(f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in vars(recipe).items())


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not text"
        raise TrainError(f"--recipe {path} cannot be read: {reason}") from None
