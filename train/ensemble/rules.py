"""Fusing the outputs of sub-networks: weights, rules and scores, from arrays to numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

P = 0.3  # of the geometric weights p * (1 - p)**rank, as published
CHUNK_BYTES = 256_000_000
FIT_BYTES = 1_000_000_000
WEIGHTS = ("mean", "geometric", "fitted")
SPACES = ("log", "probability")

Logits = Sequence[NDArray[np.float16]]


def geometric(count: int, p: float = P) -> NDArray[np.float64]:
    """Weights by rank, best first: p (1 - p)**rank."""
    return np.asarray(p * (1 - p) ** np.arange(count))


def log_probabilities(logits: NDArray[np.float16], rows: slice | NDArray[np.int64]) -> torch.Tensor:
    """Log-softmax of some rows: float32 (n, classes)."""
    return torch.from_numpy(np.asarray(logits[rows], np.float32)).log_softmax(1)


def band_hits(logits: NDArray[np.float16], labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """For each sample, whether its class is first, and among the first five: bool (n, 2).

    Raises ValueError for outputs that are not finite.
    """
    hits = []
    for rows in _chunks(len(labels), logits.shape[1]):
        outputs = log_probabilities(logits, rows)
        if not outputs.isfinite().all():
            raise ValueError("outputs that are not finite numbers")
        hits.append(_hits(outputs, labels[rows]))
    return np.concatenate(hits)


def prefix_hits(
    logits: Logits,
    labels: NDArray[np.int64],
    rows: NDArray[np.int64],
    order: Sequence[int],
    weights: NDArray[np.float64],
    space: str,
) -> NDArray[np.bool_]:
    """Whether each of `rows` is a hit when the first 1, 2, ... bands of `order` are fused: bool (bands, rows, 2).

    weights: one a band, in the order of `order`.  space: 'log' sums log-probabilities, 'probability'
    probabilities.  The last axis: top-1, top-5.
    """
    hits = np.empty((len(order), len(rows), 2), np.bool_)
    for part in _chunks(len(rows), logits[0].shape[1]):
        chosen = rows[part]
        fused = torch.zeros(len(chosen), logits[0].shape[1])
        for number, band in enumerate(order):
            outputs = log_probabilities(logits[band], chosen)
            fused.add_(outputs if space == "log" else outputs.exp(), alpha=float(weights[number]))
            hits[number, part] = _hits(fused, labels[chosen])
    return hits


def fit_weights(logits: Logits, labels: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """One weight a band for the sum of log-probabilities, of least cross-entropy on `rows`.

    A convex problem in as many unknowns as bands, solved by L-BFGS; a normal prior of variance 1 around equal weights
    keeps it sound where rows are few. Where all rows would not fit in about 1 GB, evenly spaced ones are used.
    """
    most = max(FIT_BYTES // (4 * len(logits) * logits[0].shape[1]), 1)
    rows = rows[:: -(-len(rows) // most)]
    outputs = torch.stack([log_probabilities(band, rows) for band in logits])
    target = torch.from_numpy(labels[rows])
    weights = torch.full((len(logits),), 1 / len(logits), requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = torch.nn.functional.cross_entropy(torch.einsum("k,knc->nc", weights, outputs), target)
        value = value + ((weights - 1 / len(logits)) ** 2).sum() / (2 * len(rows))
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return weights.detach().double().numpy()


def cross_hits(
    samples: int, score: Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.bool_]]
) -> NDArray[np.bool_]:
    """What `prefix_hits` returns, for every sample with choices made on the other half.

    score(chosen_on, scored) gets the rows to choose weights on and those to score. The halves are the
    even and the odd rows, so that both hold every class of a part in source order.
    """
    rows = np.arange(samples)
    halves = rows[::2], rows[1::2]
    found = [score(halves[1 - half], halves[half]) for half in (0, 1)]
    hits = np.empty((len(found[0]), samples, 2), np.bool_)
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
