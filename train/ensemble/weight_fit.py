"""The weights of members that fit some outputs best."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray


def fit_weights(outputs: torch.Tensor, labels: torch.Tensor) -> NDArray[np.float64]:
    """Return one weight a member for the sum of log-probabilities, of least cross-entropy.

    The problem is convex, with as many unknowns as members, and L-BFGS solves it. A normal prior of variance 1 around
    equal weights keeps it stable if there are few samples.

    Args:
        outputs: log-probabilities: float32 (members, n, classes).
        labels: int64 (n,).

    Returns:
        float64 (members,). Weights may be negative.
    """
    count, samples = len(outputs), len(labels)
    weights = torch.full((count,), 1 / count, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = torch.nn.functional.cross_entropy(torch.einsum("k,knc->nc", weights, outputs), labels)
        value = value + ((weights - 1 / count) ** 2).sum() / (2 * samples)
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return weights.detach().double().numpy()
