"""What people call the parts of a data set: the role of a name. Looks at nothing but names."""

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
    """A folder's name as a part's.

    role: train, val or test; empty for none.  rest: the words beside the one that says so, in order.
    """

    role: str
    rest: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """True where the name is the word and nothing else."""
        return bool(self.role) and not self.rest


NO_PART = PartName("")


def words(name: str) -> list[str]:
    """The words of a name, in lower case: what stands between other signs than letters and digits."""
    return _PIECE.findall(name.casefold())


def part_word(word: str) -> str:
    """The word without digits at its end, as in val2017, where it is a part's; else empty."""
    found = word.rstrip("0123456789")
    return found if found in WORDS else ""


def folder_part(name: str) -> PartName:
    """The role of a folder by the first or the last word of its name; none where these two differ."""
    pieces = words(name)
    first, last = (WORDS.get(part_word(word), "") for word in (pieces[0], pieces[-1])) if pieces else ("", "")
    if not (first or last) or (first and last and first != last):
        return NO_PART
    if last:
        return PartName(last, tuple(pieces[:-1]))
    return PartName(first, tuple(pieces[1:]))


def file_parts(names: Sequence[str]) -> list[set[str]]:
    """For each file the words of its name that say a part. Words that all of several names share tell nothing."""
    found = [{part_word(word) for word in words(name)} - {""} for name in names]
    shared = set.intersection(*found) if found else set()
    return [mine - shared for mine in found]
