"""Values that have to fit each other: a default follows what the user set, and what the user set is checked.

The user sets values by options. The values of a recipe, of the package or in a file, are defaults beside them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ..errors import TrainError
from .recipe import FIELDS, Recipe, out_of_range


@dataclass(frozen=True)
class Origin:
    """Where the values of a recipe come from.

    Attributes:
        name: of the recipe, or its file.
        given: the fields that the user set by options.
    """

    name: str
    given: frozenset[str] = frozenset()

    @property
    def file(self) -> bool:
        """Whether the recipe is the user's, and not one of the package."""
        return self.name.endswith(".toml")

    def naming(self, field: str, value: Any) -> str:
        """Return a field and its value in words, with the place that they come from."""
        if field in self.given:
            return _option(field, value)
        if self.file:
            return f"{field} = {_plain(value)} of {self.name}"
        return f"{_option(field, value)} of recipe {self.name}"


@dataclass(frozen=True)
class Pair:
    """A field whose largest value depends on another field.

    Attributes:
        field: the field that follows.
        to: the field that it follows.
        most: returns the largest value that fits a recipe.
        wrong: a sentence about a value that is too large; its two places are for both values.
    """

    field: str
    to: str
    most: Callable[[Recipe], float]
    wrong: str

    def fitted(self, own: Recipe, recipe: Recipe) -> Any:
        """Return the value in the proportion that `own` has, but not more than fits `recipe`."""
        share = getattr(own, self.field) / getattr(own, self.to)
        value = min(share * getattr(recipe, self.to), self.most(recipe))
        return max(int(value), 1) if FIELDS[self.field].kind is int else float(f"{value:.6g}")


PAIRS = (
    Pair("warmup", "epochs", lambda recipe: recipe.epochs, "{} is longer than {}"),
    Pair("lr_min", "lr", lambda recipe: recipe.lr, "{} is larger than {}"),
    Pair(
        "grad_accum_steps",
        "batch_size",
        lambda recipe: recipe.batch_size // 2,
        "{} leaves less than two samples for each part of {}",
    ),
)


def fit(own: Recipe, recipe: Recipe, origin: Origin) -> tuple[Recipe, list[str]]:
    """Return a recipe whose values fit each other, and a sentence for each value that changed.

    Args:
        own: the recipe without what the user set.
        recipe: the recipe with it.
        origin: where the values come from.

    Raises:
        TrainError: if a value is out of range, or two that do not fit were both set by the user or by one file.
    """
    for name in vars(recipe):
        value = getattr(recipe, name)
        if allowed := out_of_range(name, value):
            where = "" if name in origin.given or not origin.file else f"--recipe {origin.name}: "
            what = f"{name} = {_plain(value)}" if where else _option(name, value)
            raise TrainError(f"{where}{what} is out of range: choose {allowed}")
    notes = []
    for pair in PAIRS:
        value, to = getattr(recipe, pair.field), getattr(recipe, pair.to)
        if value <= pair.most(recipe):
            continue
        if pair.field in origin.given or pair.to not in origin.given:
            raise TrainError(_contradiction(pair, recipe, origin))
        fitted = pair.fitted(own, recipe)
        recipe = replace(recipe, **{pair.field: fitted})
        notes.append(_changed(pair.field, value, origin.naming(pair.to, to), fitted, origin))
    return recipe, notes + _without_effect(recipe, origin)


def fit_plane(recipe: Recipe, side: int, origin: Origin) -> tuple[Recipe, list[str]]:
    """Return a recipe for planes of side x side pixels, and a sentence if a value changed.

    Raises:
        TrainError: if the user set a value that does not fit them.
    """
    if recipe.random_shift < side:
        return recipe, []
    if "random_shift" in origin.given:
        raise TrainError(
            f"--random-shift {recipe.random_shift} moves planes of {side}x{side} out of sight: choose less than {side}"
        )
    note = _changed("random_shift", recipe.random_shift, f"planes of {side}x{side}", side // 4, origin)
    return replace(recipe, random_shift=side // 4), [note]


def remarks(recipe: Recipe, batch_size: int, batches: int) -> list[str]:
    """Return sentences that a user should read before a recipe is used on few samples.

    Args:
        recipe: the resolved recipe.
        batch_size: samples of a step; fewer than the recipe's where there are no more.
        batches: steps of an epoch.
    """
    found = []
    if batch_size < recipe.batch_size:
        found.append(f"there are {batch_size} samples to train on: fewer than --batch-size {recipe.batch_size}")
    steps = recipe.epochs * batches
    if recipe.ema and steps < 1 / (1 - recipe.ema):
        found.append(
            f"--ema {recipe.ema:g} averages over some {1 / (1 - recipe.ema):,.0f} steps, and this run has {steps}: "
            "what is evaluated stays close to the untrained weights"
        )
    return found


def _contradiction(pair: Pair, recipe: Recipe, origin: Origin) -> str:
    value, to, most = getattr(recipe, pair.field), getattr(recipe, pair.to), pair.most(recipe)
    if origin.file and not {pair.field, pair.to} & origin.given:
        wrong = pair.wrong.format(f"{pair.field} = {_plain(value)}", f"{pair.to} = {_plain(to)}")
        return f"--recipe {origin.name}: {wrong}: choose {most:g} or less"
    wrong = pair.wrong.format(origin.naming(pair.field, value), origin.naming(pair.to, to))
    return f"{wrong}: choose {most:g} or less"


def _changed(field: str, value: Any, to: str, fitted: Any, origin: Origin) -> str:
    return f"{origin.naming(field, value)} does not fit {to}: it is {_plain(fitted)} here"


def _without_effect(recipe: Recipe, origin: Origin) -> list[str]:
    """Return a sentence for each option that the user set and that changes nothing with this recipe."""
    stepping, sgd = recipe.schedule == "step", recipe.optimizer == "sgd"
    unused = [
        *((name, "schedule") for name in ("step_epochs", "gamma") if not stepping),
        *((name, "schedule") for name in ("lr_min",) if stepping and recipe.lr_min),
        *(("nesterov", name) for name, works in (("optimizer", sgd), ("momentum", recipe.momentum)) if not works),
    ]
    return [
        f"{_option(name, getattr(recipe, name))} does nothing with {origin.naming(why, getattr(recipe, why))}"
        for name, why in unused
        if name in origin.given and getattr(recipe, name) is not False
    ]


def _option(field: str, value: Any) -> str:
    flag = f"--{field.replace('_', '-')}"
    return flag if value is True else f"{flag} {_plain(value)}"


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
