"""Finished runs and the outputs they left: what is fused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...shards_manifest.manifest import canonical_json
from ..errors import EnsembleError
from ..runs.predictions import LABELS, LOGITS
from ..runs.run_record import RUN, Result, read_run


@dataclass(frozen=True)
class Outputs:
    """On one part: logits float16 (samples, classes), mapped from disk; labels int64 (samples,)."""

    logits: NDArray[np.float16]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Run:
    """A finished run: its band, options, classes and result, and its outputs on val and on what was held out."""

    path: Path
    band: dict[str, Any]
    options: dict[str, Any]
    classes: tuple[str, ...]
    result: Result
    val: Outputs
    holdout: Outputs | None

    @property
    def number(self) -> int:
        """The band's."""
        return int(self.band["band"])


def find_runs(root: Path) -> list[Run]:
    """The finished runs below `root`, by band. Raises EnsembleError if they do not belong together."""
    if not root.is_dir():
        raise EnsembleError(f"{root} is not a folder: name the folder with the runs of a split's bands")
    runs = sorted((open_run(p.parent) for p in root.glob(f"*/{RUN}")), key=lambda run: run.number)
    if not runs:
        raise EnsembleError(f"{root} holds no finished runs: train the bands with spectral-train --shards SPLIT first")
    first = runs[0]
    for run in runs[1:]:
        check_same(run, first, {"order": "sample order", "geometry": "geometry", "classes": "number of classes"})
        if run.number in {other.number for other in runs if other is not run}:
            raise EnsembleError(f"{root} holds two runs of band {run.number}: keep one")
    return runs


def check_same(run: Run, other: Run, names: Mapping[str, str]) -> None:
    """Raise EnsembleError unless two runs have the same images and labels; names: what else, of their bands."""
    for name, what in names.items():
        if run.band[name] != other.band[name]:
            raise EnsembleError(
                f"{run.path} and {other.path} differ in their {what}: they come from different splits "
                "and cannot be fused"
            )
    if not np.array_equal(run.val.labels, other.val.labels):
        raise EnsembleError(f"{run.path} has other labels than {other.path}: one of them is damaged")


def open_baseline(path: Path) -> Run:
    """The run of whole images: of their one band, or the folder that holds it. Raises EnsembleError, TrainError."""
    inside = list(path.glob(f"*/{RUN}"))
    return open_run(inside[0].parent if len(inside) == 1 and not (path / RUN).exists() else path)


def open_run(path: Path) -> Run:
    """A finished run with its outputs. Raises EnsembleError, TrainError."""
    found = read_run(path)
    result = found.result
    band, options = (json.loads(canonical_json(each)) for each in (found.identity.band, found.identity.options))
    if result.top1 is None:
        raise EnsembleError(f"{path} was trained without a val part: there is nothing to fuse it on")
    classes = found.identity.band.classes
    there = (path / LOGITS.format("holdout")).exists()  # not where a shard was lost
    held = _outputs(path, "holdout", classes) if there else None
    val = _outputs(path, "val", classes)
    return Run(path, band, options, found.classes, result, val, held)


def _outputs(path: Path, part: str, classes: int) -> Outputs:
    names = LOGITS.format(part), LABELS.format(part)
    try:
        logits = np.load(path / names[0], mmap_mode="r", allow_pickle=False)
        labels = np.load(path / names[1], allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise EnsembleError(
            f"{path} has no readable {names[0]} and {names[1]} ({error}): train it again, with --no-resume"
        ) from None
    if logits.ndim != 2 or logits.shape != (len(labels), classes):
        raise EnsembleError(f"{path}/{names[0]} has the shape {logits.shape}, not what {RUN} says: train it again")
    return Outputs(logits, labels)
