"""The order of an epoch: pure functions of (seed, epoch, counts from the manifest)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

WINDOW = 64  # blocks mixed together; shards are drawn at random already, so this only has to be large


def epoch_windows(
    block_samples: NDArray[np.int64], seed: int, epoch: int, window: int = WINDOW
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Blocks of an epoch in windows, each with the order of its samples.

    block_samples: samples of every block of the split, (b,).
    Yields (blocks, order): the indices of the blocks of a window, and a permutation of the positions of
    their samples laid end to end. Every sample comes once. The same arguments give the same order
    anywhere: only raw PCG64 output is used, which NumPy promises never to change.
    """
    bits = np.random.PCG64(np.random.SeedSequence([seed, epoch]))
    shuffled = np.argsort(bits.random_raw(len(block_samples)), kind="stable")
    for start in range(0, len(shuffled), window):
        blocks = shuffled[start : start + window]
        count = int(block_samples[blocks].sum())
        yield blocks, np.argsort(bits.random_raw(count), kind="stable")


def train_batches(samples: int, batch_size: int) -> tuple[int, int]:
    """Batches of a training epoch and their size; the remainder is dropped.

    Another permutation comes every epoch, so that nothing is left out for good. A split smaller than one
    batch is one batch.
    """
    size = min(batch_size, samples)
    return (samples // size if size else 0), size
