"""Which classes of a source are taken, and in which order: by a list, or by their number of images."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ...shards_manifest.tables import escape
from ..config import SplitConfig
from ..errors import ConfigError, SourceError
from ..listing import Listing
from ..sources.class_names import ClassIndex, check_distinct, display_name, find_similar
from ..sources.text_files import text_lines

# ImageNet-21K is commonly trained on the classes with 500 images or more: their number in each release
PUBLISHED_AT = 500
PUBLISHED = {11_221: "fall11", 10_450: "winter21"}
LARGEST_LIST = 64 * 2**20


def read_class_list(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Read the classes of a text file, one a line, in order.

    Raises:
        ConfigError, SourceError: The file cannot be read, is no such list, or names a class twice.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(LARGEST_LIST + 1)
    except OSError as error:
        raise ConfigError(f"--classes {path} cannot be read ({error.strerror})") from None
    where = f"--classes {path}"
    lines = text_lines(data, where) if len(data) <= LARGEST_LIST else []
    classes = tuple(line.strip() for line in lines if line.strip())
    if not classes:
        raise ConfigError(f"{where} is no list of classes, one a line")
    if len(set(classes)) < len(classes):
        twice = next(name for i, name in enumerate(classes) if name in classes[:i])
        raise ConfigError(f"{where} lists {display_name(twice)} twice: once each")
    check_distinct(classes, where)
    return classes


def choose_classes(listing: Listing, config: SplitConfig) -> Listing:
    """Return the listing with the classes that the options choose, in their order.

    Each class that is dropped becomes a reject.

    Raises:
        SourceError: The source lacks a listed class (and min_class_images is 0), or no class is left.
    """
    if not config.classes and not config.min_class_images:
        return listing
    counts = np.bincount(listing.parts["train"].label, minlength=len(listing.classes)).tolist()
    count = dict(zip(listing.classes, counts, strict=True))
    wanted = _spelled_as_in(listing, config.classes) if config.classes else listing.classes
    few: list[str] = []
    if config.min_class_images:
        few = [name for name in wanted if count.get(name, 0) < config.min_class_images]
    else:
        _check_complete(wanted, count)
    dropped = set(few)
    classes = tuple(name for name in wanted if name not in dropped)
    if not classes:
        raise SourceError(
            f"no class is left: of {len(wanted)} classes none has {config.min_class_images} images or more"
        )
    rejects = [*listing.rejects, *_dropped(few, count, f"fewer than {config.min_class_images}")]
    if config.classes:
        listed = set(wanted)
        rejects += _dropped((name for name in listing.classes if name not in listed), count, "not on the list")
    kept = replace(listing, rejects=tuple(sorted(rejects)))
    return kept.relabelled(classes, _new_labels(listing.classes, classes))


def _spelled_as_in(listing: Listing, names: tuple[str, ...]) -> tuple[str, ...]:
    """Return a list of classes as the source spells them; 7 is 007 where its classes are numbers.

    Raises:
        SourceError: The list names a class of the source twice.
    """
    index = ClassIndex(listing.classes)
    width = len(listing.classes[0]) if listing.numbered else 0
    spelled = []
    for name in names:
        number = index.find(name.zfill(width) if name.isascii() and name.isdecimal() else name)
        spelled.append(name if number is None else listing.classes[number])
    if len(set(spelled)) < len(spelled):
        twice = next(name for i, name in enumerate(spelled) if name in spelled[:i])
        raise SourceError(f"--classes lists the class {display_name(twice)} of the source twice: once each")
    return tuple(spelled)


def _new_labels(before: tuple[str, ...], after: tuple[str, ...]) -> NDArray[np.int32]:
    """Return for each class of `before` its label in `after`, -1 for none."""
    index = {name: label for label, name in enumerate(after)}
    return np.array([index.get(name, -1) for name in before], np.int32)


def _dropped(names: Iterable[str], count: dict[str, int], why: str) -> list[tuple[str, str]]:
    """Return a reject for each class."""
    return [(f"{escape(name)}/", f"class dropped with {count.get(name, 0)} images: {why}") for name in names]


def _check_complete(wanted: tuple[str, ...], count: dict[str, int]) -> None:
    """Raise SourceError if the source has no images of a class of the list."""
    missing = [name for name in wanted if not count.get(name)]
    if not missing:
        return
    release = PUBLISHED.get(len(wanted))
    hint = f"; the list is as long as the published one of {release}: is the source that release?" if release else ""
    near = find_similar(missing[0], (name for name in count if count[name]))
    hint += f"; it has {display_name(near)}" if near else ""
    raise SourceError(
        f"the source has no images of {display_name(missing[0])}, which --classes lists ({len(missing)} such classes "
        f"of {len(wanted)}{hint}): take them off the list, or drop them with --min-class-images 1"
    )


def class_note(config: SplitConfig, classes: int) -> str:
    """Return a sentence on the number of classes if the options choose them, else nothing.

    It compares the number with the list, and with those published for ImageNet-21K at 500 images a class.
    """
    if config.classes:
        release = PUBLISHED.get(len(config.classes))
        published = f" ({len(config.classes)} is the number published for {release})" if release else ""
        kept = "all" if classes == len(config.classes) else f"only {classes}"
        return f"{kept} of the {len(config.classes)} listed classes{published}"
    if config.min_class_images:
        release = PUBLISHED.get(classes)
        published = ", ".join(f"{count} for {name}" for count, name in PUBLISHED.items())
        fits = f", as published for {release}" if release else f" (published for ImageNet-21K: {published})"
        fits = fits if config.min_class_images == PUBLISHED_AT else ""
        return f"{classes} classes have {config.min_class_images} images or more{fits}"
    return ""
