"""The blocks of one part of a band: fetched, checked, decompressed."""

from __future__ import annotations

import errno
import resource
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from copy import copy
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import ShardError
from ..manifest import BandManifest
from ..storage.base import Store
from ..storage.prefetch import ahead
from .codec import DecodeBuffer
from .format import DTYPES, read_block
from .index import PartIndex, block_of, load_index

MOST_OPEN = 256  # shards that stay open

Samples = tuple[NDArray[Any], NDArray[np.int64]]


class Cache(Protocol):
    """Keeps the bytes of blocks nearer than their store."""

    def get(self, index: PartIndex, block: int) -> bytes | None:
        """The bytes of a block, checked; None if it is not there."""
        ...

    def put(self, index: PartIndex, block: int, data: bytes) -> None:
        """Keep the bytes of a block, if there is room."""
        ...


@dataclass(frozen=True)
class Fetched:
    """A block's checked bytes, or why there are none."""

    block: int
    data: bytes | ShardError


class BlockReader:
    """The blocks of one part, by their number in stored order.

    name: of the part, for messages.  samples: int64 (blocks,).  shape, dtype: of a sample.  block_bytes: of the
    samples of a full block.
    Raises ShardError for a missing or damaged index, StoreError.
    """

    def __init__(self, store: Store, manifest: BandManifest, part: str, cache: Cache | None = None) -> None:
        self._store = store
        self.name = f"{part} of {store}"
        self.index: PartIndex = load_index(store, "", part, manifest.parts[part], manifest.block)
        self.samples = self.index.samples
        geometry = manifest.geometry
        self.shape = (3, geometry.plane, geometry.plane)
        self.dtype = DTYPES[geometry.dtype]
        self.block_bytes = int(self.samples.max(initial=1)) * int(np.prod(self.shape)) * self.dtype.itemsize
        self._classes = len(manifest.classes)
        self._remote = store.threads > 1
        self._cache = cache if self._remote else None
        self._open: dict[str, tuple[ExitStack, Callable[[int, int], bytes]]] = {}
        self._most = _most_open()

    @contextmanager
    def for_reader(self, count: int) -> Iterator[BlockReader]:
        """The same blocks for one of `count` readers, which may be threads: with open files of its own, and closed."""
        own = copy(self)
        own._open, own._most = {}, max(_most_open() // count, 1)
        try:
            yield own
        finally:
            while own._open:
                own._open.popitem()[1][0].close()

    def where(self, block: int) -> str:
        """The shard of a block, for messages."""
        return f"{self._store}/{self.index.place(block)[0]}"

    def read(self, block: int) -> Samples:
        """One block. Raises ShardError, StoreError."""
        return self.decoded(self._attempt(block))

    def stream(self, blocks: Iterable[int]) -> Generator[Fetched, None, None]:
        """Every block, in order, as `decoded` takes it; from a server fetched ahead of use. Raises StoreError.

        Who ends before its end closes it: threads wait for that.
        """
        items = ((block, int(self.index.size[block])) for block in blocks)
        return ahead(self._attempt, items, self._store.threads)

    def decoded(self, fetched: Fetched, room: DecodeBuffer | None = None) -> Samples:
        """x (n, 3, H, W), read-only, and labels (n,) of a block. Raises ShardError, naming its shard.

        room: where x may lie until the next block takes it.
        """
        if isinstance(fetched.data, ShardError):
            raise fetched.data
        where, view = self.where(fetched.block), memoryview(fetched.data)
        x, y = read_block(view, block_of(view, where), where, room)
        if x.shape != (self.samples[fetched.block], *self.shape) or x.dtype != self.dtype:
            raise ShardError(f"{where} holds a block of {x.dtype} {x.shape}, not what its manifest says")
        if len(y) and not 0 <= y.min() <= y.max() < self._classes:
            wrong = y[(y < 0) | (y >= self._classes)][0]
            raise ShardError(f"{where} holds the label {wrong}, but there are {self._classes} classes: split again")
        return x, y

    def _attempt(self, block: int) -> Fetched:
        try:
            return Fetched(block, self._fetched(block))
        except ShardError as error:  # it belongs where the block is used
            return Fetched(block, error)

    def _fetched(self, block: int) -> bytes:
        """The checked bytes of a block. Raises ShardError, StoreError."""
        data = None if self._cache is None else self._cache.get(self.index, block)
        if data is not None:
            return data
        try:
            data = self._checked(block)
        except ShardError:
            if not self._remote:
                raise
            data = self._checked(block)  # it may have been altered on the way
        if self._cache is not None:
            self._cache.put(self.index, block, data)
        return data

    def _checked(self, block: int) -> bytes:
        name, start, size = self.index.place(block)
        where = f"{self._store}/{name}"
        try:
            data = self._range(name, start, size)
        except FileNotFoundError:
            raise ShardError(f"{where} is missing: copy the band again") from None
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):  # no fault of the shard's
                raise
            raise ShardError(f"{where} cannot be read ({error.strerror}): copy it again") from None
        self.index.check(block, data, where)
        return data

    def _range(self, name: str, start: int, size: int) -> bytes:
        """Some bytes of a shard. A local one stays open; the one that was opened first is closed for one too many."""
        if self._remote:
            with self._store.ranges(name) as part:
                return part(start, size)
        if name not in self._open:
            stack = ExitStack()
            self._open[name] = stack, stack.enter_context(self._store.ranges(name))
            if len(self._open) > self._most:
                self._open.pop(next(iter(self._open)))[0].close()
        return self._open[name][1](start, size)


def _most_open() -> int:
    """Shards that stay open: MOST_OPEN, or a quarter of the files that this process may have."""
    return min(MOST_OPEN, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)
