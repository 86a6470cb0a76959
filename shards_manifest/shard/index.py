"""Where the blocks of a part are in its shards, and a checksum of each: `train.index`, 8 bytes a block.

With it a block is read by one range, and checked, without the rest of its shard.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from ..errors import ShardError
from ..manifest import Part
from ..storage.base import Store
from .format import TAR_BLOCK, BlockSpan

ENTRY = np.dtype([("size", "<u4"), ("crc32", "<u4")])  # of both members with their headers and padding


def index_name(part: str) -> str:
    """Return the name of the index of a part, within the folder of its band."""
    return f"{part}.index"


@dataclass(frozen=True, eq=False)  # arrays have no one answer to ==
class PartIndex:
    """The blocks of a part, in stored order. All arrays have the shape (blocks,).

    Attributes:
        part: What the manifest says of the part.
        shard: int32, the number of the shard of the block.
        start: int64, the first byte of the block in its shard.
        size: uint32, its bytes, both members with headers and padding.
        crc32: uint32, of these bytes.
        samples: int64, how many it holds.
    """

    part: Part
    shard: NDArray[np.int32]
    start: NDArray[np.int64]
    size: NDArray[np.uint32]
    crc32: NDArray[np.uint32]
    samples: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.shard)

    def place(self, block: int) -> tuple[str, int, int]:
        """Return the name of the shard, the first byte and the count of bytes of a block."""
        return self.part.shards[int(self.shard[block])].name, int(self.start[block]), int(self.size[block])

    def of_shard(self, number: int) -> NDArray[np.void]:
        """Return the entries of a shard: ENTRY (blocks of that shard,)."""
        chosen = self.shard == number
        entries = np.empty(int(chosen.sum()), ENTRY)
        entries["size"], entries["crc32"] = self.size[chosen], self.crc32[chosen]
        return entries

    def check(self, block: int, data: memoryview | bytes, where: str) -> None:
        """Compare a block's bytes with the index. Raises ShardError, naming `where`, on any difference."""
        if len(data) != self.size[block]:
            raise ShardError(f"{where} is cut short: copy it again")
        if isal_zlib.crc32(data) != self.crc32[block]:
            at = self.start[block]
            raise ShardError(f"{where} was altered (the CRC-32 at byte {at} is not its index's): copy it again")


def part_index(part: Part, data: bytes, block: int, where: str) -> PartIndex:
    """Return the index of a part from its file.

    Args:
        part: What the manifest says of the part.
        data: The bytes of the file.
        block: Samples of every block but the last of a shard.
        where: The name of the file, for messages.

    Raises:
        ShardError: The file is not the one that the manifest knows.
    """
    if hashlib.sha256(data).hexdigest() != part.index:
        raise ShardError(f"{where} was altered (its SHA-256 is not the manifest's): copy it again")
    if len(data) % ENTRY.itemsize:
        raise ShardError(f"{where} has {len(data)} bytes, which is no whole number of entries: copy the band again")
    entries = np.frombuffer(data, ENTRY)
    counts = np.array([shard.blocks for shard in part.shards], np.int64)
    if len(entries) != counts.sum():
        raise ShardError(f"{where} lists {len(entries)} blocks, the manifest {counts.sum()}: copy the band again")
    shard = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    first = np.cumsum(counts) - counts
    ends = np.cumsum(entries["size"], dtype=np.int64)
    start = ends - entries["size"]
    start -= np.repeat(start[first[counts > 0]], counts[counts > 0])
    samples = np.full(len(entries), block, np.int64)
    last = (first + counts - 1)[counts > 0]
    totals = np.array([shard.samples for shard in part.shards], np.int64)[counts > 0]
    samples[last] = totals - (counts[counts > 0] - 1) * block
    sizes = np.array([shard.bytes for shard in part.shards], np.int64)[counts > 0]
    if (start[last] + entries["size"][last] + 2 * TAR_BLOCK != sizes).any():
        raise ShardError(f"{where} does not fit the sizes of the shards: copy the band again")
    return PartIndex(part, shard, start, entries["size"], entries["crc32"], samples)


def load_index(store: Store, folder: str, name: str, part: Part, block: int) -> PartIndex:
    """Read the index of part `name` of the band in `folder`. Raises ShardError, StoreError."""
    path = f"{folder}/{index_name(name)}" if folder else index_name(name)
    try:
        data = store.read(path)
    except FileNotFoundError:
        raise ShardError(f"{store}/{path} is missing: copy the band again") from None
    return part_index(part, data, block, f"{store}/{path}")


def block_entries(view: memoryview, blocks: list[BlockSpan]) -> NDArray[np.void]:
    """Return the entries that the index should have for a whole shard: ENTRY (blocks,)."""
    starts = [block.x.start - TAR_BLOCK for block in blocks] + [len(view) - 2 * TAR_BLOCK]
    pieces = [view[start:end] for start, end in pairwise(starts)]
    return np.array([(len(piece), isal_zlib.crc32(piece)) for piece in pieces], ENTRY)


def block_of(data: memoryview, where: str) -> BlockSpan:
    """Return the ranges of x and y within the checked bytes of one block. Raises ShardError."""
    try:
        x = slice(TAR_BLOCK, TAR_BLOCK + int(bytes(data[124:135]), 8))
        header = x.stop + -x.stop % TAR_BLOCK
        y = slice(header + TAR_BLOCK, header + TAR_BLOCK + int(bytes(data[header + 124 : header + 135]), 8))
    except ValueError:
        y = slice(0, 0)
    if not 0 < y.stop <= len(data) < y.stop + TAR_BLOCK:
        raise ShardError(f"{where} has a block that is no pair of members: it is damaged")
    return BlockSpan(x, y)
