"""One part of a band, or of several bands, as batches: the planned samples of the blocks that are planned."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ...shards_manifest.errors import ShardError
from ...shards_manifest.shard.bands_reader import Blocks
from ...shards_manifest.shard.codec import DecodeBuffer
from ...shards_manifest.shard.format import Samples
from ...shards_manifest.shard.reader import Fetched
from .sampler import BlockRead, EpochSampler, Span


@dataclass(frozen=True)
class Batch:
    """Samples, and what could not be read for them.

    Attributes:
        x: int8 (or float16) (n, 3, P, P), as stored; (n, bands, 3, P, P) of several bands, each contiguous.
        y: int64 (n,), the classes.
        lost: A sentence, and a count of samples, for each shard that could not be read.
    """

    x: torch.Tensor
    y: torch.Tensor
    lost: tuple[tuple[str, int], ...] = ()

    def pin_memory(self) -> Batch:
        """Return the same in page-locked memory, from which copies to a GPU overlap with computing."""
        return replace(self, x=self.x.pin_memory(), y=self.y.pin_memory())


class Stream(Protocol):
    """Batches that several readers can make in parts."""

    def share(self, number: int, count: int) -> Generator[Batch, None, None]:
        """Yield the part of every batch that reader `number` of `count` makes.

        Each may be a thread of its own, and closes the generator if it ends early.
        """
        ...


@dataclass(frozen=True)
class TrainStream:
    """The part of every batch that lies in a span, over epochs.

    Attributes:
        blocks: The blocks of the part.
        sampler: Which samples come in which batch.
        span: Positions of every batch.
        epochs: The epochs to read.
        first_batch: Batch of the first epoch to begin with.
        skip: Take another block for one that cannot be read, so that batches stay whole, and report it; otherwise its
            ShardError is raised.
    """

    blocks: Blocks
    sampler: EpochSampler
    span: Span
    epochs: range
    first_batch: int = 0
    skip: bool = False

    def __len__(self) -> int:
        """Return the number of batches in all, for any span."""
        return max(len(self.epochs) * self.sampler.batches - self.first_batch, 0)

    def __iter__(self) -> Iterator[Batch]:
        return self.share(0, 1)

    def share(self, number: int, count: int) -> Generator[Batch, None, None]:
        """Yield this reader's part of the span of every batch.

        Raises:
            ShardError: A block cannot be read, and none is to be skipped.
            StoreError: The store cannot be reached.
        """
        span = self.span.share(number, count)
        planned: deque[tuple[int, BlockRead]] = deque()
        with (
            self.blocks.for_reader(count) as blocks,
            closing(blocks.stream(self._wanted(span, planned))) as fetched,  # ahead, into the next epoch too
        ):
            following = next(fetched, None)
            for epoch in self.epochs:
                assembler = _BatchAssembler(blocks, self.sampler, span, epoch, self.skip)
                for batch in range(self.start(epoch), self.sampler.batches):
                    while following is not None and (planned[0][0], planned[0][1].batch) == (epoch, batch):
                        assembler.add(planned.popleft()[1], following)
                        following = next(fetched, None)
                    yield assembler.take(batch)

    def _wanted(self, span: Span, planned: deque[tuple[int, BlockRead]]) -> Iterator[int]:
        """Yield the blocks to fetch; what they are for is appended to `planned`."""
        for epoch in self.epochs:
            for read in self.sampler.block_reads(epoch, span, self.start(epoch)):
                planned.append((epoch, read))
                yield read.block

    def start(self, epoch: int) -> int:
        """Return the batch that an epoch begins with."""
        return self.first_batch if epoch == self.epochs.start else 0


class _BatchAssembler:
    """Copies the samples of blocks to the batches of an epoch that they belong to.

    A block is copied as a whole while it is decompressed and still in the cache: that is a fifth faster than keeping it
    and taking a few samples for each batch, and takes the same memory.
    """

    def __init__(self, blocks: Blocks, sampler: EpochSampler, span: Span, epoch: int, skip: bool) -> None:
        self._blocks, self._sampler, self._span, self._epoch, self._skip = blocks, sampler, span, epoch, skip
        self._open: dict[int, tuple[NDArray[Any], NDArray[np.int64]]] = {}
        self._lost: list[tuple[str, int]] = []
        self._buffer = DecodeBuffer()  # all blocks are decompressed to one place, which stays in the processor's cache

    def add(self, read: BlockRead, fetched: Fetched) -> None:
        """Copy the samples of a block that was fetched as planned. Raises ShardError."""
        places = list(self._places(read))
        try:
            self._copy(read, fetched, places)
        except ShardError as error:
            if not self._skip:
                raise
            self._copy_another(read, fetched.block, places)
            if used := sum(to.stop - to.start for _, to, _ in places):
                self._lost.append((str(error), used))

    def take(self, batch: int) -> Batch:
        """Return a batch, all of whose samples have been copied."""
        x, y = self._open.get(batch) or self._opened(batch)  # an empty span gets no samples
        del self._open[batch]
        lost, self._lost = tuple(self._lost), []
        return Batch(rows_of(torch.from_numpy(x), self._blocks), torch.from_numpy(y), lost)

    def _places(self, read: BlockRead) -> Iterator[tuple[int, slice, slice]]:
        """Yield where samples of a read go: the batch, the places in this span of it, and which samples of the read."""
        span = self._span
        for batch, position, first, count in self._sampler.placements(read):
            low, high = max(position, span.first), min(position + count, span.last)
            if low < high:
                some = slice(first + low - position, first + high - position)
                yield batch, slice(low - span.first, high - span.first), some

    def _copy(self, read: BlockRead, fetched: Fetched, places: Sequence[tuple[int, slice, slice]]) -> None:
        """Copy the samples of a block, of one band after the other. Raises ShardError."""
        rows, wanted = self._sampler.rows(self._epoch, fetched.block), read.last - read.first
        chosen = rows[read.first : read.last]
        if len(chosen) < wanted:  # of a smaller block in the place of another
            chosen = np.resize(rows, wanted)
        for band, (x, y) in enumerate(aligned(self._blocks, fetched, self._buffer)):
            for batch, to, some in places:
                x_out, y_out = self._open.get(batch) or self._opened(batch)
                x.take(chosen[some], 0, x_out[band, to], "clip")  # never clips; checking would copy twice
                if not band:
                    y_out[to] = y[chosen[some]]

    def _copy_another(self, read: BlockRead, lost: int, places: Sequence[tuple[int, slice, slice]]) -> None:
        """Copy another block in the place of one that is lost, in all bands. Raises ShardError."""
        others = self._sampler.substitutes(self._epoch, lost)
        shard = self._blocks.index.shard
        same = shard[others] == shard[lost]  # which may be missing as a whole: tried last
        for block in np.concatenate([others[~same], others[same]]).tolist():
            try:
                return self._copy(read, self._blocks.fetch(block), places)
            except ShardError:
                continue
        raise ShardError(f"no block of {self._blocks.name} can be read: copy the band again")

    def _opened(self, batch: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
        size = self._span.last - self._span.first
        made = empty(self._blocks, size), np.empty(size, np.int64)
        self._open[batch] = made
        return made


@dataclass(frozen=True)
class EvalStream:
    """The samples of some blocks, each once, in batches of whole blocks.

    Attributes:
        blocks: The blocks of the part.
        batches: The blocks of each batch (`evaluation_batches`).
        skip: Leave out a block that cannot be read, and report it; otherwise its ShardError is raised.
    """

    blocks: Blocks
    batches: Sequence[range]
    skip: bool = False

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        return self.share(0, 1)

    def share(self, number: int, count: int) -> Generator[Batch, None, None]:
        """Yield all of it, for a single reader.

        Raises:
            ShardError: A block cannot be read, and none is to be left out.
            StoreError: The store cannot be reached.
        """
        assert count == 1, "what is evaluated has one order"
        buffer = DecodeBuffer()
        with self.blocks.for_reader(1) as blocks, closing(blocks.stream(self._wanted())) as fetched:
            for chosen in self.batches:
                samples = blocks.samples[chosen.start : chosen.stop]
                x, y = empty(blocks, int(samples.sum())), np.empty(samples.sum(), np.int64)
                lost: list[tuple[str, int]] = []
                filled = 0  # what is lost leaves a batch smaller, or empty
                for block_samples in samples.tolist():
                    to = slice(filled, filled + block_samples)
                    try:
                        for band, (planes, labels) in enumerate(aligned(blocks, next(fetched), buffer)):
                            x[band, to], y[to] = planes, labels
                    except ShardError as error:
                        if not self.skip:
                            raise
                        lost.append((str(error), block_samples))
                        continue
                    filled += block_samples
                yield Batch(rows_of(torch.from_numpy(x[:, :filled]), blocks), torch.from_numpy(y[:filled]), tuple(lost))

    def _wanted(self) -> Iterator[int]:
        return (block for chosen in self.batches for block in chosen)


def aligned(blocks: Blocks, fetched: Fetched, buffer: DecodeBuffer) -> Iterator[Samples]:
    """Yield a block of every band. Raises ShardError, also where the bands have other labels than each other."""
    first: NDArray[np.int64] | None = None
    for x, y in blocks.each_band(fetched, buffer):
        if first is None:
            first = y
        elif not np.array_equal(y, first):
            raise ShardError(f"the bands of {blocks.name} have other labels than each other: split again")
        yield x, y


def empty(blocks: Blocks, samples: int) -> NDArray[Any]:
    """Return room for samples, band after band: (bands, samples, 3, P, P)."""
    *bands, channels, height, width = blocks.shape
    return np.empty((*(bands or [1]), samples, channels, height, width), blocks.dtype)


def rows_of(x: torch.Tensor, blocks: Blocks) -> torch.Tensor:
    """Return (bands, n, 3, P, P) as (n, bands, 3, P, P), a view; as (n, 3, P, P) from the reader of a single band."""
    return x[0] if len(blocks.shape) == 3 else x.transpose(0, 1)
