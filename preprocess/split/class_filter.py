"""Which classes of a source take part, and in which order: the 21K protocol and lists of classes."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ...shards_manifest.tables import escape
from ..config import SplitPlan
from ..errors import PlanError, SourceError
from ..listing import Listing
from ..sources.base import text_lines
from ..sources.class_names import Names, alike, check_distinct, shown

PUBLISHED_AT = 500  # images of a class
PUBLISHED = {11_221: "fall11", 10_450: "winter21"}  # classes with as many or more, by release of ImageNet-21K
LARGEST_LIST = 64 * 2**20


def read_class_list(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """The classes of a text file, one a line, in order. Raises PlanError, SourceError."""
    try:
        with open(path, "rb") as file:
            data = file.read(LARGEST_LIST + 1)
    except OSError as error:
        raise PlanError(f"--classes {path} cannot be read ({error.strerror})") from None
    where = f"--classes {path}"
    lines = text_lines(data, where) if len(data) <= LARGEST_LIST else []
    classes = tuple(line.strip() for line in lines if line.strip())
    if not classes:
        raise PlanError(f"{where} is no list of classes, one a line")
    if len(set(classes)) < len(classes):
        twice = next(name for i, name in enumerate(classes) if name in classes[:i])
        raise PlanError(f"{where} lists {shown(twice)} twice: once each")
    check_distinct(classes, where)
    return classes


def choose_classes(listing: Listing, plan: SplitPlan) -> Listing:
    """The listing with the classes that the plan wants, in its order; a reject for each class that is dropped.

    Raises SourceError where the source lacks a listed class (without min_class_images), or none is left.
    """
    if not plan.classes and not plan.min_class_images:
        return listing
    counts = np.bincount(listing.parts["train"].label, minlength=len(listing.classes)).tolist()
    count = dict(zip(listing.classes, counts, strict=True))
    wanted = _as_in(listing, plan.classes) if plan.classes else listing.classes
    few: list[str] = []
    if plan.min_class_images:
        few = [name for name in wanted if count.get(name, 0) < plan.min_class_images]
    else:
        _check_complete(wanted, count)
    dropped = set(few)
    classes = tuple(name for name in wanted if name not in dropped)
    if not classes:
        raise SourceError(f"no class is left: of {len(wanted)} classes none has {plan.min_class_images} images or more")
    rejects = [*listing.rejects, *_reported(few, count, f"fewer than {plan.min_class_images}")]
    if plan.classes:
        listed = set(wanted)
        rejects += _reported((name for name in listing.classes if name not in listed), count, "not on the list")
    kept = replace(listing, rejects=tuple(sorted(rejects)))
    return kept.relabelled(classes, _new_labels(listing.classes, classes))


def _as_in(listing: Listing, names: tuple[str, ...]) -> tuple[str, ...]:
    """A list of classes as the source spells them; 7 is 007 where its classes are numbers. Raises SourceError."""
    index = Names(listing.classes)
    width = len(listing.classes[0]) if listing.numbered else 0
    found = []
    for name in names:
        number = index.find(name.zfill(width) if name.isascii() and name.isdecimal() else name)
        found.append(name if number is None else listing.classes[number])
    if len(set(found)) < len(found):
        twice = next(name for i, name in enumerate(found) if name in found[:i])
        raise SourceError(f"--classes lists the class {shown(twice)} of the source twice: once each")
    return tuple(found)


def _new_labels(before: tuple[str, ...], after: tuple[str, ...]) -> NDArray[np.int32]:
    index = {name: label for label, name in enumerate(after)}
    return np.array([index.get(name, -1) for name in before], np.int32)


def _reported(names: Iterable[str], count: dict[str, int], why: str) -> list[tuple[str, str]]:
    return [(f"{escape(name)}/", f"class dropped with {count.get(name, 0)} images: {why}") for name in names]


def _check_complete(wanted: tuple[str, ...], count: dict[str, int]) -> None:
    """Refuse a list that the source does not cover."""
    missing = [name for name in wanted if not count.get(name)]
    if not missing:
        return
    release = PUBLISHED.get(len(wanted))
    hint = f"; the list is as long as the published one of {release}: is the source that release?" if release else ""
    near = alike(missing[0], (name for name in count if count[name]))
    hint += f"; it has {shown(near)}" if near else ""
    raise SourceError(
        f"the source has no images of {shown(missing[0])}, which --classes lists ({len(missing)} such classes of "
        f"{len(wanted)}{hint}): take them off the list, or drop them with --min-class-images 1"
    )


def class_note(plan: SplitPlan, classes: int) -> str:
    """A sentence on the number of classes where the options choose them; empty otherwise.

    Compares with the list, and with the counts published for ImageNet-21K at 500 images a class.
    """
    if plan.classes:
        release = PUBLISHED.get(len(plan.classes))
        published = f" ({len(plan.classes)} is the number published for {release})" if release else ""
        kept = "all" if classes == len(plan.classes) else f"only {classes}"
        return f"{kept} of the {len(plan.classes)} listed classes{published}"
    if plan.min_class_images:
        release = PUBLISHED.get(classes)
        published = ", ".join(f"{count} for {name}" for count, name in PUBLISHED.items())
        fits = f", as published for {release}" if release else f" (published for ImageNet-21K: {published})"
        fits = fits if plan.min_class_images == PUBLISHED_AT else ""
        return f"{classes} classes have {plan.min_class_images} images or more{fits}"
    return ""
