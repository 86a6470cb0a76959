"""The weights of bands that fit some outputs best."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from .hits import log_probabilities

FIT_BYTES = 1_000_000_000  # of outputs that weights are fitted on


def fit_weights(
    logits: Sequence[NDArray[np.float16]], labels: NDArray[np.int64], rows: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return one weight a band for the sum of log-probabilities, of least cross-entropy.

    The problem is convex, with as many unknowns as bands, and L-BFGS solves it. A normal prior of variance 1 around
    equal weights keeps it stable if there are few rows. Rows of more than FIT_BYTES are thinned out evenly.

    Args:
        logits: of every band: (samples, classes) each.
        labels: (samples,).
        rows: the samples to fit on: (n,).

    Returns:
        float64 (bands,), in band order.
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
