"""Training recipes as data: one TOML file each, with the fields of `Recipe` that differ from their defaults."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

from ...shards_manifest.errors import did_you_mean
from ..errors import TrainError
from .fitting import Origin, fit, fit_plane, remarks
from .recipe import FIELDS, OPTIMIZERS, OPTIONS, SCHEDULES, Recipe

__all__ = [
    "DEFAULT",
    "FIELDS",
    "OPTIMIZERS",
    "OPTIONS",
    "SCHEDULES",
    "Recipe",
    "dump",
    "load",
    "names",
    "of_dataset",
    "remarks",
    "resolve",
]

# the recipe of a data set, if there is no --recipe: of the first name that the manifest's begins with
OF_DATASETS = {"imagenet21k": "imagenet21k", "fall11": "imagenet21k", "winter21": "imagenet21k", "cifar10": "cifar10"}
DEFAULT = "imagenet1k"


NOUNS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


def names() -> list[str]:
    """Return the names of the recipes that come with the package."""
    return sorted(f.name[:-5] for f in resources.files(__package__).iterdir() if f.name.endswith(".toml"))


def of_dataset(dataset: str) -> str:
    """Return the name of the recipe for a data set, by the name that its manifests have."""
    plain = "".join(letter for letter in dataset.lower() if letter.isalnum())
    return next((recipe for name, recipe in OF_DATASETS.items() if plain.startswith(name)), DEFAULT)


def load(name: str, **overrides: Any) -> Recipe:
    """Return the recipe that `resolve` returns, for planes of any side.

    Raises:
        TrainError: as `resolve` does.
    """
    return resolve(name, **overrides)[0]


def resolve(name: str, plane: int = 0, **overrides: Any) -> tuple[Recipe, list[str]]:
    """Return a recipe with some fields replaced, and a sentence for each other field that had to change with them.

    Args:
        name: of a recipe that comes with the package, or a file that ends with .toml, such as the recipe.toml of a run.
        plane: side of the planes that the recipe has to fit, in pixels; 0 for any.
        overrides: the fields that the user set; None leaves a field as it is.

    Raises:
        TrainError: if there is no such recipe, it cannot be read, or values are out of range or contradict each other.
    """
    own = _read(name)
    chosen = {key: value for key, value in overrides.items() if value is not None}
    origin = Origin(name, frozenset(chosen))
    recipe, notes = fit(own, replace(own, **chosen), origin)
    if plane:
        recipe, more = fit_plane(recipe, plane, origin)
        notes += more
    return recipe, notes


def dump(recipe: Recipe) -> str:
    """Return all fields as TOML, one a line; `load` reads it."""
    return "".join(f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in vars(recipe).items())


def _read(name: str) -> Recipe:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib  # comes with the extra `train`; --help does without

    if name in names():
        text = (resources.files(__package__) / f"{name}.toml").read_text()
    elif name.endswith(".toml"):
        text = _text(Path(name))
    else:
        raise TrainError(
            f"--recipe {name}: choose {', '.join(names())}, or a file that ends with .toml{did_you_mean(name, names())}"
        )
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise TrainError(f"--recipe {name} is not valid TOML ({error})") from None
    values = {"name": Path(name).stem, **values}
    for key, value in values.items():
        wanted = FIELDS[key].kind if key in FIELDS else None
        if wanted is None:
            raise TrainError(
                f"--recipe {name} has the unknown field {key}: choose {', '.join(FIELDS)}{did_you_mean(key, FIELDS)}"
            )
        if wanted is float and type(value) is int and abs(value) < 2**1023:
            values[key] = float(value)
        elif type(value) is not wanted:
            raise TrainError(f"--recipe {name}: {key} = {value!r} is not {NOUNS[wanted]}")
    return Recipe(**values)


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not text"
        raise TrainError(f"--recipe {path} cannot be read: {reason}") from None
