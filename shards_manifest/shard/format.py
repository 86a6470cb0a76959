"""One shard: a ustar tar of block pairs `000000.x.npy.gz`, or `000000.x.npy`, and `000000.y.npy`.

A block holds n samples: x is int8 or float16 of shape (n, 3, H, W), y int64 of shape (n,). Any tar tool
opens a shard and stock webdataset reads it. The bytes written here depend on the arguments alone.
"""

from __future__ import annotations

import ast
import hashlib
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, BinaryIO

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from ..errors import ShardError
from ..manifest import DTYPES, BandManifest, Shard
from .codec import DecodeBuffer, decompress_block

TAR_BLOCK = 512
NPY_HEADER = 128
_HEADER = tarfile.TarInfo().tobuf(tarfile.USTAR_FORMAT)
_LABEL = np.dtype("<i8")
_NPY_MAGIC = b"\x93NUMPY\x01\x00"

SUFFIXES = {"gzip": "x.npy.gz", "none": "x.npy"}  # of the samples of a block, by the band's compression

Samples = tuple[NDArray[Any], NDArray[np.int64]]


def npy_header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """Return a version 1.0 .npy header of exactly 128 bytes (NumPy's own varies its padding between releases)."""
    text = f"{{'descr': '{dtype.str}', 'fortran_order': False, 'shape': {shape!r}, }}"
    size = NPY_HEADER - len(_NPY_MAGIC) - 2
    assert len(text) < size
    return _NPY_MAGIC + size.to_bytes(2, "little") + text.ljust(size - 1).encode() + b"\n"


class ShardWriter:
    """Appends blocks to an open file, and counts and hashes what it writes.

    Args:
        file: An empty file.
        compression: Of the band, a name in SUFFIXES.

    Attributes:
        compression: As given.
        index: (bytes, CRC-32) of the pair of members of every block, as `index.py` has them.
        samples: How many were written.
        bytes: How many were written.
    """

    def __init__(self, file: BinaryIO, compression: str = "gzip") -> None:
        self._file = file
        self.compression = compression
        self._hash = hashlib.sha256()
        self.index: list[tuple[int, int]] = []
        self.samples = 0
        self.bytes = 0

    def add(self, x: bytes | memoryview, labels: NDArray[np.int64]) -> None:
        """Append one block: x as `compress_block` made it, or the .npy file; labels int64 of shape (n,)."""
        y = npy_header(_LABEL, labels.shape) + labels.astype(_LABEL).tobytes()
        number = len(self.index)
        pair = b"".join((*_member(f"{number:06d}.{SUFFIXES[self.compression]}", x), *_member(f"{number:06d}.y.npy", y)))
        self._put(pair)
        self.index.append((len(pair), isal_zlib.crc32(pair)))
        self.samples += len(labels)

    def finish(self, name: str) -> Shard:
        """Write the end of the archive and return the shard's entry. The file stays open."""
        self._put(bytes(2 * TAR_BLOCK))
        return Shard(name, self.samples, len(self.index), self.bytes, self._hash.hexdigest())

    def _put(self, data: bytes) -> None:
        self._file.write(data)
        self._hash.update(data)
        self.bytes += len(data)


def _member(name: str, data: bytes | memoryview) -> tuple[bytes, bytes | memoryview, bytes]:
    """Return header, data and padding of a member. tarfile takes ten times as long for a header: 1 % of a split."""
    start = b"%s%011o\0%s" % (name.encode("ascii").ljust(100, b"\0") + _HEADER[100:124], len(data), _HEADER[136:148])
    checksum = sum(start) + 8 * 0x20 + sum(_HEADER[156:])
    return b"%s%06o\0 %s" % (start, checksum, _HEADER[156:]), data, bytes(-len(data) % TAR_BLOCK)


@dataclass(frozen=True)
class BlockSpan:
    """Where a block is within some bytes of its shard.

    Attributes:
        x: The bytes of its samples, as they are stored.
        y: The bytes of its labels.
    """

    x: slice
    y: slice


def index_shard(view: memoryview, where: str, compression: str = "gzip") -> list[BlockSpan]:
    """Return the blocks of a shard of a band with this compression, from its tar headers alone.

    Raises ShardError, naming `where`, for anything but pairs x, y in order and a complete archive.
    """
    blocks: list[BlockSpan] = []
    pending: slice | None = None
    for name, span in _members(view, where):
        wanted = f"{len(blocks):06d}." + (SUFFIXES[compression] if pending is None else "y.npy")
        if name != wanted:
            raise ShardError(f"{where} holds {name!r} where {wanted!r} should be: it is not a shard, or damaged")
        if pending is None:
            pending = span
        else:
            blocks.append(BlockSpan(pending, span))
            pending = None
    if pending is not None:
        raise ShardError(f"{where} ends in the middle of a block: copy it again")
    return blocks


def _members(view: memoryview, where: str) -> Iterator[tuple[str, slice]]:
    at = 0
    while True:
        header = bytes(view[at : at + TAR_BLOCK])
        if len(header) < TAR_BLOCK:
            raise ShardError(f"{where} is cut short at byte {len(view)}: copy it again")
        if header == bytes(TAR_BLOCK):
            if len(view) != at + 2 * TAR_BLOCK or any(view[at:]):
                raise ShardError(f"{where} does not end where its archive ends: copy it again")
            return
        try:
            size = int(header[124:136].rstrip(b"\0 "), 8)
            checksum = int(header[148:156].rstrip(b"\0 "), 8)
            name = header[:100].rstrip(b"\0").decode("ascii")
        except ValueError:
            size, checksum, name = -1, -1, ""
        # the checksum counts its own eight bytes as spaces (POSIX.1-1988 ustar)
        if size < 0 or checksum != sum(header) - sum(header[148:156]) + 8 * 0x20:
            raise ShardError(f"{where} has a damaged tar header at byte {at}: copy it again")
        at += TAR_BLOCK
        if at + size > len(view):
            raise ShardError(f"{where} is cut short at byte {len(view)}: copy it again")
        yield name, slice(at, at + size)
        at += size + -size % TAR_BLOCK


