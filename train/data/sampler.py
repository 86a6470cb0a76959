"""Which samples come in which batch: pure functions of (seed, epoch, counts from the manifest).

The blocks of an epoch are laid end to end in random order: a line of all samples. It is cut into slots, and every
batch takes a few samples from each slot, in turn, out of the one block that the slot is in; a block's samples come in
random order. So a batch draws on as many random blocks as there are slots, each block is read once, and what a rank
or a worker has to read is a range of slots. The batches are the same whatever reads them (docs/decisions/0010).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import TrainError

SLOTS = 32  # blocks that a batch draws on: 2,048 samples mixed; 64 read a tenth slower
POOL = 128 << 20  # bytes of decompressed blocks that they may take, with large planes
LEAST_HOLDOUT = 50  # samples held out: fewer would rank bands by chance
LAST_BATCH = ("drop", "wrap")


def slot_count(batch_size: int, block_bytes: int) -> int:
    """Slots for batches of that size. block_bytes: of a decompressed block."""
    return max(min(SLOTS, max(POOL // block_bytes, 16), batch_size), 1)


@dataclass(frozen=True)
class Span:
    """Positions first to last - 1 of every batch: what one rank, or one worker of it, reads."""

    first: int
    last: int

    def share(self, number: int, count: int) -> Span:
        """The part of it for `number` of `count`; the parts differ by one position at most."""
        size = self.last - self.first
        return Span(self.first + number * size // count, self.first + (number + 1) * size // count)


@dataclass(frozen=True)
class BlockRead:
    """A block to read next. Rows `first` to `last` - 1 of its order are what `slot` has from `place` on.

    place: rows of the slot since the epoch began.  batch: the first that needs them.
    """

    batch: int
    slot: int
    place: int
    block: int
    first: int
    last: int


@dataclass(frozen=True)
class Epochs:
    """The batches of every epoch.

    samples: int64 (blocks,), of each block of the part.  batch_size: of all ranks together; at most all samples.
    slots: as `lane_count` says.  remainder: 'drop' leaves out what does not fill a batch, other samples every epoch;
    'wrap' makes one batch more, for which the line begins again at its end: fewer than a batch of samples come twice.
    """

    samples: NDArray[np.int64]
    batch_size: int
    slots: int
    seed: int
    last_batch: str = "drop"

    @staticmethod
    def of(
        samples: NDArray[np.int64], batch_size: int, block_bytes: int, seed: int, last_batch: str = "drop"
    ) -> Epochs:
        """The batches for a wanted size, which is less where there are fewer samples."""
        size = max(min(batch_size, int(samples.sum())), 1)
        return Epochs(samples, size, slot_count(size, block_bytes), seed, last_batch)

    @property
    def batches(self) -> int:
        """Batches of an epoch."""
        total = int(self.samples.sum())
        return -(-total // self.batch_size) if self.last_batch == "wrap" else total // self.batch_size

    @property
    def edges(self) -> NDArray[np.int64]:
        """Where the slots lie in a batch: int64 (slots + 1,), positions."""
        return np.arange(self.slots + 1, dtype=np.int64) * self.batch_size // self.slots

    @property
    def partners(self) -> NDArray[np.int64]:
        """The position that each position of a batch is mixed with, itself where there is none: int64 (batch_size,).

        It is the same place of the slot beside: what lies within a slot is of one block, where a sample would meet
        the same few others in every epoch.
        """
        found = np.arange(self.batch_size)
        edges = self.edges.tolist()
        for left, middle, right in zip(edges[0::2], edges[1::2], edges[2::2], strict=False):
            width = min(middle - left, right - middle)
            found[left : left + width], found[middle : middle + width] = (
                found[middle : middle + width].copy(),
                found[left : left + width].copy(),
            )
        return found

    def block_order(self, epoch: int) -> NDArray[np.int64]:
        """The blocks of an epoch in order, as many as its batches need; with 'wrap' the first come again at the end."""
        # raw output only, which NumPy promises never to change
        bits = np.random.PCG64(np.random.SeedSequence([self.seed, epoch]))
        blocks = np.argsort(bits.random_raw(len(self.samples)), kind="stable").astype(np.int64)
        return np.tile(blocks, 2) if self.last_batch == "wrap" else blocks

    def rows(self, epoch: int, block: int) -> NDArray[np.int64]:
        """The order of the samples of a block: int64 (samples,), a permutation."""
        return np.argsort(self._bits(epoch, 0, block).random_raw(int(self.samples[block])), kind="stable")

    def substitutes(self, epoch: int, block: int) -> NDArray[np.int64]:
        """The blocks in whose order one is looked for that can be read in place of `block`: int64 (blocks,)."""
        return np.argsort(self._bits(epoch, 1, block).random_raw(len(self.samples)), kind="stable")

    def _bits(self, epoch: int, what: int, block: int) -> np.random.Philox:
        return np.random.Philox(key=np.array([self.seed, epoch], np.uint64), counter=[0, 0, what, block])

    def state_dict(self, epoch: int, batches: int) -> dict[str, int]:
        """Where a run is after `batches` batches of an epoch, for any number of ranks and workers."""
        return {"seed": self.seed, "epoch": epoch, "samples": batches * self.batch_size}

    def position(self, state: dict[str, int]) -> tuple[int, int]:
        """The epoch and the batch that come next; that after the last where only the epoch's end is missing.

        Raises TrainError for the state of other batches.
        """
        batch, rest = divmod(state["samples"], self.batch_size)
        if state["seed"] != self.seed or rest or batch > self.batches:
            where = f"{state['samples']} samples of epoch {state['epoch'] + 1} with seed {state['seed']}"
            raise TrainError(f"batches of {self.batch_size} with seed {self.seed} cannot go on after {where}")
        return state["epoch"], batch

    def block_reads(self, epoch: int, span: Span, first_batch: int = 0) -> Iterator[BlockRead]:
        """What a reader of `span` loads for an epoch from `first_batch` on, in the order of need."""
        line, edges = self.block_order(epoch), self.edges
        ends = np.cumsum(self.samples[line])
        begins = ends - self.samples[line]
        pieces = []
        for slot in slots_of(edges, span):
            width = int(edges[slot + 1] - edges[slot])
            start = self.batches * int(edges[slot])  # of the slot, along the line
            begin, end = start + first_batch * width, start + self.batches * width
            if begin < end:
                low, high = np.searchsorted(ends, [begin, end - 1], side="right")
                at = slice(low, high + 1)
                first, last = np.maximum(begins[at], begin), np.minimum(ends[at], end)
                columns = ((first - start) // width, np.full(len(first), slot), first - start, line[at])
                pieces.append(np.stack([*columns, first - begins[at], last - begins[at]], axis=1))
        if pieces:
            loads = np.concatenate(pieces)
            loads = loads[np.lexsort((loads[:, 2], loads[:, 1], loads[:, 0]))]
            for chunk in np.array_split(loads, max(len(loads) // 1024, 1)):  # few Python objects at a time
                yield from (BlockRead(*row) for row in chunk.tolist())


def slots_of(edges: NDArray[np.int64], span: Span) -> range:
    """The slots that a span has positions in."""
    if span.first >= span.last:
        return range(0)
    low = int(np.searchsorted(edges, span.first, side="right")) - 1
    return range(low, int(np.searchsorted(edges, span.last, side="left")))


def evaluation_blocks(blocks: range, rank: int, ranks: int) -> range:
    """The blocks that a rank evaluates: every block once in all, in stored order."""
    return blocks[rank * len(blocks) // ranks : (rank + 1) * len(blocks) // ranks]


def trained_blocks(samples: NDArray[np.int64], holdout_samples: int) -> int:
    """The blocks of train, from the first on, that are trained on; the rest is held out for ranking and fusing.

    samples: int64 (blocks,).  hold_out: so many samples at most, and a twentieth of all, in whole blocks; none where
    that is fewer than LEAST_HELD. A split stores train in random order, alike in all its bands: the last blocks are
    a fair draw, of the same images.
    """
    last = np.cumsum(samples[::-1])
    count = int(np.searchsorted(last, min(holdout_samples, int(samples.sum()) // 20), side="right"))
    return len(samples) - (count if count and last[count - 1] >= LEAST_HOLDOUT else 0)
