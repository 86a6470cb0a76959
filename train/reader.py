"""One part of a band as batches: the planned rows of the blocks that are planned, in this process or in others."""

from __future__ import annotations

import multiprocessing
import os
import select
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from tqdm import tqdm

from shards_manifest import Room, ShardError, SpectralError, WorkerLostError

from .blocks import Fetched, PartBlocks
from .order import Epochs, Load, Span

PATIENCE = 20.0  # seconds that a forked process gets to start
FORKS = 3  # tries
START = "fork" if sys.platform == "linux" else "spawn"  # elsewhere libraries do not bear a fork, or there is none


@dataclass(frozen=True)
class Batch:
    """int8 (or float16) x (n, 3, H, W), int64 y (n,); lost: a sentence and a count for what could not be read."""

    x: torch.Tensor
    y: torch.Tensor
    lost: tuple[tuple[str, int], ...] = ()

    def pin_memory(self) -> Batch:
        """The same in page-locked memory, from which copies to a GPU overlap with computing."""
        return replace(self, x=self.x.pin_memory(), y=self.y.pin_memory())


class TrainStream(IterableDataset[Batch]):
    """The part of every batch that lies in `span`, from batch `first_batch` of `first_epoch` to the last epoch's end.

    In a loader's worker process, the worker's share of that span. skip: a block that cannot be read is replaced by
    the next one that can, so that batches stay whole, and reported; otherwise its ShardError is raised.
    """

    def __init__(
        self,
        blocks: PartBlocks,
        plan: Epochs,
        span: Span,
        epochs: range,
        first_batch: int = 0,
        skip: bool = False,
    ) -> None:
        self._blocks, self._plan, self._span, self._skip = blocks, plan, span, skip
        self._epochs, self._first_batch = epochs, first_batch
        self.forks = blocks.forks

    def __len__(self) -> int:
        """Batches in all, for any span."""
        return max(len(self._epochs) * self._plan.batches - self._first_batch, 0)

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        span = self._span.share(worker.id, worker.num_workers) if worker else self._span
        planned: deque[tuple[int, Load]] = deque()
        with closing(self._blocks.stream(self._wanted(span, planned))) as fetched:  # ahead, into the next epoch too
            following = next(fetched, None)
            for epoch in self._epochs:
                dealer = _Dealer(self._blocks, self._plan, span, epoch, self._skip)
                for batch in range(self._start(epoch), self._plan.batches):
                    while following is not None and (planned[0][0], planned[0][1].batch) == (epoch, batch):
                        dealer.deal(planned.popleft()[1], following)
                        following = next(fetched, None)
                    yield dealer.take(batch)

    def _wanted(self, span: Span, planned: deque[tuple[int, Load]]) -> Iterator[int]:
        """The blocks to fetch; what they are for is appended to `planned`."""
        for epoch in self._epochs:
            for load in self._plan.loads(epoch, span, self._start(epoch)):
                planned.append((epoch, load))
                yield load.block

    def _start(self, epoch: int) -> int:
        return self._first_batch if epoch == self._epochs.start else 0


class _Dealer:
    """Deals the rows of blocks out to the batches of an epoch that they belong to.

    All at once, when a block is decompressed and still in the cache: that is a fifth faster than keeping the block
    and taking a few rows for each batch, and takes the same memory.
    """

    def __init__(self, blocks: PartBlocks, plan: Epochs, span: Span, epoch: int, skip: bool) -> None:
        self._blocks, self._plan, self._span, self._epoch, self._skip = blocks, plan, span, epoch, skip
        self._edges = plan.edges.tolist()
        self._open: dict[int, tuple[NDArray[Any], NDArray[np.int64]]] = {}
        self._lost: list[tuple[str, int]] = []
        self._room = Room()  # all blocks are decompressed to one place, which stays in the processor's cache

    def deal(self, load: Load, fetched: Fetched) -> None:
        """Deal the rows of a block that was fetched as planned. Raises ShardError."""
        wanted = load.last - load.first
        block, x, y, lost = self._decoded(fetched)
        rows = self._plan.rows(self._epoch, block)[load.first : load.last]
        if len(rows) < wanted:  # of a smaller block in its place
            rows = np.resize(self._plan.rows(self._epoch, block), wanted)
        y = y[rows]
        start, end = self._edges[load.lane], self._edges[load.lane + 1]
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


class EvalStream(IterableDataset[Batch]):
    """The samples of some blocks, each once, in stored order, gathered to batches of about `batch_size`.

    In one worker process at most. skip: a block that cannot be read is left out and reported.
    """

    def __init__(self, blocks: PartBlocks, chosen: range, batch_size: int, skip: bool = False) -> None:
        self._blocks, self._chosen, self._batch_size, self._skip = blocks, chosen, batch_size, skip
        self.forks = blocks.forks

    def __iter__(self) -> Iterator[Batch]:
        held: list[tuple[NDArray[Any], NDArray[np.int64]]] = []
        lost: list[tuple[str, int]] = []
        with closing(self._blocks.stream(self._chosen)) as blocks:
            for fetched in blocks:
                try:
                    held.append(self._blocks.decoded(fetched))
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