def read_labels(view: memoryview, block: BlockSpan, where: str) -> NDArray[np.int64]:
    """Return the labels of a block: int64 (n,). Raises ShardError."""
    return _array(view[block.y], where)


def read_block(
    view: memoryview, block: BlockSpan, where: str, buffer: DecodeBuffer | None = None, compression: str = "gzip"
) -> Samples:
    """Return the samples of one block, decompressed if the band is compressed.

    Args:
        view: The bytes of the shard, or of the block.
        block: Where the block is in them.
        where: The name of the shard, for messages.
        buffer: Where x may lie until the next block takes its place; None for memory of its own.
        compression: Of the band, a name in SUFFIXES.

    Returns:
        x of shape (n, 3, H, W), read-only, and y int64 of shape (n,). Without compression x is a view of `view`.

    Raises:
        ShardError: It does not decode, or x and y differ in length.
    """
    try:
        npy = view[block.x].toreadonly() if compression == "none" else decompress_block(view[block.x], buffer)
    except ValueError as error:
        raise ShardError(f"{where} does not decompress at byte {block.x.start} ({error}): copy it again") from None
    x, y = _array(npy, where), read_labels(view, block, where)
    if x.ndim != 4 or y.ndim != 1 or len(x) != len(y):
        raise ShardError(f"{where} has a block of {x.shape} samples with {y.shape} labels: it is damaged")
    return x, y


@dataclass(frozen=True)
class BlockFormat:
    """What every block of a band has to be, by the manifest of the band.

    Attributes:
        shape: Of a sample, (3, P, P).
        dtype: Of a sample.
        classes: How many there are: labels are below that.
        compression: Of the samples of a block, a name in SUFFIXES.
    """

    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    classes: int
    compression: str = "gzip"

    @staticmethod
    def of(manifest: BandManifest) -> BlockFormat:
        """Return the format of the blocks of a band."""
        side = manifest.geometry.plane
        dtype = DTYPES[manifest.geometry.dtype]
        return BlockFormat((3, side, side), dtype, len(manifest.classes), manifest.compression)

    def read(
        self, view: memoryview, block: BlockSpan, samples: int, where: str, buffer: DecodeBuffer | None = None
    ) -> Samples:
        """Read one block and check that it is what the manifest says.

        Args:
            view: The bytes of the shard, or of the block.
            block: Where the block is in them.
            samples: How many it should hold.
            where: The name of the shard, for messages.
            buffer: Where x may lie until the next block takes its place; None for memory of its own.

        Returns:
            x of shape (samples, 3, P, P), read-only, and y int64 of shape (samples,).

        Raises:
            ShardError: It does not decode, or holds other samples or labels than it should.
        """
        x, y = read_block(view, block, where, buffer, self.compression)
        if x.shape != (samples, *self.shape) or x.dtype != self.dtype:
            raise ShardError(f"{where} holds a block of {x.dtype} {x.shape}, not what its manifest says")
        if len(y) and not 0 <= y.min() <= y.max() < self.classes:
            wrong = y[(y < 0) | (y >= self.classes)][0]
            raise ShardError(f"{where} holds the label {wrong}, but there are {self.classes} classes: split again")
        return x, y


def _array(npy: memoryview, where: str) -> NDArray[Any]:
    """Return a C-order .npy of a known type, without a copy of its data."""
    try:
        dtype, shape, start = _parse_npy_header(bytes(npy[:NPY_HEADER]))
        return np.frombuffer(npy, dtype, offset=start).reshape(shape)
    except (ValueError, SyntaxError, KeyError, TypeError) as error:
        raise ShardError(f"{where} has a damaged array ({error}): copy it again") from None


@lru_cache(maxsize=1024)  # nearly all are the same
def _parse_npy_header(data: bytes) -> tuple[np.dtype[Any], tuple[int, ...], int]:
    """Return the type, the shape and the bytes of a .npy header. Raises ValueError and the like for another."""
    size = 10 + int.from_bytes(data[8:10], "little")
    if data[:8] != _NPY_MAGIC or size > len(data):
        raise ValueError("no version 1.0 .npy header")
    values = ast.literal_eval(data[10:size].decode("latin-1").strip())
    dtype, shape = np.dtype(values["descr"]), values["shape"]
    if values["fortran_order"] or dtype not in (*DTYPES.values(), _LABEL):
        raise ValueError(f"unexpected array {values}")
    return dtype, shape, size


def check_bytes(view: memoryview, shard: Shard, where: str) -> None:
    """Compare size and SHA-256 with the manifest. Raises ShardError on any difference."""
    if len(view) != shard.bytes:
        raise ShardError(f"{where} has {len(view)} bytes, its manifest says {shard.bytes}: copy it again")
    if hashlib.sha256(view).hexdigest() != shard.sha256:
        raise ShardError(f"{where} was altered (its SHA-256 is not the manifest's): copy it again")
