"""The one reader of blocks: fetches, checks and decompresses those of one part of a band."""

from __future__ import annotations

import errno
import resource
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from copy import copy
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..errors import ShardError
from ..manifest import BandManifest
from ..storage.base import Store
from ..storage.prefetch import ahead
from .codec import DecodeBuffer
from .format import BlockFormat, Samples
from .index import PartIndex, block_of, load_index

MOST_OPEN = 256  # shards that stay open


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
    """A block as it was fetched.

    Attributes:
        block: Its number in stored order.
        data: Its checked bytes, or why there are none; one entry for each band.
    """

    block: int
    data: tuple[bytes | ShardError, ...]


class BlockReader:
    """Reads the blocks of one part of a band, by their number in stored order.

    Attributes:
        name: Of the part, for messages.
        index: Where each block is.
        samples: How many each block holds: int64 (blocks,).
        block_bytes: Of the samples of a full block.
    """

    def __init__(
        self,
        store: Store,
        manifest: BandManifest,
        part: str,
        cache: Cache | None = None,
        folder: str = "",
        shared_by: int = 1,
    ) -> None:
        """Read the index of a part.

        Args:
            store: Of the band, or of the whole split.
            manifest: Of the band.
            part: train or val.
            cache: Where to keep blocks of a server; None for nowhere.
            folder: Of the band within the store, where that is a whole split.
            shared_by: Readers that are in use at once, as those of a split's bands: they share the open files.

        Raises:
            ShardError: The index is missing or damaged.
            StoreError: The disk or the server refuses.
        """
        self._store = store
        self._root = f"{folder}/" if folder else ""
        self.name = f"{part} of {store}"
        self.index: PartIndex = load_index(store, folder, part, manifest.parts[part], manifest.block)
        self.samples = self.index.samples
        self._format = BlockFormat.of(manifest)
        sample_bytes = int(np.prod(self.shape)) * self.dtype.itemsize
        self.block_bytes = int(self.samples.max(initial=1)) * sample_bytes
        self._remote = store.threads > 1
        self._cache = cache if self._remote else None
        self._open: dict[str, tuple[ExitStack, Callable[[int, int], bytes]]] = {}
        self._most = max(_most_open() // shared_by, 1)

    @property
    def threads(self) -> int:
        """Threads that fetch from the store; one for a disk."""
        return self._store.threads

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of a sample, (3, P, P)."""
        return self._format.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of a sample."""
        return self._format.dtype

    @contextmanager
    def for_reader(self, count: int) -> Iterator[BlockReader]:
        """Read the same blocks for one of `count` readers, which may be threads, and close its files at the end.

        Each has open files of its own, and no more than its share.
        """
        own = copy(self)
        own._open, own._most = {}, max(self._most // count, 1)
        try:
            yield own
        finally:
            while own._open:
                own._open.popitem()[1][0].close()

    def where(self, block: int) -> str:
        """Return the shard of a block, for messages."""
        return f"{self._store}/{self._root}{self.index.place(block)[0]}"

    def read(self, block: int) -> Samples:
        """Return one block: x (n, 3, P, P), read-only, and labels (n,). Raises ShardError, StoreError."""
        return self.decoded(self.fetch(block))

    def fetch(self, block: int) -> Fetched:
        """Return one block as `decoded` takes it. Raises StoreError."""
        return Fetched(block, (self.attempt(block),))

    def stream(self, blocks: Iterable[int]) -> Generator[Fetched, None, None]:
        """Yield every block, in order, as `decoded` takes it; from a server they are fetched ahead of use.

        Close it where you stop before its end: its threads wait for that. Raises StoreError.
        """
        items = ((block, int(self.index.size[block])) for block in blocks)
        return ahead(self.fetch, items, self.threads)

    def each_band(self, fetched: Fetched, buffer: DecodeBuffer | None = None) -> Iterator[Samples]:
        """Yield what `decoded` returns, for the one band that this reads."""
        yield self.decoded(fetched, buffer)

    def decoded(self, fetched: Fetched, buffer: DecodeBuffer | None = None) -> Samples:
        """Decompress and check a block.

        Args:
            fetched: From `stream`.
            buffer: Where x may lie until the next block takes its place; None for memory of its own.

        Returns:
            x (n, 3, P, P), read-only, and labels int64 (n,).

        Raises:
            ShardError: It is missing or damaged; the sentence names its shard.
        """
        (data,) = fetched.data
        if isinstance(data, ShardError):
            raise data
        where, view = self.where(fetched.block), memoryview(data)
        return self._format.read(view, block_of(view, where), int(self.samples[fetched.block]), where, buffer)

    def attempt(self, block: int) -> bytes | ShardError:
        """Return the checked bytes of a block, or why there are none: that belongs where the block is used."""
        try:
            return self._fetched(block)
        except ShardError as error:
            return error

    def _fetched(self, block: int) -> bytes:
        """Return the checked bytes of a block. Raises ShardError, StoreError."""
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
        path = f"{self._root}{name}"
        where = f"{self._store}/{path}"
        try:
            data = self._range(path, start, size)
        except FileNotFoundError:
            raise ShardError(f"{where} is missing: copy the band again") from None
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):  # no fault of the shard's
                raise
            raise ShardError(f"{where} cannot be read ({error.strerror}): copy it again") from None
        self.index.check(block, data, where)
        return data

    def _range(self, name: str, start: int, size: int) -> bytes:
        """Return some bytes of a shard. Local shards stay open, up to a limit; then the first opened is closed."""
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
    """Return how many shards may stay open: MOST_OPEN, or a quarter of the files that this process may open."""
    return min(MOST_OPEN, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)
