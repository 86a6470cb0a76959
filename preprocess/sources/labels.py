"""What a label says: the number of a class, its name, or nothing; and the classes that the labels of a part make."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from ..errors import RejectedImage, SourceError, UnlabelledError, UnlabelledImage
from ..listing import Entries, Listing
from .base import LARGEST_LABEL, Reject, decoded, made_listing, numbered_classes
from .class_names import Names, is_name, shown

Label = int | str  # the number of a class, or its name
Row = tuple[Label | RejectedImage, str, bytes, int, int]  # label, source for messages, name, offset, size

NO_LABEL = "an image without a label (.cls, or .json with a label)"
_DIGITS, _NEGATIVE = re.compile("[0-9]+"), re.compile("-[0-9]+")
_LONGEST = 18  # digits of a number that still fits 64 bits


class _Object(list[tuple[str, object]]):
    """The pairs of a JSON object; a dict would hide a key that is there twice."""


def label_of(value: object) -> Label:
    """The label that a value of JSON, or of a column, is.

    A whole number is the number of a class, 2.0 as well as 2: pandas writes it so. Text is as in `label_of_text`.
    Raises UnlabelledImage for null, NaN and what is negative, RejectedImage for all else.
    """
    if isinstance(value, str):
        return label_of_text(value)
    if value is None or value != value:
        raise UnlabelledImage(f"an image without a label: it is {'null' if value is None else 'NaN'}")
    if isinstance(value, bool) or not isinstance(value, int | float):
        kind = json.dumps(value) if isinstance(value, bool) else "an object" if isinstance(value, _Object) else "a list"
        raise RejectedImage(f"its label is {kind}, neither a number nor a name")
    if isinstance(value, float) and not value.is_integer():
        raise RejectedImage(f"its label {value} is no whole number")
    if value < 0:
        raise UnlabelledImage(f"its label {value} is the index of no class")
    return int(value)


def label_of_text(text: str) -> Label:
    """The label that a text is, white space around it aside: a number if it is digits alone, 0 to 9, else a name.

    Raises UnlabelledImage where it is empty, or a negative number, RejectedImage where it is no name.
    """
    text = text.strip()
    if not text:
        raise UnlabelledImage("an image without a label: it is empty")
    if _DIGITS.fullmatch(text):
        if len(text.lstrip("0")) > _LONGEST:
            raise RejectedImage(f"its label {_short(text)} is the index of no class")
        return int(text)
    if _NEGATIVE.fullmatch(text):
        raise UnlabelledImage(f"its label {_short(text)} is the index of no class")
    if any(character < " " for character in text) or not is_name(text):
        raise RejectedImage("its label is no text of one line")
    return text


def label_in_cls(data: bytes) -> Label:
    """The label in a .cls file. Raises UnlabelledImage, RejectedImage."""
    try:
        return label_of_text(decoded(data))
    except ValueError:
        raise RejectedImage("its .cls is no text") from None


def label_in_json(data: bytes) -> Label | None:
    """The label in a .json file, None where it has none. Raises UnlabelledImage, RejectedImage."""
    try:
        found = json.loads(data, object_pairs_hook=_Object)
    except (ValueError, RecursionError):
        raise RejectedImage("its .json cannot be read") from None
    values = [value for key, value in found if key == "label"] if isinstance(found, _Object) else []
    if not values:
        return None
    if len(values) > 1:
        raise RejectedImage('its .json has "label" more than once')
    return label_of(values[0])


class Labels:
    """Numbers the labels of one part as they come, and makes its listing.

    known: the classes by number; none where the labels alone say what there is.  where: the part.  cure: for a
    message, what may be done about numbers that are meant as names.
    """

    def __init__(self, known: tuple[str, ...], where: object, cure: str) -> None:
        self._known, self._where, self._cure = known, where, cure
        self._index = Names(known)
        self._digits = {int(name) for name in known if _DIGITS.fullmatch(name) and len(name) <= _LONGEST}
        self._names: dict[str, int] = {}  # of the classes, in the order in which they came
        self._name = self._number = ""  # the first sample of each kind, for the message about both
        self._most = -1
        self._refused: list[Reject] = []
        self._unlabelled = 0

    def numbered(self, rows: Iterable[Row]) -> Iterator[tuple[int, bytes, int, int]]:
        """The (class, name, offset, size) of the rows whose label can be used. Raises SourceError."""
        for label, source, name, offset, size in rows:
            try:
                if isinstance(label, RejectedImage):
                    raise label
                yield self._class(label, source), name, offset, size
            except RejectedImage as reason:
                self._unlabelled += isinstance(reason, UnlabelledImage)
                self._refused.append((source, str(reason)))

    def _class(self, label: Label, source: str) -> int:
        known = len(self._known)
        if isinstance(label, int):
            if label >= known and label in self._digits:
                raise SourceError(
                    f"{self._where} has the label {label} ({source}), which is no index of its {known} classes, 0 to "
                    f"{known - 1}, but the name of one: a number is an index, never a name; {self._cure}"
                )
            if label >= (known or LARGEST_LABEL):
                raise RejectedImage(f"its label {_short(str(label))} is the index of no class")
            self._number = self._number or f"{label} ({source})"
            self._most = max(self._most, label)
            return label
        found = self._index.find(label)
        if found is not None:
            return found
        if known:
            raise RejectedImage(f"its label {_short(shown(label))} is the name of no class")
        if _is_number(label):
            raise RejectedImage(f"its label {_short(shown(label))} is a number, but not in plain digits")
        self._name = self._name or f"{_short(shown(label))} ({source})"
        if len(self._names) >= LARGEST_LABEL:
            raise SourceError(f"{self._where} has more than {LARGEST_LABEL} names as labels: these are no classes")
        return self._names.setdefault(label, len(self._names))

    def listing(self, entries: Entries, rejects: list[Reject]) -> Listing:
        """The listing of the part: entries in order of class and name, classes as `numbered` gave them.

        Without known classes they are the names, sorted, or the numbers. Raises SourceError where there are both,
        UnlabelledError where no image has a label.
        """
        if not len(entries) and self._unlabelled and self._unlabelled == len(self._refused):
            raise UnlabelledError(self._where, self._unlabelled, ": ".join(self._refused[0]))
        if self._names and self._number:
            raise SourceError(
                f"{self._where} has numbers as labels, {self._number}, and names, {self._name}, and nothing says which "
                f"class a number is: use one of them; {self._cure}"
            )
        rejects = rejects + self._refused
        if not self._names:
            classes = self._known or numbered_classes(self._most + 1)
            return made_listing(classes, entries, rejects, self._where, numbered=not self._known)
        classes = tuple(sorted(self._names))
        place = {name: number for number, name in enumerate(classes)}
        new = np.array([place[name] for name in self._names], np.int32)
        found = made_listing(self._names, entries, rejects, self._where).relabelled(classes, new)
        note = f"The classes are the {len(classes)} names that the labels are, sorted"
        return replace(found, named_by_labels=True, notes=(note, *found.notes))


def _is_number(text: str) -> bool:
    """True for what is a number to Python, though not plain digits: 1_000, +1, 2.0, 1e3."""
    try:
        float(text)
    except ValueError:
        return False
    return any(character.isdigit() for character in text)


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:50]}..."
