"""A block's .npy file to gzip and back: by our own compiled DEFLATE and inflate where there are any.

Else zlib compresses, whose bytes depend on nothing but its version, and ISA-L decompresses, which is faster.

Compressors make different bytes, so which one it was is part of what a split is (docs/decisions/0006). Back they all
give the same (docs/decisions/0012).
"""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
from isal import igzip_lib, isal_zlib
from numpy.typing import NDArray

try:
    from . import _deflate, _inflate
except ImportError:  # no compiler where this was installed
    _deflate = _inflate = None  # type: ignore[assignment]

# RFC 1952: no flags, no name, no time, no system
_GZIP_HEADER = bytes((0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 255))


GZIP = 16  # added to the window, what makes zlib write gzip: without name and time
MOST = 1032  # bytes that DEFLATE makes of one at most: a run of 258 for two bits
_DAMAGED: tuple[type[Exception], ...] = (igzip_lib.IsalError, EOFError)  # type: ignore[assignment]


def compressor_name() -> str:
    """What blocks are compressed with, for the manifest."""
    if _deflate is not None:
        return "runs and literals, version 1"
    return f"zlib {zlib.ZLIB_RUNTIME_VERSION}, level 1, window of a third of a plane"


def compress_block(npy: Any, plane: int) -> bytes:
    """A whole .npy file (any buffer) with planes of `plane` bytes as one gzip member."""
    if _deflate is not None:
        while plane > 16384 and plane % 2 == 0:  # the parts of a plain 224x224 image differ as much as its planes
            plane //= 2
        checksum = struct.pack("<II", isal_zlib.crc32(npy), memoryview(npy).nbytes & 0xFFFFFFFF)
        return b"".join((_GZIP_HEADER, _deflate.deflate(npy, plane), checksum))
    stream = zlib.compressobj(1, zlib.DEFLATED, GZIP + window(plane))
    return stream.compress(npy) + stream.flush()


def window(plane: int) -> int:
    """log2 of the bytes that level 1 looks back: farther than a third of a plane is seldom worth the distance."""
    return min(max((plane // 3).bit_length() - 1, 9), 15)  # within what DEFLATE has


class DecodeBuffer:
    """Memory for one decompressed block after the other; it grows as they do."""

    def __init__(self) -> None:
        self._bytes = np.empty(0, np.uint8)

    def of(self, size: int) -> NDArray[np.uint8]:
        """At least so many bytes."""
        if len(self._bytes) < size:
            self._bytes = np.empty(size, np.uint8)  # what still looks at the old one keeps it
        return self._bytes


def decompress_block(data: memoryview, room: DecodeBuffer | None = None) -> memoryview:
    """The bytes of one gzip member, read-only.

    room: where they may lie until the next block takes it; memory of their own otherwise.
    Raises ValueError, saying what is wrong, for what is damaged.
    """
    checksum, size = struct.unpack("<II", data[-8:]) if len(data) >= 18 else (0, 0)
    if size > MOST * len(data):
        raise ValueError("a length that cannot be")
    if _inflate is not None:
        out = (room or DecodeBuffer()).of(size + _inflate.SLACK)
        if _inflate.inflate(data, out) == size and isal_zlib.crc32(out[:size]) == checksum:
            return out[:size].data.toreadonly()
    try:
        return memoryview(igzip_lib.decompress(data, igzip_lib.DECOMP_GZIP, 15, size + 1))
    except _DAMAGED as error:
        raise ValueError(str(error)) from None
