"""Mixup and cutmix on the device: neighbours in a batch are mixed with each other.

A batch is in random order, so neighbours are as good as any two, and a rank that holds an even part of it needs no
sample of another. All that is random is a pure function of the seed and the step.
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
    """A batch after mixing: x (n, 3, H, W); `other` int64 (n,), labels; `share` float32 (n,), of the first label."""

    x: torch.Tensor
    other: torch.Tensor
    share: torch.Tensor


@dataclass(frozen=True)
class Mixing:
    """mixup, cutmix: alpha of the Beta distributions; 0 for none. With both, a step does the one or the other."""

    seed: int
    mixup: float
    cutmix: float

    def __bool__(self) -> bool:
        return bool(self.mixup or self.cutmix)

    def __call__(self, x: torch.Tensor, y: torch.Tensor, step: int, first: int, total: int) -> Mixed:
        """Mix positions `first` and following of the batch of `total` samples of a step.

        x: (n, 3, H, W), y: int64 (n,).  One without its neighbour, at either end, stays as it is.
        """
        random = _random(self.seed, step, total // 2)
        boxes = self.cutmix > 0 and (not self.mixup or random[0, -1] < 0.5)
        offset = first % 2
        pairs = (len(y) - offset) // 2
        of_pair = slice((first + offset) // 2, (first + offset) // 2 + pairs)
        share = beta(random[of_pair, : 2 * TRIES], self.cutmix if boxes else self.mixup)
        order = np.arange(len(y))
        inside = slice(offset, offset + 2 * pairs)
        order[inside] = order[inside].reshape(-1, 2)[:, ::-1].ravel()
        neighbour = torch.from_numpy(order).to(x.device, non_blocking=True)
        of_sample = np.ones(len(y), np.float32)
        if boxes:
            edges = np.zeros((4, len(y)), np.int64)  # without a neighbour: empty
            edges[:, inside] = box(share, random[of_pair, 2 * TRIES : -1], x.shape[-1]).repeat(2, axis=1)
            top, bottom, left, right = edges
            of_sample -= ((bottom - top) * (right - left) / x.shape[-1] ** 2).astype(np.float32)
            inside_box = _mask(torch.from_numpy(edges).to(x.device, non_blocking=True), x.shape[-1])
            x = torch.where(inside_box, x[neighbour], x)
        else:
            of_sample[inside] = share.repeat(2)
        first_share = torch.from_numpy(of_sample).to(x.device, non_blocking=True)
        if not boxes:
            x = x.lerp(x[neighbour], (1 - first_share).view(-1, 1, 1, 1))
        return Mixed(x, y[neighbour], first_share)


def _random(seed: int, step: int, pairs: int) -> NDArray[np.float64]:
    """float64 (pairs, COLUMNS) in (0, 1]."""
    bits = np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(2, step)))
    raw = bits.random_raw(COLUMNS * max(pairs, 1)) >> np.uint64(11)  # raw output, which NumPy promises never to change
    return ((raw + np.uint64(1)).astype(np.float64) * 2.0**-53).reshape(-1, COLUMNS)


def beta(uniform: NDArray[np.float64], alpha: float) -> NDArray[np.float32]:
    """Draws of Beta(alpha, alpha), float32 (n,), from uniform numbers (n, 2 * TRIES) in (0, 1].

    Joehnk 1964: x = u^(1/alpha), y = v^(1/alpha), tried until x + y <= 1, give x / (x + y). In logarithms, because
    small alphas make small numbers. Where no try succeeds (2^-16 of them with alpha 1) the last one is taken.
    """
    x, y = (np.log(uniform[:, part::2]) / alpha for part in (0, 1))
    good = np.logaddexp(x, y) <= 0
    chosen = np.where(good.any(1), good.argmax(1), TRIES - 1)
    rows = np.arange(len(uniform))
    return (1 / (1 + np.exp(np.minimum(y[rows, chosen] - x[rows, chosen], 700)))).astype(np.float32)


def box(share: NDArray[np.float32], middle: NDArray[np.float64], side: int) -> NDArray[np.int64]:
    """Boxes that leave `share` of a plane: int64 (4, n), top, bottom, left, right; cut off at the edges.

    middle: (n, 2), of the box in the plane, 0 to 1 (Yun et al. 2019).
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
