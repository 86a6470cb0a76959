"""The choices of an ensemble: what members are ranked on, and the rules that weight them.

A new rule is a function and an entry of RULES, both here; the command line, the scores, the report and the export read
it from there. This module loads no torch by itself, so that the command line can show its choices.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

GEOMETRIC_P = 0.3  # as published
FIT_BYTES = 1_000_000_000  # of outputs that weights are made on
SELECT_ROWS = 5000  # that members are chosen on at most: 2,000 choose no better than 1,000


@dataclass(frozen=True)
class RankingData:
    """Data that members are ranked on, and that weights are made on.

    Attributes:
        name: as the user writes it.
        help: a few words for the command line.
        sentence: for the report; {} is how many samples there are.
        part: whose outputs are used: holdout or val.
        has_outputs: whether there are outputs to make weights on; if not, members are ranked by training accuracy.
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
            "members are ranked, chosen and weighted on {} samples kept from training",
            part="holdout",
        ),
        RankingData(
            "halves",
            "the other half of val",
            "each half of val is scored with members ranked, chosen and weighted on the other half; "
            "what is exported is chosen on all {} samples",
            halves=True,
        ),
        RankingData("train", "training accuracy", "members are ranked by their training accuracy", has_outputs=False),
        RankingData(
            "val",
            "the samples that are scored, which flatters",
            "members are ranked, chosen and weighted on the {} samples that are scored, which flatters",
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
        order: places of the members, best first: int64 (members,).
        logits: of every member: float16 (samples, classes) each.
        labels: int64 (samples,).
        rows: the samples that may be used: int64 (n,).
    """

    order: NDArray[np.int64]
    logits: Sequence[NDArray[np.float16]]
    labels: NDArray[np.int64]
    rows: NDArray[np.int64]


@dataclass(frozen=True)
class FusingRule:
    """A way to weight members.

    Attributes:
        name: as the user writes it.
        title: for the report.
        weights: returns one weight a member, in their order, 0 for those that are not chosen: float64 (members,).
        spaces: what it is scored in; the first is exported.
        needs_outputs: whether it looks at logits and labels, and not at the order alone.
    """

    name: str
    title: str
    weights: Callable[[RankedOutputs], NDArray[np.float64]]
    spaces: tuple[Space, ...] = (LOG, PROBABILITY)
    needs_outputs: bool = False


def mean(members: RankedOutputs) -> NDArray[np.float64]:
    """Return equal weights."""
    count = len(members.order)
    return np.full(count, 1 / count)


def geometric(members: RankedOutputs) -> NDArray[np.float64]:
    """Return weights by rank: p (1 - p)**rank."""
    weights = np.empty(len(members.order))
    weights[members.order] = GEOMETRIC_P * (1 - GEOMETRIC_P) ** np.arange(len(weights))
    return weights


def fitted(members: RankedOutputs) -> NDArray[np.float64]:
    """Return the weights of least cross-entropy."""
    from .weight_fit import fit_weights  # which loads torch

    return fit_weights(*_outputs(members))


def selected(members: RankedOutputs) -> NDArray[np.float64]:
    """Return the weights of the chosen members, or of the best one alone if nothing shows that more are better."""
    from .selection import select  # which loads torch

    return select(*_outputs(members, SELECT_ROWS), int(members.order[0]))


def _outputs(members: RankedOutputs, most_rows: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Return log-probabilities float32 (members, n, classes) and labels int64 (n,) of rows that fit into FIT_BYTES.

    Args:
        members: with the rows, which are thinned out evenly.
        most_rows: how many rows at most.
    """
    import torch

    from .hits import log_probabilities

    most = max(FIT_BYTES // (4 * len(members.logits) * members.logits[0].shape[1]), 1)
    rows = members.rows[:: -(-len(members.rows) // min(most, most_rows or most))]
    outputs = torch.stack([log_probabilities(each, rows) for each in members.logits])
    return outputs, torch.from_numpy(np.asarray(members.labels[rows], np.int64))


MEAN = FusingRule("mean", "mean", mean)
GEOMETRIC = FusingRule("geometric", f"geometric, p = {GEOMETRIC_P}", geometric)
FITTED = FusingRule("fitted", "fitted log-linear", fitted, spaces=(LOG,), needs_outputs=True)
SELECTED = FusingRule("selected", "selected members", selected, spaces=(LOG,), needs_outputs=True)
RULES = {rule.name: rule for rule in (MEAN, GEOMETRIC, FITTED, SELECTED)}

# the first of these that can be used is the default (docs/decisions/0020-choosing-members.md)
PREFERRED = (SELECTED, GEOMETRIC)
