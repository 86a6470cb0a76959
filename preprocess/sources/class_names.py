"""Names of classes: which are the same, and how a message shows two that print alike."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from ...shards_manifest.tables import escape
from ..errors import SourceError


def normal(name: str) -> str:
    """The form in which names are compared: NFC. macOS writes é as e and an accent, other systems as one character.

    A name that is no valid Unicode is its own form.
    """
    if name.isascii() or not _is_unicode(name):
        return name
    return unicodedata.normalize("NFC", name)


def shown(name: str) -> str:
    """A name in a message, on one line; with its code points where it can print like another name."""
    plain = escape(name)
    if name.isascii() and name == name.strip():
        return plain
    return f"{plain} ('{''.join(map(_code, name))}')"


class Names:
    """Finds the number of a class by its name: as it is written, else by its normal form."""

    def __init__(self, names: Iterable[str]) -> None:
        self._written = {name: number for number, name in enumerate(names)}
        self._normal = {normal(name): number for name, number in self._written.items()}

    def find(self, name: str) -> int | None:
        """The number of the class, or None."""
        number = self._written.get(name)
        return self._normal.get(normal(name)) if number is None else number


def check_distinct(names: Iterable[str], where: object) -> None:
    """Raises SourceError for two names that are equal, or differ in their normal form alone."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.get(normal(name))
        if other == name:
            raise SourceError(f"{where} has the class {shown(name)} twice: once each")
        if other is not None:
            raise SourceError(
                f"{where} has two classes whose names print alike, {shown(other)} and {shown(name)}: rename one, or "
                "join them"
            )
        seen[normal(name)] = name


def alike(name: str, names: Iterable[str]) -> str | None:
    """The first of `names` that a reader could take for `name`: other in case, width or white space alone."""
    wanted = _folded(name)
    return next((other for other in names if _folded(other) == wanted), None)


def is_name(text: str) -> bool:
    """True for text that can be stored: JSON can spell halves of characters, which are none."""
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


def _code(character: str) -> str:
    """A character as itself if it is plain, else as \\uNNNN, or \\xNN for a byte that is no UTF-8."""
    code = ord(character)
    if character.isascii() and character.isprintable():
        return character
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
