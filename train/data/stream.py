"""One part of a band, or of several bands, as batches: the planned samples of the blocks that are planned."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ...shards_manifest.errors import ShardError
from ...shards_manifest.shard.codec import DecodeBuffer
from ...shards_manifest.shard.reader import BlockReader, Fetched
from .sampler import BlockRead, EpochSampler, Span


@dataclass(frozen=True)
class Batch:
    """Samples, and what could not be read for them.

    Attributes:
        x: int8 (or float16) (n, 3, H, W), as stored; (n, bands, 3, H, W) of several bands.
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


class TrainStream:
    """The part of every batch that lies in a span, over epochs.

    Args:
        blocks: The blocks of the part.
        sampler: Which samples come in which batch.
        span: Positions of every batch.
        epochs: The epochs to read.
        first_batch: Batch of the first epoch to begin with.
        skip: Take another block for one that cannot be read, so that batches stay whole, and report it; otherwise its
            ShardError is raised.
    """

    def __init__(
        self,
        blocks: BlockReader,
        sampler: EpochSampler,
        span: Span,
        epochs: range,
        first_batch: int = 0,
        skip: bool = False,
    ) -> None:
        self._blocks, self._sampler, self._span, self._skip = blocks, sampler, span, skip
        self._epochs, self._first_batch = epochs, first_batch

    def __len__(self) -> int:
        """Return the number of batches in all, for any span."""
        return max(len(self._epochs) * self._sampler.batches - self._first_batch, 0)

    def __iter__(self) -> Iterator[Batch]:
        return self.share(0, 1)

    def share(self, number: int, count: int) -> Generator[Batch, None, None]:
        """Yield this reader's part of the span of every batch.

        Raises:
            ShardError: A block cannot be read, and none is to be skipped.
            StoreError: The store cannot be reached.
        """
        span = self._span.share(number, count)
        planned: deque[tuple[int, BlockRead]] = deque()
        with (
            self._blocks.for_reader(count) as blocks,
            closing(blocks.stream(self._wanted(span, planned))) as fetched,  # ahead, into the next epoch too
        ):
            following = next(fetched, None)
            for epoch in self._epochs:
                assembler = _BatchAssembler(blocks, self._sampler, span, epoch, self._skip)
                for batch in range(self._start(epoch), self._sampler.batches):
                    while following is not None and (planned[0][0], planned[0][1].batch) == (epoch, batch):
                        assembler.add(planned.popleft()[1], following)
                        following = next(fetched, None)
                    yield assembler.take(batch)

    def _wanted(self, span: Span, planned: deque[tuple[int, BlockRead]]) -> Iterator[int]:
        """Yield the blocks to fetch; what they are for is appended to `planned`."""
        for epoch in self._epochs:
            for read in self._sampler.block_reads(epoch, span, self._start(epoch)):
                planned.append((epoch, read))
                yield read.block

    def _start(self, epoch: int) -> int:
        return self._first_batch if epoch == self._epochs.start else 0


