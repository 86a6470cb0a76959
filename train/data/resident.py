"""One part, decompressed, in memory or on a device: blocks arrive once, and batches are gathered by sample."""

from __future__ import annotations

import hashlib
import mmap
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Protocol
from weakref import WeakValueDictionary

import numpy as np
import torch
from numpy.typing import NDArray

from ...shards_manifest.dataset import Bands
from ...shards_manifest.errors import ShardError
from ...shards_manifest.shard.bands_reader import Blocks
from ...shards_manifest.shard.codec import DecodeBuffer
from ...shards_manifest.shard.reader import Fetched
from .sampler import Span
from .shared_memory import SharedMemory, is_there
from .stream import Batch, EvalStream, TrainStream, aligned, empty, rows_of

PAGE = mmap.PAGESIZE
LAYOUT = 1  # of what is shared, for releases that run at once
_LOCK = threading.Lock()


class ResidentPart(Protocol):
    """The samples of a part, as far as its blocks have arrived."""

    def has(self, block: int) -> bool:
        """Return whether a block has arrived."""
        ...

    def expect(self, order: Iterable[int]) -> None:
        """Prepare for blocks that will arrive, in their order."""
        ...

    def add(self, blocks: Blocks, fetched: Fetched, buffer: DecodeBuffer) -> None:
        """Keep the samples of a block. Raises ShardError."""
        ...

    def take(self, blocks: Blocks, samples: NDArray[np.int64]) -> Batch:
        """Return samples by their numbers in stored order, all of blocks that have arrived."""
        ...

    def copy(self, blocks: Blocks, chosen: range) -> Batch:
        """Return the samples of neighbouring blocks, which have arrived, in stored order."""
        ...

    def placed(self, batch: Batch) -> Batch:
        """Return a batch that was read otherwise, where batches of this part are."""
        ...


class _Blocks:
    """Where the samples of each block are in a part."""

    def __init__(self, blocks: Blocks) -> None:
        self._ends = np.cumsum(blocks.samples)
        self._starts = self._ends - blocks.samples

    def _at(self, first: int, last: int) -> slice:
        """Return the samples of blocks `first` to `last`."""
        return slice(int(self._starts[first]), int(self._ends[last]))


