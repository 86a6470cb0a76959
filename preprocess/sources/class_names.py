"""Names of classes: which are the same, which print alike, and how messages show them."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from ...shards_manifest.tables import escape
from ..errors import SourceError


def normal_form(name: str) -> str:
    """Return the form in which names are compared: Unicode's NFC, or the name itself if it is no valid Unicode.

    macOS writes é as e and an accent, other systems as one character.
    """
    if name.isascii() or not _is_unicode(name):
        return name
    return unicodedata.normalize("NFC", name)


def display_name(name: str) -> str:
    """Return a name for a message, on one line; with its code points if it can print like another name."""
    plain = escape(name)
    if name.isascii() and name == name.strip():
        return plain
    return f"{plain} ('{''.join(map(_code_point, name))}')"


class ClassIndex:
    """Finds the number of a class by its name: as it is written, else by its normal form.

    Args:
        names: Names of the classes, by number.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._written = {name: number for number, name in enumerate(names)}
        self._normal = {normal_form(name): number for name, number in self._written.items()}

    def find(self, name: str) -> int | None:
        """Return the number of the class, or None."""
        number = self._written.get(name)
        return self._normal.get(normal_form(name)) if number is None else number


def check_distinct(names: Iterable[str], where: object) -> None:
    """Raise SourceError if two names are equal, or differ only in how their characters are composed."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.get(normal_form(name))
        if other == name:
            raise SourceError(f"{where} has the class {display_name(name)} twice: once each")
        if other is not None:
            raise SourceError(
                f"{where} has two classes whose names print alike, {display_name(other)} and {display_name(name)}: "
                "rename one, or join them"
            )
        seen[normal_form(name)] = name


def find_similar(name: str, names: Iterable[str]) -> str | None:
    """Return the first of `names` that differs from `name` only in case, width or white space."""
    wanted = _folded(name)
    return next((other for other in names if _folded(other) == wanted), None)


def is_storable(text: str) -> bool:
    """Return whether text can be stored: JSON can spell halves of characters, which cannot."""
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def _folded(name: str) -> str:
    return "".join(unicodedata.normalize("NFKC", name).casefold().split())


def _is_unicode(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _code_point(character: str) -> str:
    """Return a character as itself if it is plain, else as \\uNNNN, or \\xNN for a byte that is not UTF-8."""
    code = ord(character)
    if character.isascii() and character.isprintable():
        return character
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
