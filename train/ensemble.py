"""Fuse the finished runs of a split's bands, and report what each rule gives."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import fuse
from .errors import EnsembleError
from .runs import LABELS, LOGITS, RUN, Result, read_run

RANK_ON = ("halves", "train", "val")
DEFAULT_RULE = ("geometric", "log")


@dataclass(frozen=True)
class Run:
    """A finished run: its band, its result, and its outputs on val, mapped from disk."""

    path: Path
    band: dict[str, Any]
    result: Result
    logits: NDArray[np.float16]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Rule:
    """What a rule gives: accuracies with all bands, and top-1, top-5 as bands are added, best first."""

    weights: str
    space: str
    top1: float
    top5: float
    curve: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Report:
    """The ensemble of a split. bands: (band, top-1, top-5, train top-1), in band order.

    order: bands, best first, by the ranking data over all samples (for the plot and the table).
    """

    dataset: str
    factor: int
    samples: int
    rank_on: str
    bands: tuple[tuple[int, float, float, float], ...]
    order: tuple[int, ...]
    missing: tuple[int, ...]
    rules: tuple[Rule, ...]
    parameter_bytes: int
    train_seconds: float

    @property
    def default(self) -> Rule:
        """The rule whose accuracy is the ensemble's: geometric weights of log-probabilities."""
        return next(rule for rule in self.rules if (rule.weights, rule.space) == DEFAULT_RULE)

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        return asdict(self)


def find_runs(root: Path) -> list[Run]:
    """The finished runs below `root`, by band. Raises EnsembleError if they do not belong together."""
    if not root.is_dir():
        raise EnsembleError(f"{root} is not a folder: name the folder with the runs of a split's bands")
    runs = sorted((_open(p.parent) for p in root.glob(f"*/{RUN}")), key=lambda run: int(run.band["band"]))
    if not runs:
        raise EnsembleError(f"{root} holds no finished runs: train the bands with spectral-train --shards SPLIT first")
    first = runs[0]
    for run in runs[1:]:
        for name, what in (
            ("order", "sample order"),
            ("geometry", "geometry"),
            ("classes", "number of classes"),
        ):
            if run.band[name] != first.band[name]:
                raise EnsembleError(
                    f"{run.path} and {first.path} differ in their {what}: they come from different splits "
                    "and cannot be fused"
                )
        if run.band["band"] in {other.band["band"] for other in runs if other is not run}:
            raise EnsembleError(f"{root} holds two runs of band {run.band['band']}: keep one")
        if not np.array_equal(run.labels, first.labels):
            raise EnsembleError(f"{run.path} has other labels than {first.path}: one of them is damaged")
    return runs


def ensemble(root: Path, rank_on: str = "halves") -> Report:
    """Score every rule on the runs below `root`. Raises EnsembleError.

    rank_on: what bands are ranked and weights are fitted on. 'halves' scores each half of val with
    choices made on the other; 'train' ranks by training accuracy; 'val' ranks on the very data that is
    scored, which flatters.
    """
    if rank_on not in RANK_ON:
        raise EnsembleError(f"--rank-on {rank_on}: choose {', '.join(RANK_ON)}")
    runs = find_runs(root)
    logits, labels = [run.logits for run in runs], runs[0].labels
    hits = np.stack([fuse.band_hits(run.logits, labels) for run in runs])
    accuracy = hits.mean(axis=1)
    trained = np.array([run.result.train_top1 for run in runs])
    every = np.arange(len(labels))
    if len(labels) < 2 and rank_on == "halves":
        raise EnsembleError(f"{root} was evaluated on one sample, which has no halves: use --rank-on train")

    def ranked(rows: NDArray[np.int64]) -> NDArray[np.int64]:
        by = trained if rank_on == "train" else hits[:, rows, 0].mean(axis=1)
        return np.argsort(-by, kind="stable")

    def curve(kind: str, space: str, chosen_on: NDArray[np.int64], scored: NDArray[np.int64]) -> NDArray[np.int64]:
        order = ranked(chosen_on)
        if kind == "fitted":
            weights = fuse.fit_weights(logits, labels, chosen_on)[order]
        else:
            weights = np.ones(len(runs)) if kind == "mean" else fuse.geometric(len(runs))
        return fuse.prefix_hits(logits, labels, scored, order.tolist(), weights, space)

    rules = []
    for kind in fuse.WEIGHTS:
        for space in fuse.SPACES:
            if kind == "fitted" and (space != "log" or rank_on == "train"):
                continue  # log-linear by definition; and training outputs are not kept
            if rank_on == "halves":
                scores = fuse.cross_scored(len(labels), lambda on, of, k=kind, s=space: curve(k, s, on, of))  # type: ignore[misc]
            else:
                scores = curve(kind, space, every, every) / len(labels)
            steps = tuple((float(a), float(b)) for a, b in scores)
            rules.append(Rule(kind, space, *steps[-1], steps))
    numbers = [int(run.band["band"]) for run in runs]
    factor = int(runs[0].band["geometry"]["factor"])
    return Report(
        dataset=str(runs[0].band["dataset"]),
        factor=factor,
        samples=len(labels),
        rank_on=rank_on,
        bands=tuple(
            (band, float(top1), float(top5), float(train))
            for band, (top1, top5), train in zip(numbers, accuracy, trained, strict=True)
        ),
        order=tuple(numbers[i] for i in ranked(every)),
        missing=tuple(sorted(set(range(factor)) - set(numbers))),
        rules=tuple(rules),
        parameter_bytes=sum(run.result.parameter_bytes for run in runs),
        train_seconds=sum(run.result.seconds for run in runs),
    )


def _open(path: Path) -> Run:
    found = read_run(path)
    result = Result(**found["result"])
    if result.top1 is None:
        raise EnsembleError(f"{path} was trained without a val part: there is nothing to fuse it on")
    try:
        logits = np.load(path / LOGITS, mmap_mode="r", allow_pickle=False)
        labels = np.load(path / LABELS, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise EnsembleError(f"{path} has no readable {LOGITS} and {LABELS} ({error}): train it again") from None
    if logits.ndim != 2 or logits.shape != (len(labels), int(found["band"]["classes"])):
        raise EnsembleError(f"{path}/{LOGITS} has the shape {logits.shape}, not what {RUN} says: train it again")
    return Run(path, found["band"], result, logits, labels)