class MemoryPart(_Blocks):
    """A part in memory.

    All threads and processes of this user on this machine that read the same part share it.

    Args:
        blocks: The blocks of the part.
        name: Of its content: parts of the same name hold the same bytes.

    Raises:
        OSError: There is no memory.
    """

    def __init__(self, blocks: Blocks, name: str) -> None:
        super().__init__(blocks)
        count, samples = len(blocks.samples), int(blocks.samples.sum())
        shape = part_shape(blocks)
        labels_at = PAGE * -(-count // PAGE)
        samples_at = labels_at + PAGE * -(-8 * samples // PAGE)
        self._memory = SharedMemory(name, samples_at + int(np.prod(shape)) * blocks.dtype.itemsize)
        memory = self._memory.view
        self._arrived = np.frombuffer(memory[:count], np.bool_)
        self._y = np.frombuffer(memory[labels_at : labels_at + 8 * samples], np.int64)
        self._x = np.frombuffer(memory[samples_at:], blocks.dtype).reshape(shape)
        self._samples_at, self._expected = samples_at, False

    def expect(self, order: Iterable[int]) -> None:
        """Get memory for blocks ahead of use, in the order in which they will arrive; only the first time."""
        if not self._expected:
            self._expected = True
            bytes_of = self._x.strides[:2]
            starts, ends = (self._samples_at + bytes_of[1] * each for each in (self._starts, self._ends))
            bands, arrived = [band * bytes_of[0] for band in range(len(self._x))], self._arrived
            self._memory.populate(  # of nothing that keeps this part alive
                slice(int(starts[block]) + band, int(ends[block]) + band)
                for block in order
                if not arrived[block]
                for band in bands
            )

    def has(self, block: int) -> bool:
        """Return whether a block has arrived, by any process."""
        found = bool(self._arrived[block])
        _fence()
        return found

    def add(self, blocks: Blocks, fetched: Fetched, buffer: DecodeBuffer) -> None:
        """Keep the samples of a block. Raises ShardError."""
        at = self._at(fetched.block, fetched.block)
        for band, (x, y) in enumerate(aligned(blocks, fetched, buffer)):
            self._x[band, at] = x
            if not band:
                self._y[at] = y
        _fence()
        self._arrived[fetched.block] = True

    def take(self, blocks: Blocks, samples: NDArray[np.int64]) -> Batch:
        """Return samples by their numbers in stored order, int64 (n,), all of blocks that have arrived."""
        x = empty(blocks, len(samples))
        for band, out in enumerate(x):
            self._x[band].take(samples, 0, out, "clip")  # never clips; checking would copy twice
        return Batch(rows_of(torch.from_numpy(x), blocks), torch.from_numpy(self._y[samples]))

    def copy(self, blocks: Blocks, chosen: range) -> Batch:
        """Return the samples of neighbouring blocks, which have arrived, in stored order."""
        at = self._at(chosen[0], chosen[-1])
        return Batch(rows_of(torch.from_numpy(self._x[:, at].copy()), blocks), torch.from_numpy(self._y[at].copy()))

    def placed(self, batch: Batch) -> Batch:
        """Return a batch as it is."""
        return batch


class DevicePart(_Blocks):
    """A part on a device, where batches are gathered too.

    Args:
        blocks: The blocks of the part.
        device: The device.

    Raises:
        RuntimeError: There is no such device, or not the memory.
    """

    def __init__(self, blocks: Blocks, device: torch.device) -> None:
        super().__init__(blocks)
        dtype = torch.from_numpy(np.empty(0, blocks.dtype)).dtype
        self._x = torch.empty(part_shape(blocks), dtype=dtype, device=device)
        self._y = torch.empty(int(blocks.samples.sum()), dtype=torch.int64, device=device)
        self._arrived = np.zeros(len(blocks.samples), np.bool_)

    def expect(self, order: Iterable[int]) -> None:
        """Do nothing: the device's memory is there."""

    def has(self, block: int) -> bool:
        """Return whether a block has arrived."""
        return bool(self._arrived[block])

    def add(self, blocks: Blocks, fetched: Fetched, buffer: DecodeBuffer) -> None:
        """Keep the samples of a block. Raises ShardError."""
        at = self._at(fetched.block, fetched.block)
        for band, (x, y) in enumerate(aligned(blocks, fetched, buffer)):
            self._x[band, at] = torch.from_numpy(x.copy())  # what is read lies in memory that is not to be written to
            if not band:
                self._y[at] = torch.from_numpy(y.copy())
        self._arrived[fetched.block] = True

    def take(self, blocks: Blocks, samples: NDArray[np.int64]) -> Batch:
        """Return samples by their numbers in stored order, int64 (n,), all of blocks that have arrived."""
        chosen = torch.from_numpy(samples).to(self._y.device, non_blocking=True)
        return Batch(rows_of(self._x.index_select(1, chosen), blocks), self._y.index_select(0, chosen))

    def copy(self, blocks: Blocks, chosen: range) -> Batch:
        """Return the samples of neighbouring blocks, which have arrived, in stored order."""
        at = self._at(chosen[0], chosen[-1])
        return Batch(rows_of(self._x[:, at].clone(), blocks), self._y[at].clone())

    def placed(self, batch: Batch) -> Batch:
        """Return a batch that was read otherwise, on the device."""
        return replace(batch, x=batch.x.to(self._y.device), y=batch.y.to(self._y.device))


_PARTS: WeakValueDictionary[tuple[str, str], MemoryPart | DevicePart] = WeakValueDictionary()
_PARTS_LOCK = threading.Lock()


def resident_part(blocks: Blocks, bands: Bands, part: str, where: str) -> ResidentPart:
    """Return a part at a place, the same one for all loaders of this process: train and the holdout are one part.

    Args:
        blocks: The blocks of the part.
        bands: What they are of.
        part: train or val.
        where: 'memory', or a device.

    Raises:
        OSError, RuntimeError, AssertionError: There is no such device, or not the memory.
    """
    name = content_name(bands, part)
    with _PARTS_LOCK:
        found = _PARTS.get((name, where))
        if found is None:
            found = MemoryPart(blocks, name) if where == "memory" else DevicePart(blocks, torch.device(where))
            _PARTS[name, where] = found
    return found


def in_shared_memory(bands: Bands, part: str) -> bool:
    """Return whether a process of this user has a part of some bands in memory."""
    return is_there(content_name(bands, part))


def _fence() -> None:
    """Make earlier writes visible to other processes before later ones, and order reads in the same way.

    Releasing a lock and taking it again does so on every processor. x86 needs nothing, ARM does.
    """
    for _ in range(2):
        with _LOCK:
            pass


def part_shape(blocks: Blocks) -> tuple[int, ...]:
    """Return the shape of the samples of a part: (bands, samples, 3, P, P)."""
    bands = blocks.shape[0] if len(blocks.shape) == 4 else 1
    return bands, int(blocks.samples.sum()), *blocks.shape[-3:]


def content_name(bands: Bands, part: str) -> str:
    """Return a name of what a part of some bands holds: a digest of its indices, which have checksums of all blocks."""
    digests = "".join(band.parts[part].index for band in bands.each)
    return hashlib.sha256(f"{LAYOUT} {part} {digests}".encode()).hexdigest()


@dataclass(frozen=True)
class ResidentTrainStream:
    """The batches of a `TrainStream`, from a resident part that it fills as it goes.

    Where a block is lost and may be skipped, the stream itself goes on: it knows what takes the place of which samples.

    Attributes:
        stream: What would read the shards in every epoch.
        part: Where their samples are kept.
    """

    stream: TrainStream
    part: ResidentPart

    def share(self, number: int, count: int) -> Generator[Batch, None, None]:
        """Yield this reader's part of the span of every batch.

        Raises:
            ShardError: A block cannot be read, and none is to be skipped.
            StoreError: The store cannot be reached.
        """
        stream = self.stream
        epoch, batch = yield from self._resident(number, count)
        if epoch in stream.epochs:
            rest = replace(stream, epochs=range(epoch, stream.epochs.stop), first_batch=batch)
            yield from map(self.part.placed, rest.share(number, count))

    def _resident(self, number: int, count: int) -> Generator[Batch, None, tuple[int, int]]:
        """Yield batches up to a block that is lost. Returns the epoch and the batch that come next."""
        stream, buffer = self.stream, DecodeBuffer()
        span = stream.span.share(number, count)
        if stream.epochs:
            first = stream.epochs.start
            reads = stream.sampler.block_reads(first, stream.span, stream.start(first))
            self.part.expect(read.block for read in reads)
        with stream.blocks.for_reader(count) as blocks:
            for epoch in stream.epochs:
                batch = stream.start(epoch)
                planned: deque[int] = deque()  # the batches that need the blocks under way
                with closing(blocks.stream(self._missing(span, epoch, batch, planned))) as fetched:
                    following = next(fetched, None)
                    for samples in stream.sampler.sample_batches(epoch, span, batch):
                        try:
                            while following is not None and planned[0] == batch:
                                self.part.add(blocks, following, buffer)
                                planned.popleft()
                                following = next(fetched, None)
                        except ShardError:
                            if not stream.skip:
                                raise
                            return epoch, batch
                        yield self.part.take(blocks, samples)
                        batch += 1
        return stream.epochs.stop, 0

    def _missing(self, span: Span, epoch: int, first_batch: int, planned: deque[int]) -> Iterator[int]:
        """Yield the blocks to fetch; the batches that need them are appended to `planned`."""
        for read in self.stream.sampler.block_reads(epoch, span, first_batch):
            if not self.part.has(read.block):
                planned.append(read.batch)
                yield read.block


@dataclass(frozen=True)
class ResidentEvalStream:
    """The batches of an `EvalStream`, from a resident part that it fills as it goes.

    Where a block is lost and may be left out, the stream itself goes on.

    Attributes:
        stream: What would read the shards every time.
        part: Where their samples are kept.
    """

    stream: EvalStream
    part: ResidentPart

    def share(self, number: int, count: int) -> Generator[Batch, None, None]:
        """Yield all of it, for a single reader.

        Raises:
            ShardError: A block cannot be read, and none is to be left out.
            StoreError: The store cannot be reached.
        """
        done = yield from self._resident(count)
        rest = replace(self.stream, batches=self.stream.batches[done:])
        yield from map(self.part.placed, rest.share(number, count))

    def _resident(self, count: int) -> Generator[Batch, None, int]:
        """Yield batches up to a block that is lost. Returns how many."""
        stream, part, buffer = self.stream, self.part, DecodeBuffer()
        missing = [block for chosen in stream.batches for block in chosen if not part.has(block)]
        absent = set(missing)
        part.expect(iter(missing))
        with stream.blocks.for_reader(count) as blocks, closing(blocks.stream(missing)) as fetched:
            for done, chosen in enumerate(stream.batches):
                try:
                    for block in chosen:
                        if block in absent:
                            part.add(blocks, next(fetched), buffer)
                except ShardError:
                    if not stream.skip:
                        raise
                    return done
                yield part.copy(blocks, chosen)
        return len(stream.batches)


def resident_stream(stream: TrainStream | EvalStream, part: ResidentPart) -> ResidentTrainStream | ResidentEvalStream:
    """Return the batches of a stream from a resident part."""
    return ResidentTrainStream(stream, part) if isinstance(stream, TrainStream) else ResidentEvalStream(stream, part)
