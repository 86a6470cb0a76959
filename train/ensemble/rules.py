"""The choices of an ensemble: what bands are ranked on, and the rules that weight them.

A new rule is a function and an entry of RULES, both here; the command line, the scores, the report and the export read
it from there. This module loads no torch by itself, so that the command line can show its choices.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

GEOMETRIC_P = 0.3  # as published


@dataclass(frozen=True)
class RankingData:
    """Data that bands are ranked on, and that weights are fitted on.

    Attributes:
        name: as the user writes it.
        help: a few words for the command line.
        sentence: for the report.
        part: whose outputs are used: holdout or val.
        has_outputs: whether there are outputs to fit weights on; if not, bands are ranked by training accuracy.
        halves: whether each half of val is scored with choices made on the other.
    """

    name: str
    help: str
    sentence: str
    part: str = "val"
    has_outputs: bool = True
    halves: bool = False


RANK_ON = {
    entry.name: entry
    for entry in (
        RankingData(
            "holdout",
            "samples kept from training",
            "ranks and fitted weights come from samples kept from training",
            part="holdout",
        ),
        RankingData(
            "halves",
            "the other half of val",
            "ranks and fitted weights come from the other half of val",
            halves=True,
        ),
        RankingData("train", "training accuracy", "ranks come from the training accuracy", has_outputs=False),
        RankingData(
            "val",
            "val, which flatters",
            "ranks and fitted weights come from the data that is scored, which flatters",
        ),
    )
}


@dataclass(frozen=True)
class Space:
    """What is summed with the weights of a rule.

    Attributes:
        name: log or probability.
        title: for the report.
    """

    name: str
    title: str


LOG = Space("log", "log-probabilities")
PROBABILITY = Space("probability", "probabilities")
SPACES = {space.name: space for space in (LOG, PROBABILITY)}


@dataclass(frozen=True)
class RankedOutputs:
    """What a rule makes its weights from.

    Attributes:
        order: places of the bands, best first: int64 (bands,).
        logits: of every band, in band order: float16 (samples, classes) each.
        labels: int64 (samples,).
        rows: the samples that may be used: int64 (n,).
    """

    order: NDArray[np.int64]
    logits: Sequence[NDArray[np.float16]]
    labels: NDArray[np.int64]
    rows: NDArray[np.int64]


@dataclass(frozen=True)
class FusingRule:
    """A way to weight bands.

    Attributes:
        name: as the user writes it.
        title: for the report.
        weights: returns one weight a band, best first: float64 (bands,).
        spaces: what it is scored in; the first is exported.
        needs_outputs: whether it looks at logits and labels, and not at the order alone.
    """

    name: str
    title: str
    weights: Callable[[RankedOutputs], NDArray[np.float64]]
    spaces: tuple[Space, ...] = (LOG, PROBABILITY)
    needs_outputs: bool = False


def mean(bands: RankedOutputs) -> NDArray[np.float64]:
    """Return equal weights."""
    count = len(bands.order)
    return np.full(count, 1 / count)


def geometric(bands: RankedOutputs) -> NDArray[np.float64]:
    """Return weights by rank: p (1 - p)**rank."""
    return np.asarray(GEOMETRIC_P * (1 - GEOMETRIC_P) ** np.arange(len(bands.order)))


def fitted(bands: RankedOutputs) -> NDArray[np.float64]:
    """Return the weights of least cross-entropy."""
    from .weight_fit import fit_weights  # which loads torch

    return fit_weights(bands.logits, bands.labels, bands.rows)[bands.order]


MEAN = FusingRule("mean", "mean", mean)
GEOMETRIC = FusingRule("geometric", f"geometric, p = {GEOMETRIC_P}", geometric)
FITTED = FusingRule("fitted", "fitted log-linear", fitted, spaces=(LOG,), needs_outputs=True)
RULES = {rule.name: rule for rule in (MEAN, GEOMETRIC, FITTED)}

# the first of these that can be used is the default: the best on two data sets (docs/results.md, Training and fusing)
PREFERRED = (FITTED, GEOMETRIC)
