"""Compress a block's .npy file to gzip and decompress it, with our own compiled DEFLATE and inflate where they exist.

Without them zlib compresses, because its bytes depend on nothing but its version, and ISA-L decompresses, because it
is faster than zlib.

Compressors make different bytes, so a split's manifest names its compressor (docs/decisions/0006). Every decompressor
gives back the same bytes (docs/decisions/0012).
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
except ImportError:  # installed without a C compiler
    _deflate = _inflate = None  # type: ignore[assignment]

# RFC 1952: no flags, no name, no time, no system
_GZIP_HEADER = bytes((0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 255))
_GZIP_END = 8  # bytes of the checksum and the length after the data

GZIP = 16  # added to the window, it makes zlib write gzip, without name and time
MAX_RATIO = 1032  # the most bytes that DEFLATE can make of one: a run of 258 for two bits
_DAMAGED: tuple[type[Exception], ...] = (igzip_lib.IsalError, EOFError)  # type: ignore[assignment]


def compressor_name() -> str:
    """Return the name of the compressor, for the manifest."""
    if _deflate is not None:
        return "runs and literals, version 1"
    return f"zlib {zlib.ZLIB_RUNTIME_VERSION}, level 1, window of a third of a plane"


def compress_block(npy: Any, plane: int) -> bytes:
    """Compress a .npy file to one gzip member.

    Args:
        npy: The whole file (any buffer).
        plane: Bytes of one plane of a sample, at least 1.

    Returns:
        The gzip member.
    """
    if _deflate is not None:
        while plane > 16384 and plane % 2 == 0:  # parts of a plain 224x224 image differ as much as its planes do
            plane //= 2
        end = struct.pack("<II", isal_zlib.crc32(npy), memoryview(npy).nbytes & 0xFFFFFFFF)
        return b"".join((_GZIP_HEADER, _deflate.deflate(npy, plane), end))
    stream = zlib.compressobj(1, zlib.DEFLATED, GZIP + window(plane))
    return stream.compress(npy) + stream.flush()


def window(plane: int) -> int:
    """Return log2 of the bytes that level 1 looks back.

    It is a third of a plane: a match farther away seldom saves more than its distance costs.

    Args:
        plane: Bytes of one plane of a sample.

    Returns:
        A number from 9 to 15, which is what DEFLATE allows.
    """
    return min(max((plane // 3).bit_length() - 1, 9), 15)


class DecodeBuffer:
    """Memory that one decompressed block after the other uses; it grows when a block needs more."""

    def __init__(self) -> None:
        self._bytes = np.empty(0, np.uint8)

    def of(self, size: int) -> NDArray[np.uint8]:
        """Return the memory: uint8, of at least `size` bytes."""
        if len(self._bytes) < size:
            self._bytes = np.empty(size, np.uint8)  # views of the old memory keep it alive
        return self._bytes


def decompress_block(data: memoryview, buffer: DecodeBuffer | None = None) -> memoryview:
    """Decompress one gzip member.

    Args:
        data: The bytes of the member.
        buffer: Memory for the result, which is valid until the next block is decompressed there. By default the result
            gets memory of its own.

    Returns:
        The bytes, read-only.

    Raises:
        ValueError: If the member is damaged; the message says what is wrong.
    """
    complete = len(data) >= len(_GZIP_HEADER) + _GZIP_END
    checksum, size = struct.unpack("<II", data[-_GZIP_END:]) if complete else (0, 0)
    if size > MAX_RATIO * len(data):
        raise ValueError("a length that cannot be")
    if _inflate is not None:
        out = (buffer or DecodeBuffer()).of(size + _inflate.SLACK)
        if _inflate.inflate(data, out) == size and isal_zlib.crc32(out[:size]) == checksum:
            return out[:size].data.toreadonly()
    try:
        return memoryview(igzip_lib.decompress(data, igzip_lib.DECOMP_GZIP, 15, size + 1))
    except _DAMAGED as error:
        raise ValueError(str(error)) from None
