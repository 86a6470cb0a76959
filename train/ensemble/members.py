"""Finished runs and the outputs in their folders: the members of an ensemble."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...shards_manifest.manifest import Geometry
from ..config import RunOptions
from ..errors import EnsembleError
from ..runs.predictions import LABELS, LOGITS
from ..runs.run_folder import RECIPE
from ..runs.run_record import RUN, Result, read_run


@dataclass(frozen=True)
class Outputs:
    """The outputs of a network on one part, in stored order.

    Attributes:
        logits: float16 (samples, classes), mapped from disk.
        labels: int64 (samples,).
    """

    logits: NDArray[np.float16]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class FinishedRun:
    """A finished run: a network that reads one band or several.

    Attributes:
        path: its folder.
        name: the folder's name, by which reports call the run.
        bands: numbers of the bands that it reads.
        dataset: name of the data set.
        geometry: how images became planes, as in the manifest.
        sample_order: digest of the sample order of each part.
        data_digest: of all bytes of its bands.
        classes: names.
        options: the options that change the result.
        result: its accuracies and costs.
        val: outputs on val.
        holdout: outputs on the samples of train that were not trained on; None if there are none.
    """

    path: Path
    name: str
    bands: tuple[int, ...]
    dataset: str
    geometry: Geometry
    sample_order: Mapping[str, str]
    data_digest: str
    classes: tuple[str, ...]
    options: RunOptions
    result: Result
    val: Outputs
    holdout: Outputs | None

    @property
    def class_count(self) -> int:
        """How many classes there are."""
        return len(self.classes)


def find_runs(*folders: Path) -> list[FinishedRun]:
    """Return finished runs, by their bands and then by name.

    Args:
        folders: each a run, or a folder of runs.

    Raises:
        EnsembleError: if there are none, or they do not belong together.
    """
    found = [path.resolve() for folder in folders for path in _run_folders(folder)]
    if twice := [path for path in found if found.count(path) > 1]:
        raise EnsembleError(f"{twice[0]} is named twice: name each run once")
    names = _names(found)
    opened = (replace(open_run(path), name=name) for path, name in zip(found, names, strict=True))
    runs = sorted(opened, key=lambda run: (run.bands, run.name))
    first = runs[0]
    for run in runs[1:]:
        check_same(
            run,
            first,
            {"sample_order": "sample order", "geometry": "geometry", "class_count": "number of classes"},
        )
    return runs


def _run_folders(folder: Path) -> list[Path]:
    """Return the folder itself if it is a finished run, else the finished runs in it. Raises EnsembleError."""
    if not folder.is_dir():
        raise EnsembleError(f"{folder} is not a folder: name the folder with the runs of a split's bands")
    if (folder / RUN).exists():
        return [folder]
    inside = sorted(path.parent for path in folder.glob(f"*/{RUN}"))
    if not inside:
        raise EnsembleError(f"{folder} holds no finished runs: train networks with spectral train --shards SPLIT first")
    return inside


def unfinished_runs(*folders: Path) -> list[str]:
    """Return the names of the runs that were begun in some folders of runs, and are not finished."""
    return [
        path.parent.name
        for folder in folders
        if not (folder / RUN).exists()
        for path in sorted(folder.glob(f"*/{RECIPE}"))
        if not (path.parent / RUN).exists()
    ]


def _names(paths: Sequence[Path]) -> list[str]:
    """Return the names of folders, with as many of the folders that they are in as make them differ."""
    for depth in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            break
    return names


def check_same(run: FinishedRun, other: FinishedRun, attributes: Mapping[str, str]) -> None:
    """Check that two runs were evaluated on the same images and labels.

    Args:
        run: the first one.
        other: the other one.
        attributes: what else must be the same: attributes of a run, with their names in words.

    Raises:
        EnsembleError: if they differ.
    """
    for name, what in attributes.items():
        if getattr(run, name) != getattr(other, name):
            raise EnsembleError(
                f"{run.path} and {other.path} differ in their {what}: they come from different splits "
                "and cannot be fused"
            )
    if not np.array_equal(run.val.labels, other.val.labels):
        raise EnsembleError(f"{run.path} has other labels than {other.path}: one of them is damaged")


def open_baseline(path: Path) -> FinishedRun:
    """Open the run of whole images, from its folder or from the folder that has it alone.

    Raises:
        EnsembleError: as `open_run` does.
        TrainError: as `open_run` does.
    """
    inside = list(path.glob(f"*/{RUN}"))
    return open_run(inside[0].parent if len(inside) == 1 and not (path / RUN).exists() else path)


def open_run(path: Path) -> FinishedRun:
    """Open a finished run with its outputs.

    Raises:
        EnsembleError: if it was not evaluated, or its outputs cannot be read.
        TrainError: if it is not finished, or damaged.
    """
    record = read_run(path)
    data, result, classes = record.identity.data, record.result, record.classes
    if result.top1 is None:
        raise EnsembleError(f"{path} was trained without a val part: there is nothing to fuse it on")
    has_holdout = (path / LOGITS.format("holdout")).exists()  # it has none if a shard was lost
    return FinishedRun(
        path=path,
        name=path.resolve().name,
        bands=data.bands,
        dataset=data.dataset,
        geometry=data.geometry,
        sample_order=data.order,
        data_digest=data.sha256,
        classes=classes,
        options=record.identity.options,
        result=result,
        val=_outputs(path, "val", len(classes)),
        holdout=_outputs(path, "holdout", len(classes)) if has_holdout else None,
    )


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


def differing(runs: Sequence[FinishedRun]) -> tuple[str, ...]:
    """Return the options that are not the same in all runs.

    The precision depends on the machine, and members of the same bands differ in the seed: both are left out.
    """
    each = [{**vars(run.options), **vars(run.options.recipe)} for run in runs]
    names = set(each[0]) - {"recipe", "precision", "seed"}
    return tuple(sorted(name for name in names if any(other.get(name) != each[0][name] for other in each)))


def repeated(runs: Sequence[FinishedRun]) -> dict[str, str]:
    """Return the names of the runs of a network that another run has trained, with the name of the first of them."""
    first: dict[tuple[object, ...], str] = {}
    found = {}
    for run in runs:
        same = first.setdefault((run.data_digest, run.bands, run.options), run.name)
        if same != run.name:
            found[run.name] = same
    return found
