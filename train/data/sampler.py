"""Which samples come in which batch: pure functions of (seed, epoch, counts from the manifest).

The blocks of an epoch are laid end to end in random order. That order of all samples is cut into slots of equal length,
and every batch takes a few samples from each slot, in turn, out of the one block that the slot has reached; the samples
of a block come in random order. So a batch draws on as many random blocks as there are slots, each block is read once,
and what a rank or a worker has to read is a range of slots. The batches are the same whatever reads them
(docs/decisions/0010).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ...shards_manifest.manifest import BandManifest
from ..errors import TrainError
from . import philox

SLOTS = 32  # blocks that a batch draws on: 2,048 samples are mixed; 64 read a tenth slower
POOL = 128 << 20  # bytes of decompressed blocks that the slots may take, with large planes
CHUNK = 1 << 16  # samples whose order is computed at once
LEAST_HOLDOUT = 50  # samples of a holdout: fewer would rank bands by chance
LAST_BATCH = ("drop", "wrap")  # what becomes of samples that do not fill a batch


def slot_count(batch_size: int, block_bytes: int) -> int:
    """Return the number of slots for batches of a size.

    Args:
        batch_size: Samples of a batch.
        block_bytes: Bytes of a decompressed block.
    """
    return max(min(SLOTS, max(POOL // block_bytes, 16), batch_size), 1)


@dataclass(frozen=True)
class Span:
    """Positions `first` to `last - 1` of every batch: what one rank, or one worker of it, reads."""

    first: int
    last: int

    def share(self, number: int, count: int) -> Span:
        """Return the part of the span for `number` of `count`. The parts differ by one position at most."""
        size = self.last - self.first
        return Span(self.first + number * size // count, self.first + (number + 1) * size // count)


@dataclass(frozen=True)
class BlockRead:
    """A block to read next, and the samples of it that one slot takes.

    Attributes:
        batch: The first batch that needs it.
        slot: The slot that takes the samples.
        place: Samples of the slot since the epoch began, before these.
        block: The block, by its number in stored order.
        first, last: The samples are `first` to `last - 1` of the block's random order (`EpochSampler.rows`).
    """

    batch: int
    slot: int
    place: int
    block: int
    first: int
    last: int


@dataclass(frozen=True)
class EpochSampler:
    """The batches of every epoch.

    Attributes:
        samples: int64 (blocks,), the samples of each block of the part.
        batch_size: Samples of a batch, over all ranks; at most all samples.
        slots: Blocks that a batch draws on (`slot_count`).
        seed: Seed of every order.
        last_batch: 'drop' leaves out what does not fill a batch, other samples in every epoch. 'wrap' makes one batch
            more, for which the order starts again: fewer than a batch of samples come twice.
    """

    samples: NDArray[np.int64]
    batch_size: int
    slots: int
    seed: int
    last_batch: str = "drop"

    @staticmethod
    def of(
        samples: NDArray[np.int64], batch_size: int, block_bytes: int, seed: int, last_batch: str = "drop"
    ) -> EpochSampler:
        """Return the sampler for a wanted batch size, which is less where there are fewer samples."""
        size = max(min(batch_size, int(samples.sum())), 1)
        return EpochSampler(samples, size, slot_count(size, block_bytes), seed, last_batch)

    @cached_property
    def batches(self) -> int:
        """Batches of an epoch."""
        total = int(self.samples.sum())
        return -(-total // self.batch_size) if self.last_batch == "wrap" else total // self.batch_size

    @cached_property
    def edges(self) -> NDArray[np.int64]:
        """Where the slots lie in a batch: int64 (slots + 1,), positions."""
        return np.arange(self.slots + 1, dtype=np.int64) * self.batch_size // self.slots

    @property
    def partners(self) -> NDArray[np.int64]:
        """The position that each position of a batch is mixed with, itself where there is none: int64 (batch_size,).

        It is the same place of the slot beside. Samples of one slot are of one block, and would meet the same few
        others in every epoch.
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
        """Return the order of an epoch's blocks, as many as its batches need.

        With 'wrap' all blocks come a second time, for the last batch.
        """
        # raw output only, which NumPy promises never to change
        bits = np.random.PCG64(np.random.SeedSequence([self.seed, epoch]))
        blocks = np.argsort(bits.random_raw(len(self.samples)), kind="stable").astype(np.int64)
        return np.tile(blocks, 2) if self.last_batch == "wrap" else blocks

    def rows(self, epoch: int, block: int) -> NDArray[np.int64]:
        """Return the order of the samples of a block: int64 (samples,), a permutation."""
        return np.argsort(self._bits(epoch, 0, block).random_raw(int(self.samples[block])), kind="stable")

    def samples_of(self, epoch: int, blocks: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the samples of blocks, each block's in its random order (`rows`), by their number in stored order.

        Args:
            epoch: The epoch.
            blocks: int64 (n,), numbers of blocks.

        Returns:
            int64 (samples of all these blocks,).
        """
        sizes = self.samples[blocks]
        places = np.cumsum(sizes) - sizes
        found = np.empty(int(sizes.sum()), np.int64)
        for size in np.unique(sizes):  # nearly all blocks are full
            chosen = np.flatnonzero(sizes == size)
            words = philox.words((self.seed, epoch), 0, blocks[chosen].astype(np.uint64), int(size))
            rows = np.argsort(words, axis=1, kind="stable") + self._starts[blocks[chosen], None]
            found[places[chosen, None] + np.arange(size)] = rows
        return found

    def sample_batches(self, epoch: int, span: Span, first_batch: int = 0) -> Iterator[NDArray[np.int64]]:
        """Yield the samples of each batch from `first_batch` on, by their number in stored order.

        These are the samples that `block_reads`, `placements` and `rows` put together block by block.

        Yields:
            int64 (positions of the span,).
        """
        order, edges, slots = self.block_order(epoch), self.edges, slots_of(self.edges, span)
        ends = np.cumsum(self.samples[order])
        begins = ends - self.samples[order]
        size = span.last - span.first
        most = max(CHUNK // max(size, 1), 1)
        start, count = first_batch, 0
        while start < self.batches:
            count = min(2 * count or 1, most, self.batches - start)  # few at first, so that the first batch comes early
            found = np.empty((count, size), np.int64)
            pieces = []
            for slot in slots:
                width = int(edges[slot + 1] - edges[slot])
                begin = self.batches * int(edges[slot]) + start * width  # in the order of all samples
                low, high = np.searchsorted(ends, [begin, begin + count * width - 1], side="right")
                pieces.append((slot, width, order[low : high + 1], begin - int(begins[low])))
            samples = self.samples_of(epoch, np.concatenate([piece[2] for piece in pieces])) if pieces else found
            place = 0
            for slot, width, blocks, skipped in pieces:
                rows = samples[place + skipped : place + skipped + count * width].reshape(count, width)
                edge, first, last = int(edges[slot]), span.first, span.last
                inside = slice(max(first - edge, 0), min(last - edge, width))
                found[:, edge + inside.start - first : edge + inside.stop - first] = rows[:, inside]
                place += int(self.samples[blocks].sum())
            yield from found
            start += count

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        """The first sample of each block, in stored order."""
        return np.cumsum(self.samples) - self.samples

    def substitutes(self, epoch: int, block: int) -> NDArray[np.int64]:
        """Return the blocks to try, in order, in place of one that cannot be read: int64 (blocks,)."""
        return np.argsort(self._bits(epoch, 1, block).random_raw(len(self.samples)), kind="stable")

    def _bits(self, epoch: int, what: int, block: int) -> np.random.Philox:
        return np.random.Philox(key=np.array([self.seed, epoch], np.uint64), counter=[0, 0, what, block])

    def state_dict(self, epoch: int, batch: int) -> dict[str, int]:
        """Return where a run is before batch `batch` of an epoch, for any number of ranks and workers."""
        return {"seed": self.seed, "epoch": epoch, "samples": batch * self.batch_size}

    def position(self, state: dict[str, int]) -> tuple[int, int]:
        """Return the epoch and the batch that come next, from what `state_dict` returned.

        The batch is `batches` where nothing but the end of the epoch is missing.

        Raises:
            TrainError: The state is of other batches.
        """
        batch, rest = divmod(state["samples"], self.batch_size)
        if state["seed"] != self.seed or rest or batch > self.batches:
            where = f"{state['samples']} samples of epoch {state['epoch'] + 1} with seed {state['seed']}"
            raise TrainError(f"batches of {self.batch_size} with seed {self.seed} cannot go on after {where}")
        return state["epoch"], batch

    def block_reads(self, epoch: int, span: Span, first_batch: int = 0) -> Iterator[BlockRead]:
        """Yield what a reader of `span` reads for an epoch from `first_batch` on, in the order of need."""
        order, edges = self.block_order(epoch), self.edges
        ends = np.cumsum(self.samples[order])
        begins = ends - self.samples[order]
        pieces = []
        for slot in slots_of(edges, span):
            width = int(edges[slot + 1] - edges[slot])
            start = self.batches * int(edges[slot])  # of the slot, in the order of all samples
            begin, end = start + first_batch * width, start + self.batches * width
            if begin < end:
                low, high = np.searchsorted(ends, [begin, end - 1], side="right")
                at = slice(low, high + 1)
                first, last = np.maximum(begins[at], begin), np.minimum(ends[at], end)
                columns = ((first - start) // width, np.full(len(first), slot), first - start, order[at])
                pieces.append(np.stack([*columns, first - begins[at], last - begins[at]], axis=1))
        if pieces:
            reads = np.concatenate(pieces)
            reads = reads[np.lexsort((reads[:, 2], reads[:, 1], reads[:, 0]))]
            for chunk in np.array_split(reads, max(len(reads) // 1024, 1)):  # few Python objects at a time
                yield from (BlockRead(*row) for row in chunk.tolist())

    def placements(self, read: BlockRead) -> Iterator[tuple[int, int, int, int]]:
        """Yield where the samples of a block read go: (batch, position in it, first sample of the read, count).

        The samples of a slot fill its positions of one batch after the other.
        """
        start, end = int(self.edges[read.slot]), int(self.edges[read.slot + 1])
        batch, offset = divmod(read.place, end - start)
        position, done, samples = start + offset, 0, read.last - read.first
        while done < samples:
            count = min(end - position, samples - done)
            yield batch, position, done, count
            done, batch, position = done + count, batch + 1, start


def slots_of(edges: NDArray[np.int64], span: Span) -> range:
    """Return the slots that a span has positions in."""
    if span.first >= span.last:
        return range(0)
    low = int(np.searchsorted(edges, span.first, side="right")) - 1
    return range(low, int(np.searchsorted(edges, span.last, side="left")))


def rank_blocks(blocks: range, rank: int, world_size: int) -> range:
    """Return the blocks that a rank evaluates: every block once in all, in stored order."""
    return blocks[rank * len(blocks) // world_size : (rank + 1) * len(blocks) // world_size]


def evaluation_batches(samples: NDArray[np.int64], blocks: range, batch_size: int) -> list[range]:
    """Return the blocks of each evaluation batch: whole blocks in stored order, `batch_size` samples or a few more.

    Args:
        samples: int64 (blocks of the part,), the samples of each block.
        blocks: The blocks to evaluate.
        batch_size: Samples that fill a batch; the last one has what is left.
    """
    batches, first, count = [], blocks.start, 0
    for block in blocks:
        count += int(samples[block])
        if count >= batch_size or block == blocks[-1]:
            batches.append(range(first, block + 1))
            first, count = block + 1, 0
    return batches


def trained_blocks(samples: NDArray[np.int64], holdout_samples: int) -> int:
    """Return how many blocks of train, from the first on, are trained on; the others are the holdout.

    The holdout ranks bands and fits the weights of an ensemble. A split stores train in random order, alike in all its
    bands: so the last blocks are a fair draw, of the same images in every band.

    Args:
        samples: int64 (blocks,), the samples of each block.
        holdout_samples: Samples of the holdout at most. It also has a twentieth of all at most, in whole blocks, and
            none where that is fewer than LEAST_HOLDOUT.
    """
    last = np.cumsum(samples[::-1])
    count = int(np.searchsorted(last, min(holdout_samples, int(samples.sum()) // 20), side="right"))
    return len(samples) - (count if count and last[count - 1] >= LEAST_HOLDOUT else 0)


def holdout_size(band: BandManifest, holdout_samples: int) -> int:
    """Return how many samples of train are the holdout, by the manifest alone.

    Args:
        band: A band with a train part.
        holdout_samples: As for `trained_blocks`.
    """
    sizes = [
        min(band.block, shard.samples - first)
        for shard in band.parts["train"].shards
        for first in range(0, shard.samples, band.block)
    ]
    samples = np.array(sizes, np.int64)
    return int(samples[trained_blocks(samples, holdout_samples) :].sum())
