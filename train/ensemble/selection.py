"""Chooses the members of an ensemble: greedy selection with replacement, of calibrated members, by cross-entropy.

docs/decisions/0020-choosing-members.md says why it is done in this way.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

ROUNDS = 20  # members that are drawn; more gave no better sets
FOLDS = 5  # of the samples, to see whether the chosen members are better than one
SCALES = (0.05, 20.0)  # least and largest factor of a member's log-probabilities
CAUTION = 30.0  # samples that say that a member is calibrated as it is
STEPS = 30  # of Newton's method at most


def select(outputs: torch.Tensor, labels: torch.Tensor, best: int) -> NDArray[np.float64]:
    """Return the weights of a chosen set, or of the best member alone if the samples do not show that a set is better.

    Samples show it if the cross-entropy of sets that are chosen without a fold is lower, on the mean over all folds,
    than that of the best members without the fold.

    Args:
        outputs: log-probabilities: float32 (members, n, classes).
        labels: int64 (n,).
        best: place of the best member.

    Returns:
        float64 (members,), 0 for those that are not chosen; they multiply log-probabilities.
    """
    found = greedy(outputs, labels)
    return found if _gain(outputs, labels) > 0 else _one(outputs, labels, best)


def greedy(outputs: torch.Tensor, labels: torch.Tensor) -> NDArray[np.float64]:
    """Return the weights of a set that is drawn member by member, with replacement.

    Each round draws the member that lowers the cross-entropy of the mean log-probability most. The draws up to the
    lowest cross-entropy count. Members are calibrated before, so that one is not drawn for being bold or cautious.

    Args:
        outputs: as for `select`.
        labels: as for `select`.
    """
    scales = torch.stack([scale(member, labels) for member in outputs])
    counts, total = torch.zeros(len(outputs)), torch.zeros_like(outputs[0])
    best, lowest = counts, float("inf")
    for drawn in range(1, ROUNDS + 1):
        losses = [
            _loss((total + factor * member) / drawn, labels) for factor, member in zip(scales, outputs, strict=True)
        ]
        place = int(np.argmin(losses))
        counts, total = counts.clone(), total + scales[place] * outputs[place]
        counts[place] += 1
        if losses[place] < lowest:
            best, lowest = counts, losses[place]
    return np.asarray((best / best.sum() * scales).double().numpy())


def scale(outputs: torch.Tensor, labels: torch.Tensor, caution: float = CAUTION) -> torch.Tensor:
    """Return the factor of log-probabilities that gives the least cross-entropy: float32 (), within SCALES.

    A normal prior around 1 keeps it there where samples are few or all right. Newton's method finds it, at most halving
    or doubling the factor in a step.

    Args:
        outputs: log-probabilities of one member: float32 (n, classes).
        labels: int64 (n,).
        caution: of the prior: one over its variance.
    """
    right = outputs.gather(1, labels[:, None])[:, 0]
    factor = torch.ones(())
    for _ in range(STEPS):
        probabilities = (factor * outputs).softmax(1)
        mean = (probabilities * outputs).sum(1)
        spread = (probabilities * (outputs - mean[:, None]) ** 2).sum(1)
        slope = (mean - right).mean() + caution * (factor - 1) / len(labels)
        step = slope / (spread.mean() + caution / len(labels))
        before, factor = factor, torch.clamp(factor - step, factor / 2, factor * 2).clamp(*SCALES)
        if (factor - before).abs() < 1e-5 * factor:
            break
    return factor


def _one(outputs: torch.Tensor, labels: torch.Tensor, place: int) -> NDArray[np.float64]:
    """Return weights that leave one member alone, calibrated."""
    weights = np.zeros(len(outputs))
    weights[place] = float(scale(outputs[place], labels))
    return weights


def _best(outputs: torch.Tensor, labels: torch.Tensor) -> NDArray[np.float64]:
    """Return weights that leave the member of the highest accuracy alone: of equal ones that of the least loss."""
    hits = np.asarray((outputs.argmax(2) == labels).sum(1))
    losses = np.array([_loss(member, labels) for member in outputs])
    return _one(outputs, labels, int(np.lexsort((losses, -hits))[0]))


def _gain(outputs: torch.Tensor, labels: torch.Tensor) -> float:
    """Return by how much the cross-entropy of chosen sets is lower than that of single members, cross-validated."""
    gain, fold = 0.0, torch.arange(len(labels)) % FOLDS
    for number in range(min(FOLDS, len(labels)) if len(labels) > 1 else 0):
        rest, kept = fold != number, fold == number
        for rule, sign in ((_best, 1), (greedy, -1)):
            weights = torch.from_numpy(rule(outputs[:, rest], labels[rest])).float()
            fused = torch.einsum("k,knc->nc", weights, outputs)
            fused = fused * scale(fused[rest].log_softmax(1), labels[rest], 1.0)  # else the bolder of the two would win
            gain += sign * _loss(fused[kept], labels[kept]) * int(kept.sum())
    return gain


def _loss(outputs: torch.Tensor, labels: torch.Tensor) -> float:
    return float(torch.nn.functional.cross_entropy(outputs, labels))
