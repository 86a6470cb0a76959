"""How members are ranked and weighted."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ..errors import EnsembleError
from .hits import Scores, cross_hits, mean_loss, member_hits
from .members import FinishedRun, Outputs
from .rules import RANK_ON, FusingRule, RankedOutputs, RankingData


class Ranking:
    """Ranks and weights members on their outputs on some data, or ranks them by training accuracy.

    Args:
        runs: the members.
        data: what is ranked on.
        alone: what every member has right on val: bool (members, samples, 2).

    Raises:
        EnsembleError: if outputs are not finite.
    """

    def __init__(self, runs: list[FinishedRun], data: RankingData, alone: NDArray[np.bool_]) -> None:
        self.data = data
        self._outputs = [run.holdout or run.val if data.part == "holdout" else run.val for run in runs]
        self._train_top1 = None if data.has_outputs else np.array([run.result.train_top1 for run in runs])
        if data.part == "holdout":
            alone = np.stack([run_hits(run, part) for run, part in zip(runs, self._outputs, strict=True)])
        self._hits = alone[:, :, 0]
        self._weights: dict[tuple[str, bytes], NDArray[np.float64]] = {}

    @property
    def all_rows(self) -> NDArray[np.int64]:
        """All rows of the data that is ranked on."""
        return np.arange(self._hits.shape[1])

    def order(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the places of the members, best first, by some rows of the data: of equal ones by cross-entropy."""
        if self._train_top1 is not None:
            return np.argsort(-self._train_top1, kind="stable")
        by = self._hits[:, rows].mean(axis=1)
        tied = [(by == each).sum() > 1 for each in by]
        losses = [
            mean_loss(part.logits, part.labels, rows) if equal else 0.0
            for part, equal in zip(self._outputs, tied, strict=True)
        ]
        return np.lexsort((losses, -by))

    def weights(self, rule: FusingRule, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return one weight a member from some rows of the data; they are computed once."""
        key = (rule.name, rows.tobytes())
        if key not in self._weights:
            logits = [part.logits for part in self._outputs]
            self._weights[key] = rule.weights(RankedOutputs(self.order(rows), logits, self._outputs[0].labels, rows))
        return self._weights[key]

    def score_val(
        self, samples: int, score: Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[Scores]]
    ) -> NDArray[Scores]:
        """Score all samples of val.

        Args:
            samples: how many there are.
            score: gets the rows of the data to choose on and the rows of val to score, and returns
                (members, scored rows, ...).

        Returns:
            The same of all samples: (members, samples, ...).
        """
        if self.data.halves:
            return cross_hits(samples, score)
        return score(self.all_rows, np.arange(samples))


def ranking_data(runs: list[FinishedRun], name: str | None) -> RankingData:
    """Return the data to rank on: the one that is named, or the best that the runs have.

    Raises:
        EnsembleError: if there is no such data, or the runs do not have it.
    """
    name = name or ("holdout" if all(run.holdout for run in runs) else "halves")
    if name not in RANK_ON:
        raise EnsembleError(f"--rank-on {name}: choose {', '.join(RANK_ON)}")
    data = RANK_ON[name]
    if data.halves and len(runs[0].val.labels) < 2:
        raise EnsembleError(f"{runs[0].path} was evaluated on one sample, which has no halves: use --rank-on train")
    if data.part == "holdout":
        _check_holdout(runs)
    return data


def _check_holdout(runs: list[FinishedRun]) -> None:
    first = runs[0]
    for run in runs:
        if run.holdout is None:
            raise EnsembleError(
                f"{run.path} has no holdout samples: use --rank-on halves, or train with --holdout-samples"
            )
        if first.holdout is None or not np.array_equal(run.holdout.labels, first.holdout.labels):
            raise EnsembleError(f"{run.path} has other holdout samples than {first.path}: use --rank-on halves")


def run_hits(run: FinishedRun, part: Outputs) -> NDArray[np.bool_]:
    """Return what a run has right on one part: bool (samples, 2), top-1 and top-5.

    Raises:
        EnsembleError: if its outputs are not finite.
    """
    try:
        return member_hits(part.logits, part.labels)
    except ValueError as error:
        raise EnsembleError(f"{run.path} holds {error}: train it again, with --no-resume") from None
