"""Batches read ahead by threads, in the order of a stream.

Threads and not processes: what takes time (reading, checking, decompressing, gathering) lets go of Python's lock, and a
thread needs no shared memory, cannot be killed by itself, and cannot keep the program from ending
(docs/decisions/0016).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from contextlib import closing
from queue import SimpleQueue

import torch

from .stream import Batch, Stream

AHEAD = 2  # batches that each thread makes before they are asked for
LAST = 1.0  # seconds that the threads get to end: one that waits for a silent server is left behind


def read_ahead(stream: Stream, workers: int, pin_memory: bool) -> Generator[Batch, None, None]:
    """Yield the batches of a stream. Close the generator to end its threads early.

    Args:
        stream: What makes the batches.
        workers: Threads, each of which makes its share of every batch; 0 makes batches in the caller's thread, when
            they are asked for.
        pin_memory: Put batches into page-locked memory.

    Raises:
        Exception: What making a batch raised, where that batch is asked for.
    """
    if not workers:
        with closing(stream.share(0, 1)) as batches:
            yield from (batch.pin_memory() if pin_memory else batch for batch in batches)
        return
    readers = [_Reader(stream.share(number, workers)) for number in range(workers)]
    try:
        for reader in readers:
            reader.start()
        while True:
            shares = [share for reader in readers if (share := reader.take()) is not None]
            if not shares:
                return
            batch = shares[0] if len(shares) == 1 else _joined(shares)
            yield batch.pin_memory() if pin_memory else batch
    finally:
        for reader in readers:
            reader.end()
        deadline = time.monotonic() + LAST
        for reader in readers:
            if reader.ident is not None:  # else it was not started
                reader.join(max(deadline - time.monotonic(), 0))


class _Reader(threading.Thread):
    """Makes the batches of an iterator, a few ahead of use."""

    def __init__(self, batches: Generator[Batch, None, None]) -> None:
        super().__init__(daemon=True, name="spectral-reader")
        self._batches = batches
        self._free = threading.Semaphore(AHEAD)
        self._made: SimpleQueue[Batch | BaseException | None] = SimpleQueue()
        self._ended = False

    def run(self) -> None:
        """Make batches while there is room for them; the last is followed by None, or by the error that ended it."""
        try:
            with closing(self._batches) as batches:
                while self._free.acquire() and not self._ended and (batch := next(batches, None)) is not None:
                    self._made.put(batch)
            self._made.put(None)
        except BaseException as error:  # the thread that waits has to hear of it, whatever it is
            self._made.put(error)

    def take(self) -> Batch | None:
        """Return the next batch; None after the last. Raises what making it raised."""
        made = self._made.get()
        self._free.release()
        if isinstance(made, BaseException):
            raise made
        return made

    def end(self) -> None:
        """Make no more."""
        self._ended = True
        self._free.release()


def _joined(shares: list[Batch]) -> Batch:
    lost = tuple(entry for share in shares for entry in share.lost)
    return Batch(torch.cat([share.x for share in shares]), torch.cat([share.y for share in shares]), lost)
