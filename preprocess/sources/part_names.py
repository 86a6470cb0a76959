"""The parts of a data set by their names: train, val and test, in the words that people use for them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

TRAIN, VAL, TEST = "train", "val", "test"
WORDS = {
    "train": TRAIN,
    "training": TRAIN,
    "val": VAL,
    "valid": VAL,
    "validation": VAL,
    "dev": VAL,
    "eval": VAL,
    "evaluation": VAL,
    "test": TEST,
    "testing": TEST,
}
_PIECE = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class PartName:
    """What the name of a folder says about its part.

    Attributes:
        role: 'train', 'val' or 'test'; empty for none.
        rest: The other words of the name, in order.
    """

    role: str
    rest: tuple[str, ...] = ()

    @property
    def exact(self) -> bool:
        """True if the name is the word and nothing else."""
        return bool(self.role) and not self.rest


NO_PART = PartName("")


def words(name: str) -> list[str]:
    """Return the words of a name in lower case: its runs of letters and digits."""
    return _PIECE.findall(name.casefold())


def part_word(word: str) -> str:
    """Return a word without digits at its end (val2017) if it is the word for a part; else nothing."""
    stem = word.rstrip("0123456789")
    return stem if stem in WORDS else ""


def folder_part(name: str) -> PartName:
    """Return the part of a folder by the first or the last word of its name; none if these two differ."""
    pieces = words(name)
    first, last = (WORDS.get(part_word(word), "") for word in (pieces[0], pieces[-1])) if pieces else ("", "")
    if not (first or last) or (first and last and first != last):
        return NO_PART
    if last:
        return PartName(last, tuple(pieces[:-1]))
    return PartName(first, tuple(pieces[1:]))


def file_parts(names: Sequence[str]) -> list[set[str]]:
    """Return, for each file, the words for a part in its name, without those that all names share."""
    parts = [{part_word(word) for word in words(name)} - {""} for name in names]
    shared = set.intersection(*parts) if parts else set()
    return [own - shared for own in parts]
