"""Small text files as editors and other programs save them: UTF-8, or UTF-16 with a byte-order mark."""

from __future__ import annotations

import codecs
import re

from ..errors import SourceError

_CONTROL = re.compile("[\0-\x08\x0e-\x1f]")  # all but white space: text has none, and nearly all other files do


def decode_text(data: bytes) -> str:
    """Return the text of a small file, without a byte-order mark.

    It is UTF-8, or UTF-16 if a byte-order mark says so, as Windows writes it. A byte that is not UTF-8 is kept as a
    surrogate, as in file names.

    Raises:
        ValueError: The file is no text.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        text = data.decode("utf-16")
    else:
        text = data.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape")
    if _CONTROL.search(text):
        raise ValueError("control characters")
    return text


def text_lines(data: bytes, where: object) -> list[str]:
    """Return the lines of a text file (see `decode_text`), without line ends.

    Raises:
        SourceError: The file is no text; the sentence names `where`.
    """
    try:
        lines = re.split("\r*\n|\r", decode_text(data))
    except ValueError:
        raise SourceError(f"{where} is no text: save it as UTF-8, one entry a line") from None
    return lines if lines[-1] else lines[:-1]
