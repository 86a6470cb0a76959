"""Fuse the finished runs of a split's bands, and report what each rule gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import EnsembleError
from . import rules as fuse
from .members import Outputs, Run, check_same, open_baseline

RANK_ON = ("holdout", "halves", "train", "val")
DEFAULT_RULE = ("fitted", "log")  # the best on two data sets: docs/results.md, Training and fusing
NOTHING_TO_FIT_ON = ("geometric", "log")  # when bands are ranked by their training accuracy


@dataclass(frozen=True)
class Rule:
    """What a rule gives: accuracies with all bands, and top-1, top-5 as bands are added, best first.

    shares: what each band, in band order, is weighted by when all that bands are ranked on is used at once.
    """

    weights: str
    space: str
    top1: float
    top5: float
    curve: tuple[tuple[float, float], ...]
    shares: tuple[float, ...]


@dataclass(frozen=True)
class Cost:
    """What a model costs and gives. seconds: of training, all bands after one another."""

    name: str
    top1: float
    top5: float
    parameter_bytes: int
    multiply_adds: int
    seconds: float


@dataclass(frozen=True)
class ClassGain:
    """Top-1 within one class: of the best band alone, and of the default rule."""

    name: str
    samples: int
    best: float
    fused: float


@dataclass(frozen=True)
class EnsembleReport:
    """The ensemble of a split. bands: (band, top-1, top-5, train top-1), in band order.

    order: bands, best first, by all of the ranking data.  differing: the options that are not the same for all.  costs:
    the baseline's if there is one, the best band's, the ensemble's.
    """

    dataset: str
    factor: int
    samples: int
    rank_on: str
    bands: tuple[tuple[int, float, float, float], ...]
    order: tuple[int, ...]
    missing: tuple[int, ...]
    differing: tuple[str, ...]
    rules: tuple[Rule, ...]
    costs: tuple[Cost, ...]
    classes: tuple[ClassGain, ...]

    @property
    def default(self) -> Rule:
        """The rule whose accuracy is the ensemble's."""
        return _default(self.rules)

    @property
    def best(self) -> tuple[int, float]:
        """The band that ranks first, and top-1 on val of what ranks first: not of the highest, which would flatter.

        Of halves of val, each is answered by the band that ranks first on the other.
        """
        return self.order[0], self.costs[-2].top1

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        return asdict(self)


def _default(rules: Sequence[Rule]) -> Rule:
    found = {(rule.weights, rule.space): rule for rule in rules}
    return found.get(DEFAULT_RULE) or found[NOTHING_TO_FIT_ON]


