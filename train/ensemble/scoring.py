"""Fuse the finished runs of a split's bands, and score every rule."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import EnsembleError
from .hits import prefix_hits
from .members import FinishedRun, check_same, find_runs, open_baseline
from .ranking import Ranking, ranking_data, run_hits
from .rules import LOG, PREFERRED, RULES, FusingRule, Space


@dataclass(frozen=True)
class Accuracy:
    """Fractions of the samples of val."""

    top1: float
    top5: float


@dataclass(frozen=True)
class MemberScore:
    """Accuracies of one member alone, as fractions: on val, and on what it was trained on.

    Attributes:
        name: of the run.
        bands: numbers of the bands that it reads.
        top1, top5: on val.
        train_top1: on what it was trained on.
    """

    name: str
    bands: tuple[int, ...]
    top1: float
    top5: float
    train_top1: float


@dataclass(frozen=True)
class RuleScore:
    """What a rule gives.

    Attributes:
        rule: name in RULES.
        space: name in SPACES.
        top1: accuracy with all bands.
        top5: the same.
        curve: accuracies with the first 1, 2, ... bands, best first.
        weights: one a band, in band order, from all data that is ranked on.
    """

    rule: str
    space: str
    top1: float
    top5: float
    curve: tuple[Accuracy, ...]
    weights: tuple[float, ...]


@dataclass(frozen=True)
class ModelCost:
    """What a model gives and costs.

    Attributes:
        name: in words.
        top1: accuracy on val.
        top5: the same.
        parameter_bytes: of the float32 parameters.
        multiply_adds: of one image's forward pass.
        seconds: of training; for several bands, one after another.
    """

    name: str
    top1: float
    top5: float
    parameter_bytes: int
    multiply_adds: int
    seconds: float


@dataclass(frozen=True)
class Costs:
    """What there is to compare.

    Attributes:
        best: the band that ranks first, and not the best one on val, which would flatter. With halves of val, each half
            is answered by the band that ranks first on the other.
        fused: all bands, by the default rule.
        baseline: the network that saw the whole images, if there is one.
    """

    best: ModelCost
    fused: ModelCost
    baseline: ModelCost | None


@dataclass(frozen=True)
class ClassGain:
    """Top-1 within one class, as fractions: of the best band alone, and of the default rule."""

    name: str
    samples: int
    best: float
    fused: float


@dataclass(frozen=True)
class EnsembleReport:
    """The scores of an ensemble.

    Attributes:
        dataset: its name.
        factor: bands of the split.
        samples: of val.
        rank_on: name in RANK_ON.
        members: each alone, in the order of `find_runs`.
        order: names of the members, best first, by all data that is ranked on.
        missing: numbers of the bands that no member reads.
        differing: names of the options that are not the same in all runs.
        rules: each in each of its spaces.
        costs: what the models cost.
        classes: those that have samples.
    """

    dataset: str
    factor: int
    samples: int
    rank_on: str
    members: tuple[MemberScore, ...]
    order: tuple[str, ...]
    missing: tuple[int, ...]
    differing: tuple[str, ...]
    rules: tuple[RuleScore, ...]
    costs: Costs
    classes: tuple[ClassGain, ...]

    @property
    def default(self) -> RuleScore:
        """The rule whose accuracy is the ensemble's."""
        return default_score(self.rules)

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return asdict(self)


def exported_score(rules: tuple[RuleScore, ...], rule: FusingRule) -> RuleScore | None:
    """Return the score of a rule in the space that it is exported in; None if it was not scored."""
    return next((each for each in rules if (each.rule, each.space) == (rule.name, rule.spaces[0].name)), None)


def default_score(rules: tuple[RuleScore, ...]) -> RuleScore:
    """Return the score of the default rule."""
    return next(found for rule in PREFERRED if (found := exported_score(rules, rule)))


def score_ensemble(runs: list[FinishedRun], rank_on: str | None = None, baseline: Path | None = None) -> EnsembleReport:
    """Score every rule on runs that belong together.

    Args:
        runs: as `find_runs` returns them.
        rank_on: name in RANK_ON: what bands are ranked and weights are fitted on. Default: holdout if every run has
            holdout samples, else halves.
        baseline: folder of the run of a network that saw the whole images, to compare with.

    Raises:
        EnsembleError: if the runs do not have what is ranked on, or their outputs are not finite.
    """
    data = ranking_data(runs, rank_on)
    alone = np.stack([run_hits(run, run.val) for run in runs])
    ranking = Ranking(runs, data, alone)
    rules, default_hits = _score_rules(runs, ranking)
    best_hits = _best_band_hits(ranking, alone)
    order = ranking.order(ranking.all_rows)
    default = default_score(rules)
    best = "best member of the other half" if data.halves else f"member {runs[int(order[0])].name}"
    return EnsembleReport(
        dataset=runs[0].dataset,
        factor=runs[0].geometry.factor,
        samples=alone.shape[1],
        rank_on=data.name,
        members=tuple(
            MemberScore(run.name, run.bands, float(top1), float(top5), run.result.train_top1)
            for run, (top1, top5) in zip(runs, alone.mean(axis=1), strict=True)
        ),
        order=tuple(runs[i].name for i in order),
        missing=tuple(sorted(set(range(runs[0].geometry.factor)) - {band for run in runs for band in run.bands})),
        differing=_differing(runs),
        rules=rules,
        costs=Costs(
            best=_cost(best, [runs[int(order[0])]], *best_hits.mean(axis=0)),
            fused=_cost(f"{len(runs)} members fused", runs, default.top1, default.top5),
            baseline=_baseline(baseline, runs[0]) if baseline else None,
        ),
        classes=_class_gains(runs[0], best_hits[:, 0], default_hits),
    )


