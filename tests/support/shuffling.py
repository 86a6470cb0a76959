"""How well the samples of an epoch are shuffled: orders of an epoch, and figures of them."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from webdataset.filters import _shuffle

from spectral_shards.train.data.sampler import EpochSampler, Span

Order = NDArray[np.int64]


def ours(plan: EpochSampler, epoch: int) -> Order:
    """Numbers of the samples, as stored, in the order in which the reader delivers them."""
    starts = np.cumsum(plan.samples) - plan.samples
    order = np.full((plan.batches, plan.batch_size), -1, np.int64)
    for read in plan.block_reads(epoch, Span(0, plan.batch_size)):
        rows = plan.rows(epoch, read.block)[read.first : read.last]
        for batch, position, first, count in plan.placements(read):
            order[batch, position : position + count] = starts[read.block] + rows[first : first + count]
    return order.ravel()


def permuted(samples: int, epoch: int) -> Order:
    """A full permutation."""
    return np.random.default_rng(epoch).permutation(samples)


def shards_and_buffer(samples: int, shard: int, buffer: int, epoch: int) -> Order:
    """Shards in random order, then webdataset's own shuffle of a buffer, as its pipelines are usually written."""
    shards = np.array_split(np.arange(samples), max(samples // shard, 1))
    stream: Iterator[int] = (
        sample for number in np.random.default_rng(epoch).permutation(len(shards)) for sample in shards[number].tolist()
    )
    return np.fromiter(_shuffle(stream, buffer, buffer, random.Random(epoch)), np.int64)


def class_mix(order: Order, label: NDArray[np.int64], batch_size: int) -> float:
    """Variance of the classes' counts in batches, over that of random draws without replacement: 1 is perfect."""
    batches = len(order) // batch_size
    classes, samples = int(label.max()) + 1, len(label)
    drawn = label[order[: batches * batch_size]] + np.repeat(np.arange(batches), batch_size) * classes
    counts = np.bincount(drawn, minlength=batches * classes).reshape(batches, classes)
    share = np.bincount(label, minlength=classes) / samples
    # hypergeometric: B p (1 - p) (N - B) / (N - 1)
    expected = batch_size * share * (1 - share) * (samples - batch_size) / (samples - 1)
    return float(((counts - batch_size * share) ** 2).mean(0).sum() / expected.sum())


def met_again(order: Order, following: Order, batch_size: int) -> float:
    """Pairs of one batch that are in one batch in the next epoch too, over what chance gives: 1 is perfect."""
    samples = len(order)
    batch_of = np.full(int(max(order.max(), following.max())) + 1, -1, np.int64)
    batch_of[following] = np.arange(samples) // batch_size
    batches = samples // batch_size
    then = np.sort(batch_of[order[: batches * batch_size]].reshape(batches, batch_size), axis=1)
    both = np.arange(batches)[:, None] * (batches + 2) + then + 1  # a pair of batches, this epoch's and the next one's
    _, counts = np.unique(both[then >= 0], return_counts=True)
    pairs = float((counts * (counts - 1)).sum())
    return pairs / (batches * batch_size * (batch_size - 1) * (batch_size - 1) / (samples - 1))


def spread(orders: list[Order], samples: int) -> float:
    """How evenly a sample's position in the epoch falls into tenths, over epochs: chi-squared a degree; 1 is perfect.

    Of every 97th sample: those of a block or shard move together, which is not what this is about.
    """
    tenth = np.full((len(orders), samples), -1, np.int64)
    for row, order in zip(tenth, orders, strict=True):
        row[order] = np.arange(len(order)) * 10 // len(order)
    some = tenth[:, ::97]
    counts = np.stack([(some == number).sum(0) for number in range(10)])
    return float((((counts - len(orders) / 10) ** 2) / (len(orders) / 10)).sum(0).mean() / 9)
