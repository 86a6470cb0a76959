"""One part of a band as batches: the planned rows of the blocks that are planned."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from ...shards_manifest.errors import ShardError
from ...shards_manifest.shard.codec import DecodeBuffer
from ...shards_manifest.shard.reader import BlockReader, Fetched
from .sampler import BlockRead, Epochs, Span


@dataclass(frozen=True)
class Batch:
    """int8 (or float16) x (n, 3, H, W), int64 y (n,); lost: a sentence and a count for what could not be read."""

    x: torch.Tensor
    y: torch.Tensor
    lost: tuple[tuple[str, int], ...] = ()

    def pin_memory(self) -> Batch:
        """The same in page-locked memory, from which copies to a GPU overlap with computing."""
        return replace(self, x=self.x.pin_memory(), y=self.y.pin_memory())


class TrainStream:
    """The part of every batch that lies in `span`, from batch `first_batch` of the first epoch to the last one's end.

    skip: a block that cannot be read is replaced by one that can, so that batches stay whole, and reported; otherwise
    its ShardError is raised.
    """

    def __init__(
        self,
        blocks: BlockReader,
        plan: Epochs,
        span: Span,
        epochs: range,
        first_batch: int = 0,
        skip: bool = False,
    ) -> None:
        self._blocks, self._plan, self._span, self._skip = blocks, plan, span, skip
        self._epochs, self._first_batch = epochs, first_batch

    def __len__(self) -> int:
        """Batches in all, for any span."""
        return max(len(self._epochs) * self._plan.batches - self._first_batch, 0)

    def __iter__(self) -> Iterator[Batch]:
        return self.share(0, 1)

    def share(self, number: int, count: int) -> Generator[Batch, None, None]:
        """What reader `number` of `count` makes: its part of the span of every batch. Raises ShardError, StoreError.

        Each may be a thread of its own. Who ends before its end closes it.
        """
        span = self._span.share(number, count)
        planned: deque[tuple[int, BlockRead]] = deque()
        with (
            self._blocks.for_reader(count) as blocks,
            closing(blocks.stream(self._wanted(span, planned))) as fetched,  # ahead, into the next epoch too
        ):
            following = next(fetched, None)
            for epoch in self._epochs:
                assembler = _BatchAssembler(blocks, self._plan, span, epoch, self._skip)
                for batch in range(self._start(epoch), self._plan.batches):
                    while following is not None and (planned[0][0], planned[0][1].batch) == (epoch, batch):
                        assembler.deal(planned.popleft()[1], following)
                        following = next(fetched, None)
                    yield assembler.take(batch)

    def _wanted(self, span: Span, planned: deque[tuple[int, BlockRead]]) -> Iterator[int]:
        """The blocks to fetch; what they are for is appended to `planned`."""
        for epoch in self._epochs:
            for load in self._plan.block_reads(epoch, span, self._start(epoch)):
                planned.append((epoch, load))
                yield load.block

    def _start(self, epoch: int) -> int:
        return self._first_batch if epoch == self._epochs.start else 0


class _BatchAssembler:
    """Deals the rows of blocks out to the batches of an epoch that they belong to.

    All at once, when a block is decompressed and still in the cache: that is a fifth faster than keeping the block
    and taking a few rows for each batch, and takes the same memory.
    """

    def __init__(self, blocks: BlockReader, plan: Epochs, span: Span, epoch: int, skip: bool) -> None:
        self._blocks, self._plan, self._span, self._epoch, self._skip = blocks, plan, span, epoch, skip
        self._edges = plan.edges.tolist()
        self._open: dict[int, tuple[NDArray[Any], NDArray[np.int64]]] = {}
        self._lost: list[tuple[str, int]] = []
        self._room = DecodeBuffer()  # all blocks are decompressed to one place, which stays in the processor's cache

    def deal(self, load: BlockRead, fetched: Fetched) -> None:
        """Deal the rows of a block that was fetched as planned. Raises ShardError."""
        wanted = load.last - load.first
        block, x, y, lost = self._decoded(fetched)
        rows = self._plan.rows(self._epoch, block)[load.first : load.last]
        if len(rows) < wanted:  # of a smaller block in its place
            rows = np.resize(self._plan.rows(self._epoch, block), wanted)
        y = y[rows]
        start, end = self._edges[load.slot], self._edges[load.slot + 1]
        batch, position = load.place // (end - start), start + load.place % (end - start)
        done = dealt = 0
        while done < len(rows):
            count = min(end - position, len(rows) - done)
            low, high = max(position, self._span.first), min(position + count, self._span.last)
            if low < high:
                x_out, y_out = self._open.get(batch) or self._opened(batch)
                to = slice(low - self._span.first, high - self._span.first)
                some = slice(done + low - position, done + high - position)
                x.take(rows[some], 0, x_out[to], "clip")  # never clips; checking would copy twice
                y_out[to] = y[some]
                dealt += high - low
            done, batch, position = done + count, batch + 1, start
        if lost and dealt:
            self._lost.append((lost, dealt))

    def take(self, batch: int) -> Batch:
        """A batch, all of whose blocks have been dealt."""
        x, y = self._open.get(batch) or self._opened(batch)  # nothing is dealt to an empty span
        del self._open[batch]
        lost, self._lost = tuple(self._lost), []
        return Batch(torch.from_numpy(x), torch.from_numpy(y), lost)

    def _opened(self, batch: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
        size = self._span.last - self._span.first
        made = np.empty((size, *self._blocks.shape), self._blocks.dtype), np.empty(size, np.int64)
        self._open[batch] = made
        return made

    def _decoded(self, fetched: Fetched) -> tuple[int, NDArray[Any], NDArray[np.int64], str]:
        """The block's number and samples, or another's in its place and why."""
        try:
            return fetched.block, *self._blocks.decoded(fetched, self._room), ""
        except ShardError as error:
            if not self._skip:
                raise
            why = str(error)
        others = self._plan.substitutes(self._epoch, fetched.block)
        shard = self._blocks.index.shard
        same = shard[others] == shard[fetched.block]  # which may be missing as a whole: looked at last
        for block in np.concatenate([others[~same], others[same]]).tolist():
            try:
                return block, *self._blocks.read(block), why
            except ShardError:
                continue
        raise ShardError(f"no block of {self._blocks.name} can be read: copy the band again")


class EvalStream:
    """The samples of some blocks, each once, in stored order, gathered to batches of about `batch_size`.

    skip: a block that cannot be read is left out and reported; otherwise its ShardError is raised.
    """

    def __init__(self, blocks: BlockReader, chosen: range, batch_size: int, skip: bool = False) -> None:
        self._blocks, self._chosen, self._batch_size, self._skip = blocks, chosen, batch_size, skip

    def __iter__(self) -> Iterator[Batch]:
        return self.share(0, 1)

    def share(self, number: int, count: int) -> Generator[Batch, None, None]:
        """All of it, for a single reader; it may be another thread. Raises ShardError, StoreError."""
        assert count == 1, "what is evaluated has one order"
        held: list[tuple[NDArray[Any], NDArray[np.int64]]] = []
        lost: list[tuple[str, int]] = []
        with self._blocks.for_reader(1) as blocks, closing(blocks.stream(self._chosen)) as stream:
            for fetched in stream:
                try:
                    held.append(blocks.decoded(fetched))
                except ShardError as error:
                    if not self._skip:
                        raise
                    lost.append((str(error), int(self._blocks.samples[fetched.block])))
                if sum(len(y) for _, y in held) >= self._batch_size:
                    yield _joined(held, lost)
                    held, lost = [], []
        if held or lost:
            held.append((np.empty((0, *self._blocks.shape), self._blocks.dtype), np.empty(0, np.int64)))
            yield _joined(held, lost)


def _joined(held: list[tuple[NDArray[Any], NDArray[np.int64]]], lost: list[tuple[str, int]]) -> Batch:
    x, y = (np.concatenate(column) for column in zip(*held, strict=True))
    return Batch(torch.from_numpy(x), torch.from_numpy(y), tuple(lost))


def reported(batch: Batch, said: set[str]) -> int:
    """Say what could not be read for a batch, each sentence once; the count of samples. said: sentences so far."""
    for sentence, _ in batch.lost:
        if sentence not in said:
            said.add(sentence)
            tqdm.write(f"{sentence}: going on without it")
    return sum(samples for _, samples in batch.lost)
