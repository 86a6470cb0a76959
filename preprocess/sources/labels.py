"""Labels: what a value or a text says (a class number, a name, nothing), and the classes that they make up."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from ..errors import RejectedImage, SourceError, UnlabelledError, UnlabelledImage
from ..listing import Entries, Listing
from .base import LARGEST_LABEL, Reject, numbered_classes, part_listing
from .class_names import ClassIndex, display_name, is_storable
from .text_files import decode_text

Label = int | str  # the number of a class, or its name
# label or why there is none, source for messages, name, offset, size
LabelledImage = tuple[Label | RejectedImage, str, bytes, int, int]

NO_LABEL = "an image without a label (.cls, or .json with a label)"
_DIGITS, _NEGATIVE = re.compile("[0-9]+"), re.compile("-[0-9]+")
_LONGEST = 18  # digits of a number that still fits 64 bits


class _Object(list[tuple[str, object]]):
    """The pairs of a JSON object; a dict would hide a second pair with the same key."""


def label_of(value: object) -> Label:
    """Return the label that a value of JSON, or of a column, stands for.

    A whole number is the number of a class, 2.0 as well as 2, as pandas writes it. Text is as in `label_of_text`.

    Raises:
        UnlabelledImage: The value is null, NaN or negative.
        RejectedImage: The value is no label.
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
    """Return the label that a text stands for: a class number if it has only the digits 0 to 9, else a name.

    White space around it is left out.

    Raises:
        UnlabelledImage: The text is empty, or a negative number.
        RejectedImage: The text can be no name.
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
    if any(character < " " for character in text) or not is_storable(text):
        raise RejectedImage("its label is no text of one line")
    return text


def label_in_cls(data: bytes) -> Label:
    """Return the label in a .cls file. Raises UnlabelledImage, RejectedImage."""
    try:
        return label_of_text(decode_text(data))
    except ValueError:
        raise RejectedImage("its .cls is no text") from None


def label_in_json(data: bytes) -> Label | None:
    """Return the label in a .json file, None if it has none. Raises UnlabelledImage, RejectedImage."""
    try:
        content = json.loads(data, object_pairs_hook=_Object)
    except (ValueError, RecursionError):
        raise RejectedImage("its .json cannot be read") from None
    values = [value for key, value in content if key == "label"] if isinstance(content, _Object) else []
    if not values:
        return None
    if len(values) > 1:
        raise RejectedImage('its .json has "label" more than once')
    return label_of(values[0])


class LabelEncoder:
    """Gives the labels of one part their class numbers, and makes its listing.

    Args:
        known: Names of the classes, by number; empty if only the labels say which classes there are.
        where: The part, for messages.
        advice: What to do about numbers that are meant as names, for messages.
    """

    def __init__(self, known: tuple[str, ...], where: object, advice: str) -> None:
        self._known, self._where, self._advice = known, where, advice
        self._index = ClassIndex(known)
        self._digits = {int(name) for name in known if _DIGITS.fullmatch(name) and len(name) <= _LONGEST}
        self._names: dict[str, int] = {}  # of the classes, in the order in which they came
        self._name = self._number = ""  # the first sample of each kind, for the message about both
        self._most = -1
        self._refused: list[Reject] = []
        self._unlabelled = 0

    def encode(self, rows: Iterable[LabelledImage]) -> Iterator[tuple[int, bytes, int, int]]:
        """Yield (class, name, offset, size) of the images whose label can be used. Raises SourceError."""
        for label, source, name, offset, size in rows:
            try:
                if isinstance(label, RejectedImage):
                    raise label
                yield self._class(label, source), name, offset, size
            except RejectedImage as reason:
                self._unlabelled += isinstance(reason, UnlabelledImage)
                self._refused.append((source, str(reason)))

    def _class(self, label: Label, source: str) -> int:
        """Return the number of a label's class. Raises RejectedImage, SourceError."""
        known = len(self._known)
        if isinstance(label, int):
            if label >= known and label in self._digits:
                raise SourceError(
                    f"{self._where} has the label {label} ({source}), which is no index of its {known} classes, 0 to "
                    f"{known - 1}, but the name of one: a number is an index, never a name; {self._advice}"
                )
            if label >= (known or LARGEST_LABEL):
                raise RejectedImage(f"its label {_short(str(label))} is the index of no class")
            self._number = self._number or f"{label} ({source})"
            self._most = max(self._most, label)
            return label
        number = self._index.find(label)
        if number is not None:
            return number
        if known:
            raise RejectedImage(f"its label {_short(display_name(label))} is the name of no class")
        if _is_number(label):
            raise RejectedImage(f"its label {_short(display_name(label))} is a number, but not in plain digits")
        self._name = self._name or f"{_short(display_name(label))} ({source})"
        if len(self._names) >= LARGEST_LABEL:
            raise SourceError(f"{self._where} has more than {LARGEST_LABEL} names as labels: these are no classes")
        return self._names.setdefault(label, len(self._names))

    def listing(self, entries: Entries, rejects: list[Reject]) -> Listing:
        """Return the listing of the part.

        Without known classes the classes are the names, sorted, or the numbers.

        Args:
            entries: The samples in order of class and name, with the classes that `encode` gave them.
            rejects: What is left out for other reasons than its label.

        Raises:
            SourceError: Some labels are names and some numbers.
            UnlabelledError: No image has a label.
        """
        if not len(entries) and self._unlabelled and self._unlabelled == len(self._refused):
            raise UnlabelledError(self._where, self._unlabelled, ": ".join(self._refused[0]))
        if self._names and self._number:
            raise SourceError(
                f"{self._where} has numbers as labels, {self._number}, and names, {self._name}, and nothing says which "
                f"class a number is: use one of them; {self._advice}"
            )
        rejects = rejects + self._refused
        if not self._names:
            classes = self._known or numbered_classes(self._most + 1)
            return part_listing(classes, entries, rejects, self._where, numbered=not self._known)
        classes = tuple(sorted(self._names))
        numbers = {name: number for number, name in enumerate(classes)}
        new = np.array([numbers[name] for name in self._names], np.int32)
        listing = part_listing(self._names, entries, rejects, self._where).relabelled(classes, new)
        note = f"The classes are the {len(classes)} names that the labels are, sorted"
        return replace(listing, named_by_labels=True, notes=(note, *listing.notes))


def _is_number(text: str) -> bool:
    """Return whether Python reads a text as a number, though it is not plain digits: 1_000, +1, 2.0, 1e3."""
    try:
        float(text)
    except ValueError:
        return False
    return any(character.isdigit() for character in text)


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:50]}..."
