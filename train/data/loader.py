"""The loader of a band, or of bands of a split side by side, as PyTorch's loaders are used."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from ...shards_manifest.dataset import Band, Bands, Split, open_bands, open_part
from ...shards_manifest.shard.bands_reader import Blocks
from ..errors import TrainError
from .block_cache import BlockCache
from .resident import ResidentPart, resident_part, resident_stream
from .sampler import LAST_BATCH, EpochSampler, Span, evaluation_batches, rank_blocks, trained_blocks
from .stream import Batch, EvalStream, Stream, TrainStream
from .worker_pool import read_ahead

PARTS = ("train", "holdout", "val")
FOREVER = 2**62  # epochs of a loader that is not told how many there are


class ResidenceError(TrainError):
    """A part cannot stay where it should."""


@dataclass(frozen=True)
class LoaderOptions:
    """How a loader reads, where that is not as usual.

    Attributes:
        last_batch: What becomes of training samples that do not fill a batch: 'drop' leaves out others in every epoch,
            'wrap' fills a last batch with samples that come twice.
        holdout_samples: Samples at the end of train that are kept from training, about, and that 'holdout' gives; a
            twentieth of all at most.
        epochs: The number of epochs that will be asked for: nothing is read ahead after the last one.
        cache: Keeps the blocks of a band in a bucket on a local disk.
        skip_bad_shards: Go on without shards that are missing or damaged, and count what is lost.
        pin_memory: Put batches into page-locked memory; None does so where there is a GPU.
        resident: Where the part stays, decompressed, from its first epoch on: 'off' for nowhere; 'memory', which all
            processes of this user on a Linux machine share; or a device, as 'cuda:0', where batches then are.
    """

    last_batch: str = "drop"
    holdout_samples: int = 0
    epochs: int | None = None
    cache: BlockCache | None = None
    skip_bad_shards: bool = False
    pin_memory: bool | None = None
    resident: str = "off"


class BandLoader:
    """Batches (x, y) of one part of a band, or of several bands of a split side by side.

    Training batches come in an order of their own in every epoch, the same for any number of ranks and workers. The
    batches of 'holdout' and 'val' have every sample once, in stored order, in whole blocks: `batch_size` samples or a
    few more. Reading goes on ahead of use, into the next epoch too.

    Iterating gives the current epoch, and moves on to the next one at its end. `set_epoch` chooses another. A loader
    that got the `state_dict` of another one continues in the middle of the epoch, with any number of ranks and workers.

    Args:
        data: A band or a split, by its folder or its URL; or what `open_band`, `open_split` or `open_bands` returned.
        part: 'train', 'holdout' or 'val'.
        batch_size: Samples of a batch, over all ranks; fewer where a training part has fewer.
        seed: Seed of the training order.
        rank: The number of this process, from 0. It gets its share of every training batch, or its share of the blocks.
        world_size: Processes that load together.
        workers: Threads that read ahead; 0 reads when a batch is asked for.
        options: See LoaderOptions.

    Attributes:
        bands: The manifests of the bands, in the order of x.
        batch_size: Samples of a batch, over all ranks.
        samples: Samples of the part.
        lost: Samples of this rank that could not be read so far.

    Raises:
        FormatError: There is no such data set, or no such part.
        ShardError: An index or a shard is missing or damaged.
        StoreError: The disk or the store refuses.
        TrainError: An option is wrong.
    """

    def __init__(
        self,
        data: str | os.PathLike[str] | Band | Split | Bands,
        part: str = "train",
        batch_size: int = 256,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 1,
        options: LoaderOptions | None = None,
    ) -> None:
        self._options = options or LoaderOptions()
        self._workers = workers
        _check(part, batch_size, rank, world_size, self._options)
        opened = data if isinstance(data, Bands) else open_bands(data)
        self.bands = opened.each
        self._blocks = open_part(opened, "train" if part == "holdout" else part, self._options.cache)
        blocks = self._blocks.samples
        trained = trained_blocks(blocks, self._options.holdout_samples) if part != "val" else len(blocks)
        chosen = range(trained, len(blocks)) if part == "holdout" else range(trained)
        self.samples = int(blocks[chosen.start : chosen.stop].sum())
        self._order: _TrainOrder | _EvalOrder
        if part == "train":
            sampler = EpochSampler.of(
                blocks[:trained], batch_size, self._blocks.block_bytes, seed, self._options.last_batch
            )
            self.batch_size = sampler.batch_size
            self._order = _TrainOrder(sampler, rank, world_size)
        else:
            self.batch_size = batch_size
            self._order = _EvalOrder(blocks, chosen, batch_size, (rank, world_size))
        self._resident = _resident(self._blocks, opened, "train" if part == "holdout" else part, self._options.resident)
        self._progress = _Progress()
        self._running: Generator[Batch, None, None] | None = None
        self._said: set[str] = set()
        self.lost = 0

    @property
    def epoch_sampler(self) -> EpochSampler:
        """Which samples come in which batch. For 'train' only."""
        assert isinstance(self._order, _TrainOrder)
        return self._order.sampler

    @property
    def positions(self) -> Span:
        """The positions of every batch that this rank gets. For 'train' only."""
        assert isinstance(self._order, _TrainOrder)
        return self._order.span

    @property
    def rank_starts(self) -> list[int]:
        """The first sample of each rank, counted over the part. For 'holdout' and 'val' only."""
        assert isinstance(self._order, _EvalOrder)
        return self._order.rank_starts

    @property
    def name(self) -> str:
        """The part and where it lies, for messages."""
        return self._blocks.name

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return self._order.batches

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield x and y of what is left of the epoch.

        Returns:
            x, int8 or float16 (n, 3, H, W), the coefficients as they are stored, or (n, bands, 3, H, W) of a split; and
            y, int64 (n,), the classes.

        Raises:
            ShardError: A shard is missing or damaged.
            StoreError: The store cannot be reached.
        """
        first, self._progress.first = self._progress.first, 0
        return self._batches(self._progress.epoch, first)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that is iterated next, counted from 0, from its first batch on."""
        if epoch != self._progress.epoch:
            self._progress.epoch, self._progress.first, self._progress.batch = epoch, 0, 0

    def state_dict(self) -> dict[str, int]:
        """Return where the loader is: after the batch that was given last."""
        return self._order.state_dict(self._progress.epoch, self._progress.batch)

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where another loader was. Raises TrainError for a state of other batches."""
        epoch, batch = self._order.position(state)
        self._progress.epoch = epoch
        self._progress.first = self._progress.batch = batch

    def close(self) -> None:
        """End the reading threads. The loader may be iterated again."""
        if self._running is not None:
            self._running.close()
            self._running = None

    def __enter__(self) -> BandLoader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _batches(self, epoch: int, first: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for number in range(first, len(self)):
            batch = self._next(epoch, number)
            self._progress.batch = number + 1
            self._report(batch)
            yield batch.x, batch.y
        self._progress.epoch, self._progress.batch = epoch + 1, 0

    def _next(self, epoch: int, number: int) -> Batch:
        """Return a batch, by the threads that are ahead if it is the one that they give next."""
        if self._running is None or self._progress.reading != (epoch, number):
            self.close()
            pin = torch.cuda.is_available() if self._options.pin_memory is None else self._options.pin_memory
            pin = pin and self._options.resident in ("off", "memory")  # else they are on the device already
            stream, workers = self._stream(epoch, number)
            self._running = read_ahead(stream, workers, pin)
        try:
            batch = next(self._running)
        except BaseException:
            self._running = None
            raise
        last = number + 1 == len(self)
        self._progress.reading = (epoch + 1, 0) if last else (epoch, number + 1)
        if last and epoch + 1 not in self._epochs_from(epoch):
            self.close()
        return batch

    def _stream(self, epoch: int, number: int) -> tuple[Stream, int]:
        """Return what reads from a batch on, and by how many threads."""
        epochs = self._epochs_from(epoch)
        workers = self._workers if self._order.continues else min(self._workers, 1)
        stream = self._order.stream(self._blocks, epochs, number, self._options.skip_bad_shards)
        return resident_stream(stream, self._resident) if self._resident is not None else stream, workers

    def _epochs_from(self, epoch: int) -> range:
        """Return the epochs that are read one after another, from this one on."""
        if not self._order.continues:
            return range(epoch, epoch + 1)
        return range(epoch, FOREVER if self._options.epochs is None else max(self._options.epochs, epoch + 1))

    def _report(self, batch: Batch) -> None:
        """Count what could not be read, and say why, each sentence once."""
        for sentence, samples in batch.lost:
            self.lost += samples
            if sentence not in self._said:
                self._said.add(sentence)
                tqdm.write(f"{sentence}: going on without it")


@dataclass
class _Progress:
    """Where a loader is.

    Attributes:
        epoch: The epoch that is iterated, or is next.
        first: The batch that the next iteration starts with.
        batch: The batches of the epoch that were given.
        reading: The epoch and batch that the running threads give next.
    """

    epoch: int = 0
    first: int = 0
    batch: int = 0
    reading: tuple[int, int] = (-1, -1)


class _TrainOrder:
    """Shuffled batches, of which this rank has the positions of `span`. One epoch follows another."""

    continues = True

    def __init__(self, sampler: EpochSampler, rank: int, world_size: int) -> None:
        self.sampler, self.span = sampler, Span(0, sampler.batch_size).share(rank, world_size)
        self.batches = sampler.batches

    def stream(self, blocks: Blocks, epochs: range, first: int, skip: bool) -> TrainStream:
        return TrainStream(blocks, self.sampler, self.span, epochs, first, skip)

    def state_dict(self, epoch: int, batch: int) -> dict[str, int]:
        return self.sampler.state_dict(epoch, batch)

    def position(self, state: dict[str, int]) -> tuple[int, int]:
        return self.sampler.position(state)


class _EvalOrder:
    """Stored order, of which this rank has some of the blocks. Every epoch is the same, and is read by itself."""

    continues = False

    def __init__(self, samples: NDArray[np.int64], blocks: range, batch_size: int, ranks: tuple[int, int]) -> None:
        each = [rank_blocks(blocks, rank, ranks[1]) for rank in range(ranks[1])]
        self.rank_starts = [int(samples[blocks.start : mine.start].sum()) for mine in each]
        self._batches = evaluation_batches(samples, each[ranks[0]], batch_size)
        self.batches = len(self._batches)

    def stream(self, blocks: Blocks, epochs: range, first: int, skip: bool) -> EvalStream:
        return EvalStream(blocks, self._batches[first:], skip)

    def state_dict(self, epoch: int, batch: int) -> dict[str, int]:
        return {"epoch": epoch, "batch": batch}

    def position(self, state: dict[str, int]) -> tuple[int, int]:
        return state["epoch"], state["batch"]


def _resident(blocks: Blocks, bands: Bands, part: str, where: str) -> ResidentPart | None:
    """Return where a part stays; None for nowhere. Raises ResidenceError."""
    if where == "off" or not blocks.samples.sum():
        return None
    try:
        return resident_part(blocks, bands, part, where)
    except (OSError, RuntimeError, AssertionError) as error:  # no memory, no such device, or a torch without any
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise ResidenceError(f"{blocks.name} cannot stay in {where} ({why}): use --resident off") from None


def _check(part: str, batch_size: int, rank: int, world_size: int, options: LoaderOptions) -> None:
    if part not in PARTS:
        raise TrainError(f"there is no part {part!r}: choose {', '.join(PARTS)}")
    if batch_size < 1:
        raise TrainError(f"batch_size {batch_size}: choose 1 or more")
    if not 0 <= rank < world_size:
        raise TrainError(f"there is no rank {rank} among {world_size}: ranks count from 0")
    if options.last_batch not in LAST_BATCH:
        raise TrainError(f"last_batch {options.last_batch!r}: choose {', '.join(LAST_BATCH)}")
    if part == "holdout" and not options.holdout_samples:
        raise TrainError("the part 'holdout' needs holdout_samples, with which 'train' is loaded too")
