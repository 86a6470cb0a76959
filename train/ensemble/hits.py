"""Which samples outputs have right, alone and fused: from arrays to arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

Scores = TypeVar("Scores", bound=np.generic)

CHUNK_BYTES = 256_000_000  # of outputs that are looked at together


def log_probabilities(logits: NDArray[np.float16], rows: slice | NDArray[np.int64]) -> torch.Tensor:
    """Return the log-softmax of some rows: float32 (n, classes)."""
    return torch.from_numpy(np.asarray(logits[rows], np.float32)).log_softmax(1)


def member_hits(logits: NDArray[np.float16], labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return for each sample whether its class is the first, and whether it is among the first five.

    Args:
        logits: (samples, classes).
        labels: (samples,).

    Returns:
        bool (samples, 2).

    Raises:
        ValueError: if outputs are not finite.
    """
    hits = []
    for rows in _chunks(len(labels), logits.shape[1]):
        outputs = log_probabilities(logits, rows)
        if not outputs.isfinite().all():
            raise ValueError("outputs that are not finite numbers")
        hits.append(_hits(outputs, labels[rows]))
    return np.concatenate(hits)


def mean_loss(logits: NDArray[np.float16], labels: NDArray[np.int64], rows: NDArray[np.int64]) -> float:
    """Return the cross-entropy of some samples, in nats: the mean over them.

    Args:
        logits: (samples, classes).
        labels: (samples,).
        rows: the samples: (n,).
    """
    total = 0.0
    for part in _chunks(len(rows), logits.shape[1]):
        right = torch.from_numpy(np.asarray(labels[rows[part]], np.int64))
        total -= float(log_probabilities(logits, rows[part]).gather(1, right[:, None]).double().sum())
    return total / len(rows)


def prefix_hits(
    logits: Sequence[NDArray[np.float16]],
    labels: NDArray[np.int64],
    rows: NDArray[np.int64],
    weights: NDArray[np.float64],
    in_log: bool,
) -> NDArray[np.bool_]:
    """Return which samples are right when the 1, 2, ... members of the largest weights are fused.

    Args:
        logits: of every member: (samples, classes) each.
        labels: (samples,).
        rows: the samples to score: (n,).
        weights: one a member: (members,). Those of weight 0 are last and change nothing.
        in_log: sum log-probabilities, and not probabilities.

    Returns:
        bool (members, n, 2): top-1 and top-5. The last is all of them.
    """
    order = np.argsort(-np.abs(weights), kind="stable")
    hits = np.empty((len(order), len(rows), 2), np.bool_)
    for part in _chunks(len(rows), logits[0].shape[1]):
        chosen = rows[part]
        fused = torch.zeros(len(chosen), logits[0].shape[1])
        for number, member in enumerate(order):
            if weights[member]:
                outputs = log_probabilities(logits[member], chosen)
                fused.add_(outputs if in_log else outputs.exp(), alpha=float(weights[member]))
                hits[number, part] = _hits(fused, labels[chosen])
            else:
                hits[number, part] = hits[number - 1, part]
    return hits


def fused_classes(
    logits: Sequence[NDArray[np.float16]], rows: NDArray[np.int64], weights: NDArray[np.float64], in_log: bool
) -> NDArray[np.int64]:
    """Return the class that an ensemble says for some samples: (n,).

    Args:
        logits: of every member: (samples, classes) each.
        rows: the samples: (n,).
        weights: one a member: (members,).
        in_log: sum log-probabilities, and not probabilities.
    """
    said = np.empty(len(rows), np.int64)
    for part in _chunks(len(rows), logits[0].shape[1]):
        fused = torch.zeros(len(rows[part]), logits[0].shape[1])
        for member in np.flatnonzero(weights).tolist():
            outputs = log_probabilities(logits[member], rows[part])
            fused.add_(outputs if in_log else outputs.exp(), alpha=float(weights[member]))
        said[part] = fused.argmax(1).numpy()
    return said


def cross_hits(
    samples: int, score: Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[Scores]]
) -> NDArray[Scores]:
    """Score each half of the samples with choices made on the other half.

    The halves are the even and the odd rows, so that both have every class of a part in source order.

    Args:
        samples: how many there are.
        score: gets the rows to choose on and the rows to score, and returns (members, scored rows, ...).

    Returns:
        The same of all samples, in their order: (members, samples, ...).
    """
    rows = np.arange(samples)
    halves = rows[::2], rows[1::2]
    found = [score(halves[1 - half], halves[half]) for half in (0, 1)]
    hits = np.empty((len(found[0]), samples, *found[0].shape[2:]), found[0].dtype)
    for half, some in zip(halves, found, strict=True):
        hits[:, half] = some
    return hits


def _hits(fused: torch.Tensor, labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    best = fused.topk(min(5, fused.shape[1])).indices == torch.from_numpy(np.asarray(labels))[:, None]
    return torch.stack([best[:, 0], best.any(1)], 1).numpy()


def _chunks(samples: int, classes: int) -> Iterator[slice]:
    size = max(CHUNK_BYTES // (8 * classes), 1)
    for start in range(0, samples, size):
        yield slice(start, start + size)
