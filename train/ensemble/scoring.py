"""Fuse finished runs, choose among them, and score every rule."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import EnsembleError
from .hits import fused_classes, prefix_hits
from .members import FinishedRun, check_same, differing, find_runs, open_baseline, repeated
from .ranking import Ranking, ranking_data, run_hits
from .rules import LOG, MEAN, PREFERRED, RANK_ON, RULES, SELECTED, FusingRule, RankingData, Space


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
        top1: accuracy of val.
        top5: the same.
        weights: one a member, from all data that is ranked on; 0 for those that the rule does not choose.
    """

    rule: str
    space: str
    top1: float
    top5: float
    weights: tuple[float, ...]


@dataclass(frozen=True)
class ChosenMember:
    """A member that the default rule chooses.

    Attributes:
        name: of the run.
        bands: numbers of the bands that it reads.
        share: of its weight in the sum of all, 0 to 1; a rule that chooses has none below 0.
    """

    name: str
    bands: tuple[int, ...]
    share: float


@dataclass(frozen=True)
class ModelCost:
    """What a model gives and costs.

    Attributes:
        name: in words.
        top1: accuracy on val.
        top5: the same.
        parameter_bytes: of the float32 parameters.
        multiply_adds: of one image's forward pass.
        seconds: of training; for several members, one after another.
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
        best: the member that ranks first, and not the best one on val, which would flatter. With halves of val, each
            half is answered by the member that ranks first on the other.
        chosen: the chosen set, by the default rule. With halves of val it costs what the set costs that is chosen on
            all of val.
        every: all members, with equal weights.
        baseline: the network that saw the whole images, if there is one.
    """

    best: ModelCost
    chosen: ModelCost
    every: ModelCost
    baseline: ModelCost | None

    @property
    def shown(self) -> list[ModelCost]:
        """The models, in the order of tables."""
        return [*([self.baseline] if self.baseline else []), self.best, self.every, self.chosen]


@dataclass(frozen=True)
class ClassGain:
    """Top-1 within one class, as fractions: of the best member alone, and of the default rule."""

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
        rank_samples: how many samples members are ranked, chosen and weighted on; None by accuracies of training.
        members: each alone, in the order of `find_runs`.
        order: names of the members, best first, by all data that is ranked on.
        missing: numbers of the bands that no member reads.
        differing: names of the options that are not the same in all runs.
        repeated: members with the data, options and seed of another one, which add nothing, and that one: their names.
        rules: each in each of its spaces.
        chosen: the members that the default rule chooses, the largest share first.
        curve: accuracies of the default rule with the 1, 2, ... members of the largest weights.
        costs: what the models cost.
        classes: those that have samples.
    """

    dataset: str
    factor: int
    samples: int
    rank_on: str
    rank_samples: int | None
    members: tuple[MemberScore, ...]
    order: tuple[str, ...]
    missing: tuple[int, ...]
    differing: tuple[str, ...]
    repeated: Mapping[str, str]
    rules: tuple[RuleScore, ...]
    chosen: tuple[ChosenMember, ...]
    curve: tuple[Accuracy, ...]
    costs: Costs
    classes: tuple[ClassGain, ...]

    @property
    def default(self) -> RuleScore:
        """The rule whose accuracy is the ensemble's."""
        return default_score(self.rules)

    @property
    def fell_back(self) -> bool:
        """Whether there was a choice of several members, and the best one alone was taken."""
        names = [member.name for member in self.chosen]
        return len(self.members) > 1 and self.default.rule == SELECTED.name and names == [self.order[0]]

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {**asdict(self), "default": self.default.rule, "fell_back": self.fell_back}


def exported_score(rules: tuple[RuleScore, ...], rule: FusingRule) -> RuleScore | None:
    """Return the score of a rule in the space that it is exported in; None if it was not scored."""
    return next((each for each in rules if (each.rule, each.space) == (rule.name, rule.spaces[0].name)), None)


def default_score(rules: tuple[RuleScore, ...]) -> RuleScore:
    """Return the score of the default rule."""
    return next(found for rule in PREFERRED if (found := exported_score(rules, rule)))