class Choice:
    """How bands are ranked and weighted: from what is held out, from rows of val, or from training accuracies."""

    def __init__(self, runs: list[Run], rank_on: str, alone: NDArray[np.bool_]) -> None:
        """alone: what every band has right on val, bool (bands, samples, 2)."""
        self.parts = [run.holdout or run.val if rank_on == "holdout" else run.val for run in runs]
        self._trained = np.array([run.result.train_top1 for run in runs]) if rank_on == "train" else None
        self.rank_on = rank_on
        if rank_on == "holdout":
            alone = np.stack([_hits(run, part) for run, part in zip(runs, self.parts, strict=True)])
        self._hits = alone[:, :, 0]

    @property
    def every(self) -> NDArray[np.int64]:
        """All rows of the data that is chosen on."""
        return np.arange(self._hits.shape[1])

    def order(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Places of the bands, best first."""
        by = self._hits[:, rows].mean(axis=1) if self._trained is None else self._trained
        return np.argsort(-by, kind="stable")

    def weights(self, kind: str, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """One a band, best first."""
        if kind == "fitted":
            found = fuse.fit_weights([part.logits for part in self.parts], self.parts[0].labels, rows)
            return found[self.order(rows)]
        count = len(self.parts)
        return np.full(count, 1 / count) if kind == "mean" else fuse.geometric(count)

    def shares(self, kind: str) -> tuple[float, ...]:
        """One a band, in band order, from everything."""
        found = np.empty(len(self.parts))
        found[self.order(self.every)] = self.weights(kind, self.every)
        return tuple(map(float, found))


def ensemble(runs: list[Run], rank_on: str = "", baseline: Path | None = None) -> EnsembleReport:
    """Score every rule on runs that belong together, as of `find_runs`. Raises EnsembleError.

    rank_on: what bands are ranked and weights are fitted on. 'holdout' takes what was held out of train, and is the
    default where every run has that. 'halves', the default elsewhere, scores each half of val with choices made on
    the other; 'train' ranks by training accuracy; 'val' ranks on the very data that is scored, which flatters.
    baseline: the run of a network that saw the whole images, or its folder, for comparison.
    """
    rank_on = rank_on or ("holdout" if all(run.holdout for run in runs) else "halves")
    _check(runs, rank_on)
    alone = np.stack([_hits(run, run.val) for run in runs])
    choice = Choice(runs, rank_on, alone)
    rules, fused = _rules(runs, choice)
    accuracy = alone.mean(axis=1)
    first = _first(choice, alone)
    order = choice.order(choice.every)
    best = int(order[0])
    factor = int(runs[0].band["geometry"]["factor"])
    default = _default(rules)
    name = "best band of the other half" if rank_on == "halves" else f"band {runs[best].number}"
    single = _cost(name, [runs[best]], *first.mean(axis=0))
    whole = _cost(f"{len(runs)} bands fused", runs, default.top1, default.top5)
    return EnsembleReport(
        dataset=str(runs[0].band["dataset"]),
        factor=factor,
        samples=alone.shape[1],
        rank_on=rank_on,
        bands=tuple(
            (run.number, float(top1), float(top5), run.result.train_top1)
            for run, (top1, top5) in zip(runs, accuracy, strict=True)
        ),
        order=tuple(runs[i].number for i in order),
        missing=tuple(sorted(set(range(factor)) - {run.number for run in runs})),
        differing=_differing(runs),
        rules=tuple(rules),
        costs=(*_baseline(baseline, runs[0]), single, whole),
        classes=_class_gains(runs[0], first[:, 0], fused),
    )


def _differing(runs: list[Run]) -> tuple[str, ...]:
    """The options that are not the same in all runs, but for the precision, which is a machine's."""
    each = [{**run.options, **run.options["recipe"]} for run in runs]
    names = set(each[0]) - {"recipe", "precision"}
    return tuple(sorted(name for name in names if any(other.get(name) != each[0][name] for other in each)))


def _hits(run: Run, part: Outputs) -> NDArray[np.bool_]:
    """Of a run alone: bool (samples, 2), top-1 and top-5. Raises EnsembleError."""
    try:
        return fuse.band_hits(part.logits, part.labels)
    except ValueError as error:
        raise EnsembleError(f"{run.path} holds {error}: train it again, with --no-resume") from None


def _first(choice: Choice, alone: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which samples the band has right that ranks first: bool (samples, 2). alone: of every band."""

    def hits(chosen: NDArray[np.int64], scored: NDArray[np.int64]) -> NDArray[np.bool_]:
        return alone[choice.order(chosen)[:1]][:, scored]

    samples = alone.shape[1]
    found = fuse.cross_hits(samples, hits) if choice.rank_on == "halves" else hits(choice.every, np.arange(samples))
    return np.asarray(found[0])


def _rules(runs: list[Run], choice: Choice) -> tuple[list[Rule], NDArray[np.bool_]]:
    """What every rule gives on val; of the default one, which samples it has right: bool (samples,)."""
    logits, labels = [run.val.logits for run in runs], runs[0].val.labels

    def hits(kind: str, space: str, chosen: NDArray[np.int64], scored: NDArray[np.int64]) -> NDArray[np.bool_]:
        order, weights = choice.order(chosen), choice.weights(kind, chosen)
        return fuse.prefix_hits(logits, labels, scored, order.tolist(), weights, space)

    rules, right = [], {}
    for kind in fuse.WEIGHTS:
        for space in fuse.SPACES:
            if kind == "fitted" and (space != "log" or choice.rank_on == "train"):
                continue  # log-linear by definition; and training outputs are not kept
            score = partial(hits, kind, space)
            if choice.rank_on == "halves":
                found = fuse.cross_hits(len(labels), score)
            else:
                found = score(choice.every, np.arange(len(labels)))
            steps = tuple((float(a), float(b)) for a, b in found.mean(axis=1))
            rules.append(Rule(kind, space, *steps[-1], steps, choice.shares(kind)))
            right[rules[-1]] = found[-1, :, 0]
    return rules, right[_default(rules)]


def _check(runs: list[Run], rank_on: str) -> None:
    if rank_on not in RANK_ON:
        raise EnsembleError(f"--rank-on {rank_on}: choose {', '.join(RANK_ON)}")
    if rank_on == "halves" and len(runs[0].val.labels) < 2:
        raise EnsembleError(f"{runs[0].path} was evaluated on one sample, which has no halves: use --rank-on train")
    if rank_on != "holdout":
        return
    first = runs[0]
    for run in runs:
        if run.holdout is None:
            raise EnsembleError(
                f"{run.path} held nothing out of train: use --rank-on halves, or train with --holdout-samples"
            )
        if first.holdout is None or not np.array_equal(run.holdout.labels, first.holdout.labels):
            raise EnsembleError(f"{run.path} held out other samples than {first.path}: use --rank-on halves")


def _cost(name: str, runs: list[Run], top1: float, top5: float) -> Cost:
    results = [run.result for run in runs]
    size, adds = (sum(getattr(each, field) for each in results) for field in ("parameter_bytes", "multiply_adds"))
    return Cost(name, float(top1), float(top5), size, adds, sum(each.seconds for each in results))


def _baseline(path: Path | None, like: Run) -> tuple[Cost, ...]:
    if path is None:
        return ()
    run = open_baseline(path)
    if run.band["order"].get("val") != like.band["order"].get("val"):
        raise EnsembleError(f"--baseline {path} was evaluated on other images than {like.path}: split both alike")
    check_same(run, like, {})
    assert run.result.top1 is not None
    assert run.result.top5 is not None
    return (_cost("baseline", [run], run.result.top1, run.result.top5),)


def _class_gains(run: Run, best: NDArray[np.bool_], fused: NDArray[np.bool_]) -> tuple[ClassGain, ...]:
    """For every class that has samples. best, fused: bool (samples,), whether the one and the other is right."""
    labels, classes = run.val.labels, int(run.band["classes"])
    counts = np.bincount(labels, minlength=classes)
    right = [np.bincount(labels, each, classes) for each in (best, fused)]
    return tuple(
        ClassGain(run.classes[i], int(counts[i]), float(right[0][i] / counts[i]), float(right[1][i] / counts[i]))
        for i in np.flatnonzero(counts)
    )
