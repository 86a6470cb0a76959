"""A block's .npy file to gzip: by our own compiled DEFLATE where there is one, else by ISA-L.

They make different bytes, so which one it was is part of what a split is (docs/decisions/0006).
"""

from __future__ import annotations

import struct
from importlib.metadata import version
from typing import Any

from isal import igzip_lib, isal_zlib

try:
    from . import _deflate
except ImportError:  # no compiler where this was installed
    _deflate = None  # type: ignore[assignment]

# RFC 1952: no flags, no name, no time, no system
_GZIP_HEADER = bytes((0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 255))


def compressor_name() -> str:
    """What blocks are compressed with, for the manifest."""
    if _deflate is not None:
        return "runs and literals, version 1"
    return f"isal {version('isal')}, level 1, window of a third of a plane"


def compress_block(npy: Any, plane: int) -> bytes:
    """A whole .npy file (any buffer) with planes of `plane` bytes as one gzip member."""
    if _deflate is not None:
        while plane > 16384 and plane % 2 == 0:  # the parts of a plain 224x224 image differ as much as its planes
            plane //= 2
        checksum = struct.pack("<II", isal_zlib.crc32(npy), memoryview(npy).nbytes & 0xFFFFFFFF)
        return b"".join((_GZIP_HEADER, _deflate.deflate(npy, plane), checksum))
    return compress_with_isal(npy, plane)


def compress_with_isal(npy: Any, plane: int) -> bytes:
    """The same by ISA-L's fastest level.

    Matches farther back than a third of a plane are seldom worth the length of their distance.
    """
    window = min(max((plane // 3).bit_length() - 1, 9), 15)  # log2 of its bytes, within what DEFLATE has
    return bytes(igzip_lib.compress(npy, 1, igzip_lib.COMP_GZIP, hist_bits=window))
