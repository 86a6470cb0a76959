"""Which classes of a source take part, and in which order: the 21K protocol and lists of classes."""

from __future__ import annotations

import os
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from shards_manifest.tables import escape

from .errors import PlanError, SourceError
from .listing import Listing
from .plan import SplitPlan

PUBLISHED_AT = 500  # images of a class
PUBLISHED = {11_221: "fall11", 10_450: "winter21"}  # classes with as many or more, by release of ImageNet-21K
LARGEST_LIST = 64 * 2**20


def read_class_list(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """The classes of a text file, one a line, in order. Raises PlanError."""
    try:
        with open(path, "rb") as file:
            data = file.read(LARGEST_LIST + 1)
    except OSError as error:
        raise PlanError(f"--classes {path} cannot be read ({error.strerror})") from None
    classes = tuple(line.strip() for line in data.decode("utf-8", "surrogateescape").splitlines() if line.strip())
    if not classes or len(data) > LARGEST_LIST:
        raise PlanError(f"--classes {path} is no list of classes, one a line")
    if len(set(classes)) < len(classes):
        twice = next(name for i, name in enumerate(classes) if name in classes[:i])
        raise PlanError(f"--classes {path} lists {twice} twice: once each")
    return classes


def choose_classes(listing: Listing, plan: SplitPlan) -> Listing:
    """The listing with the classes that the plan wants, in its order; a reject for each class that is dropped.

    Raises SourceError where the source lacks a listed class (without min_class_images), or none is left.
    """
    if not plan.classes and not plan.min_class_images:
        return listing
    counts = np.bincount(listing.parts["train"].label, minlength=len(listing.classes)).tolist()
    count = dict(zip(listing.classes, counts, strict=True))
    wanted = plan.classes or listing.classes
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
        listed = set(plan.classes)
        rejects += _reported((name for name in listing.classes if name not in listed), count, "not on the list")
    kept = Listing(listing.classes, listing.parts, tuple(sorted(rejects)))
    return kept.relabelled(classes, _new_labels(listing.classes, classes))


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
    raise SourceError(
        f"the source has no images of {escape(missing[0])}, which --classes lists ({len(missing)} such classes of "
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
