"""One band, read from its shards: whole blocks, mixed to single samples, out in batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, IterableDataset

from shards_manifest import (
    DTYPES,
    BandManifest,
    Block,
    ShardError,
    SpectralError,
    Store,
    check_bytes,
    index_shard,
    read_block,
)

from .order import epoch_windows, train_batches

Batch = tuple[torch.Tensor, torch.Tensor]


class PartReader:
    """The blocks of one part of a band, by their number.

    A shard is mapped, and its size and SHA-256 are compared with the manifest, when its first block is
    read. Raises ShardError, naming the shard.
    """

    def __init__(self, store: Store, manifest: BandManifest, part: str) -> None:
        self._store = store
        self._shards = manifest.parts[part].shards
        geometry = manifest.geometry
        self.shape = (3, geometry.plane, geometry.plane)
        self.dtype = DTYPES[geometry.dtype]
        self._opened: dict[int, tuple[memoryview, list[Block]]] = {}
        self.forks = store.forks
        places = [(number, index) for number, shard in enumerate(self._shards) for index in range(shard.blocks)]
        self._places = places
        full = manifest.block  # every block is full but the last of a shard
        left = [self._shards[number].samples - index * full for number, index in places]
        self.block_samples = np.minimum(np.array(left, np.int64), full)

    def read(self, block: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """One block: x (n, 3, H, W) and labels (n,)."""
        number, index = self._places[block]
        where = f"{self._store}/{self._shards[number].name}"
        view, blocks = self._opened.get(number) or self._open(number, where)
        x, y = read_block(view, blocks[index], where)
        if x.shape[1:] != self.shape or x.dtype != self.dtype or len(x) != self.block_samples[block]:
            raise ShardError(f"{where} holds a block of {x.dtype} {x.shape}, not what its manifest says")
        return x, y

    def _open(self, number: int, where: str) -> tuple[memoryview, list[Block]]:
        try:
            view = self._store.view(self._shards[number].name)
        except FileNotFoundError:
            raise ShardError(f"{where} is missing: copy the band again") from None
        check_bytes(view, self._shards[number], where)
        self._opened[number] = view, index_shard(view, where)
        return self._opened[number]


class TrainStream(IterableDataset[Batch]):
    """Shuffled batches of all epochs from `first_epoch` on, one after another.

    Batches are int8 (or float16) tensors (N, 3, H, W) with int64 labels (N,), all of one size. The order
    depends on the seed and the epoch alone.
    """

    def __init__(self, reader: PartReader, batch_size: int, seed: int, first_epoch: int, epochs: int) -> None:
        self._reader, self.forks = reader, reader.forks
        self._seed, self._epochs = seed, range(first_epoch, epochs)
        self.batches, self.batch_size = train_batches(int(reader.block_samples.sum()), batch_size)

    def __iter__(self) -> Iterator[Batch]:
        for epoch in self._epochs:
            yield from self._epoch(epoch)

    def _epoch(self, epoch: int) -> Iterator[Batch]:
        x = np.empty((self.batch_size, *self._reader.shape), self._reader.dtype)
        y = np.empty(self.batch_size, np.int64)
        filled = 0
        for blocks, order in epoch_windows(self._reader.block_samples, self._seed, epoch):
            pool = [self._reader.read(int(block)) for block in blocks]
            pool_x = np.concatenate([block_x for block_x, _ in pool])
            pool_y = np.concatenate([block_y for _, block_y in pool])
            taken = 0
            while taken < len(order):
                chosen = order[taken : taken + self.batch_size - filled]
                np.take(pool_x, chosen, axis=0, out=x[filled : filled + len(chosen)])
                np.take(pool_y, chosen, axis=0, out=y[filled : filled + len(chosen)])
                filled += len(chosen)
                taken += len(chosen)
                if filled == self.batch_size:
                    yield torch.from_numpy(x), torch.from_numpy(y)
                    x, y, filled = np.empty_like(x), np.empty_like(y), 0


class EvalStream(IterableDataset[Batch]):
    """Every sample of a part once, in stored order, block by block gathered to about `batch_size`."""

    def __init__(self, reader: PartReader, batch_size: int) -> None:
        self._reader, self.forks = reader, reader.forks
        self._batch_size = batch_size

    def __iter__(self) -> Iterator[Batch]:
        held: list[tuple[NDArray[Any], NDArray[np.int64]]] = []
        for block in range(len(self._reader.block_samples)):
            held.append(self._reader.read(block))
            if sum(len(y) for _, y in held) >= self._batch_size:
                yield _join(held)
                held = []
        if held:
            yield _join(held)


def _join(held: list[tuple[NDArray[Any], NDArray[np.int64]]]) -> Batch:
    x = np.concatenate([block_x for block_x, _ in held])
    return torch.from_numpy(x), torch.from_numpy(np.concatenate([block_y for _, block_y in held]))


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
    """Run a stream in at most one background process: it keeps far ahead of any network.

    pin: put batches into page-locked memory, from which copies to a GPU overlap with computing.
    Raises what the stream raises.
    """
    context = None if stream.forks or not workers else "spawn"
    for batch in DataLoader(
        _Guarded(stream), batch_size=None, num_workers=min(workers, 1), pin_memory=pin, multiprocessing_context=context
    ):
        if isinstance(batch, SpectralError):
            raise batch
        yield batch