class _BatchAssembler:
    """Copies the samples of blocks to the batches of an epoch that they belong to.

    A block is copied as a whole while it is decompressed and still in the cache: that is a fifth faster than keeping it
    and taking a few samples for each batch, and takes the same memory.
    """

    def __init__(self, blocks: BlockReader, sampler: EpochSampler, span: Span, epoch: int, skip: bool) -> None:
        self._blocks, self._sampler, self._span, self._epoch, self._skip = blocks, sampler, span, epoch, skip
        self._open: dict[int, tuple[NDArray[Any], NDArray[np.int64]]] = {}
        self._lost: list[tuple[str, int]] = []
        self._buffer = DecodeBuffer()  # all blocks are decompressed to one place, which stays in the processor's cache

    def add(self, read: BlockRead, fetched: Fetched) -> None:
        """Copy the samples of a block that was fetched as planned. Raises ShardError."""
        wanted = read.last - read.first
        block, x, y, lost = self._decoded(fetched)
        rows = self._sampler.rows(self._epoch, block)[read.first : read.last]
        if len(rows) < wanted:  # of a smaller block in its place
            rows = np.resize(self._sampler.rows(self._epoch, block), wanted)
        y, span, used = y[rows], self._span, 0
        for batch, position, first, count in self._sampler.placements(read):
            low, high = max(position, span.first), min(position + count, span.last)
            if low < high:
                x_out, y_out = self._open.get(batch) or self._opened(batch)
                to = slice(low - span.first, high - span.first)
                some = slice(first + low - position, first + high - position)
                x.take(rows[some], 0, x_out[to], "clip")  # never clips; checking would copy twice
                y_out[to] = y[some]
                used += high - low
        if lost and used:
            self._lost.append((lost, used))

    def take(self, batch: int) -> Batch:
        """Return a batch, all of whose samples have been copied."""
        x, y = self._open.get(batch) or self._opened(batch)  # an empty span gets no samples
        del self._open[batch]
        lost, self._lost = tuple(self._lost), []
        return Batch(torch.from_numpy(x), torch.from_numpy(y), lost)

    def _opened(self, batch: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
        size = self._span.last - self._span.first
        made = np.empty((size, *self._blocks.shape), self._blocks.dtype), np.empty(size, np.int64)
        self._open[batch] = made
        return made

    def _decoded(self, fetched: Fetched) -> tuple[int, NDArray[Any], NDArray[np.int64], str]:
        """Return the block's number and samples; or another's in its place, and why."""
        try:
            return fetched.block, *self._blocks.decoded(fetched, self._buffer), ""
        except ShardError as error:
            if not self._skip:
                raise
            why = str(error)
        others = self._sampler.substitutes(self._epoch, fetched.block)
        shard = self._blocks.index.shard
        same = shard[others] == shard[fetched.block]  # which may be missing as a whole: tried last
        for block in np.concatenate([others[~same], others[same]]).tolist():
            try:
                return block, *self._blocks.read(block), why
            except ShardError:
                continue
        raise ShardError(f"no block of {self._blocks.name} can be read: copy the band again")


class EvalStream:
    """The samples of some blocks, each once, in batches of whole blocks.

    Args:
        blocks: The blocks of the part.
        batches: The blocks of each batch (`evaluation_batches`).
        skip: Leave out a block that cannot be read, and report it; otherwise its ShardError is raised.
    """

    def __init__(self, blocks: BlockReader, batches: Sequence[range], skip: bool = False) -> None:
        self._blocks, self._batches, self._skip = blocks, batches, skip

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        return self.share(0, 1)

    def share(self, number: int, count: int) -> Generator[Batch, None, None]:
        """Yield all of it, for a single reader.

        Raises:
            ShardError: A block cannot be read, and none is to be left out.
            StoreError: The store cannot be reached.
        """
        assert count == 1, "what is evaluated has one order"
        with self._blocks.for_reader(1) as blocks, closing(blocks.stream(self._wanted())) as fetched:
            for chosen in self._batches:
                # what is lost leaves a batch smaller, or empty
                x = [np.empty((0, *blocks.shape), blocks.dtype)]
                y = [np.empty(0, np.int64)]
                lost: list[tuple[str, int]] = []
                for block in chosen:
                    try:
                        pair = blocks.decoded(next(fetched))
                    except ShardError as error:
                        if not self._skip:
                            raise
                        lost.append((str(error), int(blocks.samples[block])))
                        continue
                    x.append(pair[0])
                    y.append(pair[1])
                yield Batch(torch.from_numpy(np.concatenate(x)), torch.from_numpy(np.concatenate(y)), tuple(lost))

    def _wanted(self) -> Iterator[int]:
        return (block for chosen in self._batches for block in chosen)


class BandsStream:
    """The same samples of several bands side by side: x is (n, bands, 3, H, W).

    Args:
        streams: One for each band, with the same order. What is lost in one is replaced in all or in none, so none of
            them may skip blocks.
    """

    def __init__(self, streams: Sequence[Stream]) -> None:
        self._streams = streams

    def share(self, number: int, count: int) -> Generator[Batch, None, None]:
        """Yield this reader's part of every batch. Raises ShardError, StoreError."""
        with ExitStack() as stack:
            bands = [stack.enter_context(closing(stream.share(number, count))) for stream in self._streams]
            for batches in zip(*bands, strict=True):
                if any(not torch.equal(batch.y, batches[0].y) for batch in batches[1:]):
                    raise ShardError("the bands of the split have other labels than each other: split again")
                yield Batch(torch.stack([batch.x for batch in batches], 1), batches[0].y)