def score_ensemble(
    runs: list[FinishedRun],
    rank_on: str | None = None,
    baseline: Path | None = None,
    stage: Callable[[str], object] = lambda text: None,
) -> EnsembleReport:
    """Score every rule on runs that belong together.

    Args:
        runs: as `find_runs` returns them.
        rank_on: name in RANK_ON: what members are ranked, chosen and weighted on. Default: holdout if every run has
            holdout samples, else halves.
        baseline: folder of the run of a network that saw the whole images, to compare with.
        stage: called with what is done from then on, in words.

    Raises:
        EnsembleError: if the runs do not have what is ranked on, or their outputs are not finite.
    """
    data = ranking_data(runs, rank_on)
    alone = np.stack(list(_each_alone(runs, stage)))
    stage("ranking the members")
    ranking = Ranking(runs, data, alone)
    scored = {}
    for rule, space in _scored_rules(data):
        stage(f"scoring the rule {rule.name}, {space.name}")
        score, hits = _score(runs, ranking, rule, space)
        scored[score] = hits
    rules = tuple(scored)
    default, every = default_score(rules), exported_score(rules, MEAN)
    assert every is not None
    prefixes = scored[default]
    best_hits = _best_member_hits(ranking, alone)
    order = ranking.order(ranking.all_rows)
    chosen = [int(i) for i in np.argsort(-np.array(default.weights), kind="stable") if default.weights[i]]
    best = "best member, by the other half of val" if data.halves else f"best member, {runs[order[0]].name}"
    return EnsembleReport(
        dataset=runs[0].dataset,
        factor=runs[0].geometry.factor,
        samples=alone.shape[1],
        rank_on=data.name,
        rank_samples=len(ranking.all_rows) if data.has_outputs else None,
        members=tuple(
            MemberScore(run.name, run.bands, float(top1), float(top5), run.result.train_top1)
            for run, (top1, top5) in zip(runs, alone.mean(axis=1), strict=True)
        ),
        order=tuple(runs[i].name for i in order),
        missing=tuple(sorted(set(range(runs[0].geometry.factor)) - {band for run in runs for band in run.bands})),
        differing=differing(runs),
        repeated=repeated(runs),
        rules=rules,
        chosen=tuple(
            ChosenMember(runs[i].name, runs[i].bands, default.weights[i] / sum(default.weights)) for i in chosen
        ),
        curve=tuple(Accuracy(float(top1), float(top5)) for top1, top5 in prefixes.mean(axis=1)),
        costs=Costs(
            best=_cost(best, [runs[order[0]]], *best_hits.mean(axis=0)),
            chosen=_cost(
                f"chosen set, {len(chosen)} of {len(runs)} members",
                [runs[i] for i in chosen],
                default.top1,
                default.top5,
            ),
            every=_cost(f"all {len(runs)} members, equal weights", runs, every.top1, every.top5),
            baseline=_baseline(baseline, runs[0]) if baseline else None,
        ),
        classes=_class_gains(runs[0], best_hits[:, 0], prefixes[-1, :, 0]),
    )


def said_classes(runs: list[FinishedRun], report: EnsembleReport) -> NDArray[np.int64]:
    """Return the class that the default rule says for each sample of val: what its accuracy is of. int64 (samples,).

    Args:
        runs: as for `score_ensemble`.
        report: what that returned.
    """
    logits = [run.val.logits for run in runs]
    ranking = Ranking(runs, RANK_ON[report.rank_on], np.stack([run_hits(run, run.val) for run in runs]))
    rule, in_log = RULES[report.default.rule], report.default.space == LOG.name

    def say(chosen: NDArray[np.int64], scored: NDArray[np.int64]) -> NDArray[np.int64]:
        return fused_classes(logits, scored, ranking.weights(rule, chosen), in_log)[None]

    said: NDArray[np.int64] = ranking.score_val(report.samples, say)[0]
    return said


def _each_alone(runs: list[FinishedRun], stage: Callable[[str], object]) -> Iterator[NDArray[np.bool_]]:
    """Yield what each member has right on val: bool (samples, 2)."""
    for number, run in enumerate(runs, 1):
        stage(f"reading what {run.name} says, {number} of {len(runs)}")
        yield run_hits(run, run.val)


def _scored_rules(data: RankingData) -> list[tuple[FusingRule, Space]]:
    """Return the rules that can be scored, in each of their spaces."""
    rules = [rule for rule in RULES.values() if data.has_outputs or not rule.needs_outputs]
    return [(rule, space) for rule in rules for space in rule.spaces]


def _score(
    runs: list[FinishedRun], ranking: Ranking, rule: FusingRule, space: Space
) -> tuple[RuleScore, NDArray[np.bool_]]:
    """Return what a rule gives on val, and what it has right there with its 1, 2, ... members of the largest weights.

    Returns:
        The score, and bool (members that the rule chooses, on the half where it chooses more; samples, 2).
    """
    logits, labels, counts = [run.val.logits for run in runs], runs[0].val.labels, [1]

    def score(chosen: NDArray[np.int64], scored: NDArray[np.int64]) -> NDArray[np.bool_]:
        weights = ranking.weights(rule, chosen)
        counts.append(int(np.count_nonzero(weights)))
        return prefix_hits(logits, labels, scored, weights, space is LOG)

    hits = ranking.score_val(len(labels), score)[: max(counts)]
    top1, top5 = map(float, hits[-1].mean(axis=0))
    weights = tuple(map(float, ranking.weights(rule, ranking.all_rows)))
    return RuleScore(rule.name, space.name, top1, top5, weights), hits


def _best_member_hits(ranking: Ranking, alone: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which samples the member that ranks first has right: bool (samples, 2).

    Args:
        ranking: of the members.
        alone: what every member has right on val: bool (members, samples, 2).
    """

    def hits(chosen: NDArray[np.int64], scored: NDArray[np.int64]) -> NDArray[np.bool_]:
        return alone[ranking.order(chosen)[:1]][:, scored]

    return np.asarray(ranking.score_val(alone.shape[1], hits)[0])


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
        best: which samples the best member has right: bool (samples,).
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
    *folders: str | os.PathLike[str], rank_on: str | None = None, baseline: str | os.PathLike[str] | None = None
) -> EnsembleReport:
    """Fuse the finished runs of a split.

    Args:
        folders: Each a run folder, or a folder of run folders.
        rank_on: As in `score_ensemble`.
        baseline: The run folder of a network that saw the whole images, to compare with.

    Returns:
        What every rule gives; `default` is the rule to use.

    Raises:
        EnsembleError: There are no runs, or they do not belong together.
        TrainError: A run is damaged.
    """
    return score_ensemble(find_runs(*map(Path, folders)), rank_on, Path(baseline) if baseline is not None else None)