def _score_rules(runs: list[FinishedRun], ranking: Ranking) -> tuple[tuple[RuleScore, ...], NDArray[np.bool_]]:
    """Return what every rule gives on val, and which samples the default one has right: bool (samples,)."""
    logits, labels = [run.val.logits for run in runs], runs[0].val.labels

    def hits(rule: FusingRule, space: Space, chosen: NDArray[np.int64], scored: NDArray[np.int64]) -> NDArray[np.bool_]:
        order, weights = ranking.order(chosen), ranking.weights(rule, chosen)
        return prefix_hits(logits, labels, scored, order.tolist(), weights, space is LOG)

    right: dict[RuleScore, NDArray[np.bool_]] = {}
    for rule in RULES.values():
        if rule.needs_outputs and not ranking.data.has_outputs:
            continue
        weights = ranking.weights_by_band(rule)
        for space in rule.spaces:
            found = ranking.score_val(len(labels), partial(hits, rule, space))
            curve = tuple(Accuracy(float(top1), float(top5)) for top1, top5 in found.mean(axis=1))
            score = RuleScore(rule.name, space.name, curve[-1].top1, curve[-1].top5, curve, weights)
            right[score] = found[-1, :, 0]
    scores = tuple(right)
    return scores, right[default_score(scores)]


def _best_band_hits(ranking: Ranking, alone: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which samples the band that ranks first has right: bool (samples, 2).

    Args:
        ranking: of the bands.
        alone: what every band has right on val: bool (bands, samples, 2).
    """

    def hits(chosen: NDArray[np.int64], scored: NDArray[np.int64]) -> NDArray[np.bool_]:
        return alone[ranking.order(chosen)[:1]][:, scored]

    return np.asarray(ranking.score_val(alone.shape[1], hits)[0])


def _differing(runs: list[FinishedRun]) -> tuple[str, ...]:
    """Return the options that are not the same in all runs, without the precision, which depends on the machine."""
    each = [{**vars(run.options), **vars(run.options.recipe)} for run in runs]
    names = set(each[0]) - {"recipe", "precision"}
    return tuple(sorted(name for name in names if any(other.get(name) != each[0][name] for other in each)))


def _cost(name: str, runs: list[FinishedRun], top1: float, top5: float) -> ModelCost:
    results = [run.result for run in runs]
    return ModelCost(
        name=name,
        top1=float(top1),
        top5=float(top5),
        parameter_bytes=sum(each.parameter_bytes for each in results),
        multiply_adds=sum(each.multiply_adds for each in results),
        seconds=sum(each.seconds for each in results),
    )


def _baseline(path: Path, like: FinishedRun) -> ModelCost:
    run = open_baseline(path)
    if run.sample_order.get("val") != like.sample_order.get("val"):
        raise EnsembleError(f"--baseline {path} was evaluated on other images than {like.path}: split both alike")
    check_same(run, like, {})
    assert run.result.top1 is not None
    assert run.result.top5 is not None
    return _cost("baseline", [run], run.result.top1, run.result.top5)


def _class_gains(run: FinishedRun, best: NDArray[np.bool_], fused: NDArray[np.bool_]) -> tuple[ClassGain, ...]:
    """Return the gain of every class that has samples.

    Args:
        run: any of the ensemble's.
        best: which samples the best band has right: bool (samples,).
        fused: which samples the default rule has right: bool (samples,).
    """
    labels, classes = run.val.labels, run.class_count
    counts = np.bincount(labels, minlength=classes)
    best_right, fused_right = (np.bincount(labels, each, classes) for each in (best, fused))
    return tuple(
        ClassGain(run.classes[i], int(counts[i]), float(best_right[i] / counts[i]), float(fused_right[i] / counts[i]))
        for i in np.flatnonzero(counts)
    )


def fuse_runs(
    folder: str | os.PathLike[str], rank_on: str | None = None, baseline: str | os.PathLike[str] | None = None
) -> EnsembleReport:
    """Fuse the finished runs of a split's bands.

    Args:
        folder: The folder with the run folders.
        rank_on: As in `score_ensemble`.
        baseline: The run folder of a network that saw the whole images, to compare with.

    Returns:
        What every rule gives; `default` is the rule to use.

    Raises:
        EnsembleError: There are no runs, or they do not belong together.
        TrainError: A run is damaged.
    """
    return score_ensemble(find_runs(Path(folder)), rank_on, Path(baseline) if baseline is not None else None)
