"""Reads the same blocks of several bands side by side."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import numpy as np

from ..errors import FormatError, ShardError
from ..storage.prefetch import ahead
from .codec import DecodeBuffer
from .format import Samples
from .index import PartIndex
from .reader import BlockReader, Fetched


class BandsReader:
    """Reads the same blocks of several bands of a split, as `BlockReader` reads those of one.

    Args:
        readers: One for each band, of the same part.

    Attributes:
        name: Of the part, for messages.
        index: Where each block of the first band is.
        samples: How many each block holds: int64 (blocks,).
        block_bytes: Of the samples of a full block in one band.

    Raises:
        FormatError: The bands have other blocks than each other.
    """

    def __init__(self, readers: Sequence[BlockReader]) -> None:
        self._readers = tuple(readers)
        first = readers[0]
        for reader in readers[1:]:
            if not np.array_equal(reader.samples, first.samples) or reader.shape != first.shape:
                raise FormatError(f"{reader.name} has other blocks than {first.name}: copy the split again")
        self.name, self.samples, self.block_bytes = first.name, first.samples, first.block_bytes
        self.index: PartIndex = first.index

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of a sample, (bands, 3, P, P)."""
        return (len(self._readers), *self._readers[0].shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of a sample."""
        return self._readers[0].dtype

    @contextmanager
    def for_reader(self, count: int) -> Iterator[BandsReader]:
        """Read the same blocks for one of `count` readers (`BlockReader.for_reader`)."""
        with ExitStack() as stack:
            yield BandsReader([stack.enter_context(reader.for_reader(count)) for reader in self._readers])

    def fetch(self, block: int) -> Fetched:
        """Return one block of every band. Raises StoreError."""
        return Fetched(block, tuple(reader.attempt(block) for reader in self._readers))

    def stream(self, blocks: Iterable[int]) -> Generator[Fetched, None, None]:
        """Yield every block, in order, of every band (`BlockReader.stream`): the bands are fetched at once."""
        numbers: list[int] = []  # of blocks that are under way
        with closing(ahead(self._attempt, self._wanted(blocks, numbers), self._readers[0].threads)) as found:
            for data in zip(*[found] * len(self._readers), strict=True):
                yield Fetched(numbers.pop(0), data)

    def each_band(self, fetched: Fetched, buffer: DecodeBuffer | None = None) -> Iterator[Samples]:
        """Decompress and check a block, a band at a time.

        Args:
            fetched: From `stream` or `fetch`.
            buffer: Where x may lie until the next band takes its place; None for memory of its own.

        Yields:
            x (n, 3, P, P), read-only, and labels int64 (n,), of every band in turn.

        Raises:
            ShardError: A band's block is missing or damaged; the sentence names its shard.
        """
        for reader, data in zip(self._readers, fetched.data, strict=True):
            yield reader.decoded(Fetched(fetched.block, (data,)), buffer)

    def _wanted(self, blocks: Iterable[int], numbers: list[int]) -> Iterator[tuple[tuple[BlockReader, int], int]]:
        for block in blocks:
            numbers.append(block)
            yield from (((reader, block), int(reader.index.size[block])) for reader in self._readers)

    @staticmethod
    def _attempt(item: tuple[BlockReader, int]) -> bytes | ShardError:
        reader, block = item
        return reader.attempt(block)


Blocks = BlockReader | BandsReader  # of one band, or of several side by side
