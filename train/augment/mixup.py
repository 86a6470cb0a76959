"""Mixup and cutmix on the device: samples of a batch are mixed with each other in pairs.

The pairs lie close together in a batch, so that a rank that holds an even part of it needs no sample of another; what
a rank's borders cut is mixed within the rank. All that is random is a pure function of the seed and the step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

TRIES = 16  # of Joehnk's method; more than half of them succeed, alpha at most 1
COLUMNS = 2 * TRIES + 3  # random numbers of a pair: its share, the middle of its box, and which of the two it is


@dataclass(frozen=True)
class Mixed:
    """A batch whose samples may be mixed.

    Attributes:
        x: float32 (n, channels, H, W).
        other: int64 (n,), the labels of the samples that were mixed in.
        share: float32 (n,), the share of each sample's own label, 0 to 1; None if nothing is mixed.
    """

    x: torch.Tensor
    other: torch.Tensor
    share: torch.Tensor | None

    def part(self, at: slice) -> Mixed:
        """Return some samples of it."""
        return Mixed(self.x[at], self.other[at], None if self.share is None else self.share[at])


@dataclass(frozen=True)
class Mixing:
    """Mixes the samples of a batch in pairs. With mixup and cutmix both, a step does the one or the other.

    Attributes:
        seed: Seed of the run.
        mixup, cutmix: Alpha of the Beta distributions, 0 to 1; 0 for none.
        partners: int64 (batch,), of `EpochSampler.partners`; without them, and for other batches, neighbours are mixed.
    """

    seed: int
    mixup: float
    cutmix: float
    partners: NDArray[np.int64] | None = None

    def __bool__(self) -> bool:
        return bool(self.mixup or self.cutmix)

    def __call__(self, x: torch.Tensor, y: torch.Tensor, step: int, first: int, total: int) -> Mixed:
        """Mix some samples of the batch of a step.

        Those whose partners are not among them are mixed with each other, the first half with the second, and an odd
        one stays as it is.

        Args:
            x: float32 (n, channels, H, W).
            y: int64 (n,).
            step: The step, counted from 0.
            first: The position of the first sample in the batch.
            total: Samples of the batch, over all ranks.
        """
        random = _random(self.seed, step, total)
        boxes = self.cutmix > 0 and (not self.mixup or random[0, -1] < 0.5)
        own = np.arange(first, first + len(y))
        other = self._partners(total)[own]
        cut = np.flatnonzero((other < first) | (other >= first + len(y)))
        half = len(cut) // 2
        ends = cut[:half], cut[len(cut) - half :]
        other[cut] = own[cut]
        other[ends[0]], other[ends[1]] = own[ends[1]], own[ends[0]]
        alone = other == own
        random = random[np.minimum(own, other)]  # the two of a pair have the same
        share = beta(random[:, : 2 * TRIES], self.cutmix if boxes else self.mixup)
        share[alone] = 1
        order = torch.from_numpy(other - first).to(x.device, non_blocking=True)
        if boxes:
            edges = box(share, random[:, 2 * TRIES : -1], x.shape[-1])
            top, bottom, left, right = edges
            share = 1 - ((bottom - top) * (right - left) / x.shape[-1] ** 2).astype(np.float32)
            inside = _mask(torch.from_numpy(edges).to(x.device, non_blocking=True), x.shape[-1])
            x = torch.where(inside, x[order], x)
        shares = torch.from_numpy(share).to(x.device, non_blocking=True)
        if not boxes:
            x = x.lerp(x[order], (1 - shares).view(-1, 1, 1, 1))
        return Mixed(x, y[order], shares)

    def _partners(self, total: int) -> NDArray[np.int64]:
        if self.partners is not None and len(self.partners) == total:
            return self.partners
        neighbours = np.arange(total) ^ 1
        neighbours[neighbours == total] = total - 1
        return neighbours


def _random(seed: int, step: int, samples: int) -> NDArray[np.float64]:
    """float64 (samples, COLUMNS) in (0, 1]."""
    bits = np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(2, step)))
    raw = bits.random_raw(COLUMNS * max(samples, 1)) >> np.uint64(
        11
    )  # raw output, which NumPy promises never to change
    return ((raw + np.uint64(1)).astype(np.float64) * 2.0**-53).reshape(-1, COLUMNS)


def beta(uniform: NDArray[np.float64], alpha: float) -> NDArray[np.float32]:
    """Return draws of Beta(alpha, alpha), float32 (n,), from uniform numbers (n, 2 * TRIES) in (0, 1].

    Joehnk 1964: x = u^(1/alpha), y = v^(1/alpha), tried until x + y <= 1, give x / (x + y). In logarithms, because
    small alphas make small numbers. Where no try succeeds (2^-16 of them with alpha 1) the last one is taken.
    """
    x, y = (np.log(uniform[:, part::2]) / alpha for part in (0, 1))
    good = np.logaddexp(x, y) <= 0
    chosen = np.where(good.any(1), good.argmax(1), TRIES - 1)
    rows = np.arange(len(uniform))
    return (1 / (1 + np.exp(np.minimum(y[rows, chosen] - x[rows, chosen], 700)))).astype(np.float32)


def box(share: NDArray[np.float32], middle: NDArray[np.float64], side: int) -> NDArray[np.int64]:
    """Return boxes that leave a share of a plane (Yun et al. 2019), cut off at its edges.

    Args:
        share: float32 (n,), 0 to 1, the share that is left.
        middle: float64 (n, 2), of each box in the plane, 0 to 1.
        side: Pixels of the plane's side.

    Returns:
        int64 (4, n): top, bottom, left, right.
    """
    half = np.sqrt(1 - share.astype(np.float64)) / 2
    edges = [(middle[:, axis] + sign * half) * side for axis in (0, 1) for sign in (-1, 1)]
    return np.clip(np.rint(edges), 0, side).astype(np.int64)


def _mask(edges: torch.Tensor, side: int) -> torch.Tensor:
    """bool (n, 1, side, side): inside the boxes."""
    top, bottom, left, right = edges.unsqueeze(-1)
    place = torch.arange(side, device=edges.device)
    rows, columns = (place >= top) & (place < bottom), (place >= left) & (place < right)
    inside: torch.Tensor = rows[:, None, :, None] & columns[:, None, None, :]
    return inside