class _Guarded(IterableDataset[Batch | SpectralError]):
    """A stream that ends with its error instead of raising it: torch would bury it in a traceback."""

    def __init__(self, stream: IterableDataset[Batch]) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[Batch | SpectralError]:
        try:
            yield from self._stream
        except SpectralError as error:
            yield error


def loader(stream: TrainStream | EvalStream, workers: int, pin: bool) -> Iterator[Batch]:
    """Run a stream in this process, or in `workers` others, each of which reads its share of every batch.

    pin: put batches into page-locked memory. Raises what the stream raises, and WorkerLostError.
    """
    if not workers:
        yield from (batch.pin_memory() if pin else batch for batch in stream)
        return
    shares: list[Batch] = []
    processes: list[BaseProcess] = []
    try:
        for share in _started(stream, workers, processes):
            if isinstance(share, SpectralError):
                raise share
            shares.append(share)
            if len(shares) >= workers:  # they come in turn
                batch = shares[0] if len(shares) == 1 else _together(shares)
                shares = []
                yield batch.pin_memory() if pin else batch
    except (RuntimeError, EOFError, ConnectionError, FileNotFoundError) as error:
        if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
            raise  # the others are of a batch that was about to be handed over
        raise WorkerLostError(
            "a process that reads was killed, perhaps for lack of memory or of room in /dev/shm: run the same command "
            "again to go on, with fewer --workers"
        ) from None
    finally:
        _end(processes)


def _started(
    stream: TrainStream | EvalStream, workers: int, processes: list[BaseProcess]
) -> Iterator[Batch | SpectralError]:
    """What `workers` processes make of a stream; `processes` has them from their start. Raises WorkerLostError.

    A fork of a process with threads may hang before it does anything (seen with Python 3.11: the interpreter's lock on
    its list of threads was held by another thread, as torch has some, just then). It is made again.
    """
    forks = stream.forks and START == "fork"
    for _ in range(FORKS):
        here, there = os.pipe()
        try:
            others = set(multiprocessing.active_children())
            loaded = DataLoader(
                _Guarded(stream),
                batch_size=None,
                num_workers=workers,
                multiprocessing_context="fork" if forks else "spawn",
                worker_init_fn=partial(_quiet_worker, there if forks else -1),
            )
            each = iter(loaded)
            processes[:] = [child for child in multiprocessing.active_children() if child not in others]
            if not forks or _heard(here, workers):
                return each
        finally:
            os.close(here)
            os.close(there)
        _end(processes)
    raise WorkerLostError("processes that read cannot be started on this machine: run again with --workers 0")


def _heard(pipe: int, count: int) -> bool:
    """Whether so many bytes come out of a pipe in time, one of each process that has started."""
    deadline = time.monotonic() + PATIENCE
    while count and select.select([pipe], [], [], max(deadline - time.monotonic(), 0))[0]:
        count -= len(os.read(pipe, count))
    return not count


def _end(processes: Sequence[BaseProcess]) -> None:
    """End processes at once, whatever they wait for."""
    with _unheard_children():
        for process in processes:
            process.kill()
        for process in processes:
            process.join()


@contextmanager
def _unheard_children() -> Iterator[None]:
    """Without torch's handler, which makes an error of every process that is killed, wherever this one then is."""
    if threading.current_thread() is not threading.main_thread():  # no handler is called here
        yield
        return
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)


def _quiet_worker(started: int, _: int) -> None:
    """Says that it has started, to a pipe if there is one.

    A terminal sends Ctrl-C to all processes: what it means is for the one that trains to say, which ends this.

    It may break off while it takes a batch: Python's thread that hands batches out prints that, and goes on.
    """
    if started >= 0:
        os.write(started, b"1")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a batch system sends that to all
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    print_it = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not issubclass(kind, (EOFError, ConnectionError)):
            print_it(kind, error, trace)

    sys.excepthook = hook


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _together(shares: list[Batch]) -> Batch:
    lost = tuple(entry for share in shares for entry in share.lost)
    return Batch(torch.cat([share.x for share in shares]), torch.cat([share.y for share in shares]), lost)


def reported(batch: Batch, said: set[str]) -> int:
    """Say what could not be read for a batch, each sentence once; the count of samples. said: sentences so far."""
    for sentence, _ in batch.lost:
        if sentence not in said:
            said.add(sentence)
            tqdm.write(f"{sentence}: going on without it")
    return sum(samples for _, samples in batch.lost)
