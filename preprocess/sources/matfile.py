"""A small reader of MATLAB files (level 5), enough for the meta.mat of ILSVRC2012's devkit.

SciPy's loadmat does the same, but SciPy takes 100 MB on the disk, for one file of 50 kB.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_TYPES |= {16: "u1", 17: "u2"}  # text
_MATRIX, _COMPRESSED, _UTF8 = 14, 15, 16
_CELL, _STRUCT, _CHAR = 1, 2, 4
LARGEST = 64 * 2**20  # bytes of a variable, expanded


def read_mat(data: bytes) -> dict[str, Any]:
    """Return the variables of a MATLAB file by name.

    Numbers are flat lists, text is str, cells are lists, and arrays of structures are lists of dicts.

    Raises:
        ValueError: The file is damaged, or of another level.
    """
    if len(data) < 128 or data[126:128] != b"IM":
        raise ValueError("not a level 5 MATLAB file")
    found: dict[str, Any] = {}
    try:
        for kind, content in _elements(data[128:]):
            if kind == _COMPRESSED:
                expander = zlib.decompressobj()
                inside = expander.decompress(content, LARGEST)
                if expander.unconsumed_tail:
                    raise ValueError("too large")
                kind, content = next(_elements(inside))
            if kind == _MATRIX:
                name, value = _matrix(content)
                found[name] = value
    except (struct.error, zlib.error, KeyError, IndexError, StopIteration, RecursionError) as error:
        raise ValueError(f"damaged ({error})") from None
    return found


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (type, content) of each element."""
    position = 0
    while position + 8 <= len(data):
        kind, size = struct.unpack_from("<II", data, position)
        if kind >> 16:  # a short element: type, size and up to four bytes in one tag
            yield kind & 0xFFFF, data[position + 4 : position + 4 + (kind >> 16)]
            position += 8
            continue
        if position + 8 + size > len(data):
            raise ValueError("cut short")
        yield kind, data[position + 8 : position + 8 + size]
        position += 8 + (size if kind == _COMPRESSED else -(-size // 8) * 8)


def _matrix(data: bytes) -> tuple[str, Any]:
    """Return the name and the value of an array."""
    if not data:
        return "", []
    parts = _elements(data)
    flags, shape, name = (content for _, content in (next(parts), next(parts), next(parts)))
    kind, count = flags[0], math.prod(struct.unpack(f"<{len(shape) // 4}i", shape))
    if kind == _STRUCT:
        width = struct.unpack("<i", next(parts)[1])[0]
        names = next(parts)[1]
        fields = [names[i : i + width].rstrip(b"\0").decode() for i in range(0, len(names), width)]
        values = [{field: _matrix(next(parts)[1])[1] for field in fields} for _ in range(min(count, len(data)))]
        return name.decode(), values
    if kind == _CELL:
        return name.decode(), [_matrix(next(parts)[1])[1] for _ in range(min(count, len(data)))]
    stored, content = next(parts, (1, b""))
    numbers = np.frombuffer(content, "<" + _TYPES[stored])
    if kind != _CHAR:
        return name.decode(), numbers.tolist()
    return name.decode(), content.decode() if stored == _UTF8 else bytes(numbers.astype("<u2")).decode("utf-16-le")
