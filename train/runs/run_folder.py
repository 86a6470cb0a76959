"""Run folders: what a finished run leaves behind, and how a rerun recognises it.

recipe.toml       the recipe as it was resolved
metrics.jsonl     one line an epoch
steps.jsonl       the training loss between, one line for some steps
events.out...     the same for TensorBoard, if it was asked for
checkpoint.pt     the network with its configuration and all that is needed to go on
best.pt           the same after the epoch that was best on what is held out, or on val
val-logits.npy    float16 (samples, classes), in stored order; val-labels.npy int64 (samples,)
holdout-logits.npy   the same of what is held out of train, with holdout-labels.npy
error.log         what a run ended with that no sentence was foreseen for
again              which command it was begun again by, with --no-resume
run.json          written last: the band, the options, the result
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...shards_manifest.manifest import BandManifest, canonical_json
from ...shards_manifest.storage.local import LocalStore
from ...shards_manifest.storage.address import is_url, shown, url_names
from ...shards_manifest.storage.base import TEMPORARY

from . import checkpoint, tensorboard as events
from .. import recipes
from ..errors import TrainError
from ..config import TrainPlan
from .predictions import Column

FORMAT = "spectral-run"
VERSION = 2
RUN = "run.json"
METRICS = "metrics.jsonl"
STEPS = "steps.jsonl"
CHECKPOINT = "checkpoint.pt"
BEST = "best.pt"
RECIPE = "recipe.toml"
ERROR = "error.log"
RESTART = "restart"
EVENTS = "events.out.tfevents.*"
LOGITS = "{}-logits.npy"
LABELS = "{}-labels.npy"
OUTPUTS = ("val", "holdout")
ON = "which goes on from the last checkpoint"  # what the same command does after an error
LAST = 5.0  # seconds that workers of a killed run get to end


@dataclass(frozen=True)
class Result:
    """How a run ended. Accuracies are fractions; None where the band has no val part, or nothing was held out.

    best_epoch: counted from 1, of best.pt.  seconds: of all epochs with their evaluations.  parameter_bytes: of the
    float32 parameters.  multiply_adds: of one image's forward pass.
    """

    top1: float | None
    top5: float | None
    loss: float | None
    holdout_top1: float | None
    train_top1: float
    best_epoch: int | None
    seconds: float
    parameter_bytes: int
    multiply_adds: int


def run_path(shards: str | os.PathLike[str], root: str = "runs") -> Path:
    """Where the run of a band goes by default: runs/sub36/07 for .../sub36/07, runs/sub36/07 for s3://sub36/07."""
    return Path(root, *_last_folders(shards, 2))


def split_runs_path(shards: str | os.PathLike[str], root: str = "runs") -> Path:
    """Where the runs of a split's bands go by default: runs/sub36 for .../sub36."""
    return Path(root, *_last_folders(shards, 1))


def _last_folders(path: str | os.PathLike[str], count: int) -> list[str]:
    if is_url(path):  # a bucket is no folder, but names a split that fills it
        return url_names(os.fspath(path))[-count:]
    return list(Path(path).resolve().parts[1:][-count:])


def local_folder(path: str | os.PathLike[str]) -> Path:
    """A folder for runs. Raises TrainError for a URL: lines are appended to files in it."""
    if is_url(path):
        raise TrainError(f"{shown(path)}: runs are kept in local folders: choose one, and copy it when it is done")
    return Path(path)


class RunFolder:
    """One run on disk. again: the command that trains it would not go on, but begin again.

    Raises StoreError where the disk is full or refuses: the last checkpoint stays as it is.
    """

    def __init__(self, path: str | os.PathLike[str], restart: bool = False) -> None:
        self.path = Path(path)
        self.store = LocalStore(path, f"without --no-resume, {ON}" if restart else ON)
        self._events: events.Events | None = None

    @contextmanager
    def owning(self) -> Iterator[None]:
        """Be the only process that writes here; workers of a killed one are waited for. Raises TrainError."""
        try:
            with self.store.locked("", exclusive=True, patience=LAST):
                yield
        except BlockingIOError:
            raise TrainError(
                f"{self.path} is being trained by another process: wait, or choose another --out"
            ) from None
        except OSError as error:
            if self.path.is_dir():
                raise
            raise TrainError(f"cannot write to {self.path}: {error.strerror}") from None

    def finished(self, manifest: BandManifest, plan: TrainPlan) -> Result | None:
        """The result if this very run is finished here; None if it has to be done.

        Raises TrainError if the folder holds the finished run of other data or other options.
        """
        if self.forgotten(plan) or not self.store.exists(RUN):
            return None
        found = read_run(self.path)
        self._check(found, manifest, plan, "a finished run")
        return Result(**found["result"])

    def unfinished(self, manifest: BandManifest, plan: TrainPlan) -> dict[str, Any] | None:
        """The checkpoint to go on from; None for a new run.

        Raises TrainError for a damaged one, and one of a run with other data or other options.
        """
        if self.forgotten(plan) or not self.store.exists(CHECKPOINT):
            return None
        found = checkpoint.load(self.store.path(CHECKPOINT))
        self._check(found["identity"], manifest, plan, "an unfinished run")
        return found

    def forgotten(self, plan: TrainPlan) -> bool:
        """Whether what is here is not to count: the plan is to begin again, and has not done so yet.

        A cluster may give a band to a second worker, which has to go on with what the first one began.
        """
        return bool(plan.restart) and (not self.store.exists(RESTART) or self.store.read(RESTART) != plan.restart.encode())

    def begin(self, samples: int, epochs: int, plan: TrainPlan) -> None:
        """Make the folder ready to go on after so many samples and whole epochs; what was written later is removed.

        All of it where it is `forgotten`.
        """
        if plan.tensorboard:
            events.check()
        if self.forgotten(plan):
            for name in (RUN, CHECKPOINT, BEST):
                self.store.remove(name)
            for path in self.path.glob(EVENTS):
                path.unlink()
            self.store.write(RESTART, plan.restart.encode())
        if plan.tensorboard:
            with self._refusing(EVENTS):
                self._events = events.Events(self.path, samples)
        self.store.remove(ERROR)
        for path in self.path.glob(f"*{TEMPORARY}"):  # of a run that was killed
            path.unlink()
        self.store.write(RECIPE, recipes.dump(plan.recipe).encode())
        for part in OUTPUTS:
            self.forget_outputs(part)
        for name in (METRICS, STEPS):
            lines = self.store.read(name).splitlines(keepends=True) if self.store.exists(name) else []
            self.store.write(name, b"".join(line for line in lines if _counts(line, samples, epochs)))

    def save(self, content: bytes, best: bool = False) -> None:
        """Write the checkpoint, whole or not at all. best: and keep it as that of the best epoch so far."""
        if best:
            self.store.write(BEST, content)
        self.store.write(CHECKPOINT, content)

    def log(self, values: dict[str, Any], name: str = METRICS) -> None:
        """Append one line to metrics.jsonl or steps.jsonl; `values` has the samples of the run so far."""
        with self._refusing(name), self.store.path(name).open("a") as file:
            file.write(json.dumps(values, sort_keys=True) + "\n")
        if self._events is not None:
            with self._refusing(EVENTS):
                self._events.add(values)

    @contextmanager
    def _refusing(self, name: str) -> Iterator[None]:
        """Turn the system's refusal of a write to a file that is appended to into a sentence."""
        try:
            yield
        except OSError as error:
            raise self.store.refused(error, name) from error

    @contextmanager
    def recording(self, part: str, samples: int, classes: int) -> Iterator[tuple[Column, Column]]:
        """Files for the outputs on val, or on what is held out, and the labels: there at the end of the block."""
        with self.store.writing([LOGITS.format(part), LABELS.format(part)]) as (logits, labels):
            yield Column.begun(logits, "<f2", (samples, classes)), Column.begun(labels, "<i8", (samples,))

    def forget_outputs(self, part: str) -> None:
        """Remove what was recorded of a part."""
        self.store.remove(LOGITS.format(part))
        self.store.remove(LABELS.format(part))

    def finish(self, manifest: BandManifest, plan: TrainPlan, result: Result) -> None:
        """Write run.json: from now on the run is finished."""
        self.store.write(
            RUN, canonical_json({**identity(manifest, plan), "classes": manifest.classes, "result": asdict(result)})
        )

    def _check(self, found: dict[str, Any], manifest: BandManifest, plan: TrainPlan, what: str) -> None:
        wanted = identity(manifest, plan)
        if plan.precision == "auto":  # whatever that was where the run was begun
            del wanted["options"]["precision"]
        for section in ("band", "options"):
            values = json.loads(canonical_json(wanted[section])).items()
            for key, value in sorted(values, key=lambda item: item[0] == "data"):  # last: it changes with the others
                there = found[section].get(key)
                if there == value:
                    continue
                raise TrainError(
                    f"{self.path} holds {what} of another kind ({_difference(key, there, value)}): "
                    "choose another --out, or delete it"
                )


def read_run(path: Path) -> dict[str, Any]:
    """The content of a finished run's run.json. Raises TrainError."""
    where = path / RUN
    try:
        found: dict[str, Any] = json.loads(where.read_bytes())
        if found["format"] != FORMAT or found["version"] != VERSION:
            raise TrainError(f"{where} is not a run of a version that this release knows")
        Result(**found["result"])
    except FileNotFoundError:
        raise TrainError(f"{where} does not exist: the run is not finished") from None
    except (ValueError, KeyError, TypeError) as error:
        raise TrainError(f"{where} is damaged ({error})") from None
    return found


def _counts(line: bytes, samples: int, epochs: int) -> bool:
    """Whether a line of metrics or steps is of the run so far; half a line, as a killed process may leave, is not."""
    try:
        found = json.loads(line)
        return bool(0 < found["samples"] <= samples and found.get("epoch", 0) <= epochs)
    except (ValueError, KeyError, TypeError, AttributeError):
        return False


def identity(manifest: BandManifest, plan: TrainPlan) -> dict[str, Any]:
    """What a run is known by: the data and the options that change its result, as JSON values."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "band": {
            "dataset": manifest.dataset,
            "geometry": asdict(manifest.geometry),
            "band": manifest.band,
            "frequency": manifest.frequency,
            "classes": len(manifest.classes),
            "order": {name: part.digest for name, part in manifest.parts.items()},
            "data": _data_digest(manifest),
        },
        "options": plan.result_options(),
    }


def _data_digest(manifest: BandManifest) -> str:
    """SHA-256 over the shards' own: changes with any stored byte."""
    hashes = [shard.sha256 for _, part in sorted(manifest.parts.items()) for shard in part.shards]
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def _difference(key: str, there: Any, here: Any) -> str:
    """In what two identities differ that have other values under `key`."""
    if key == "data":
        return "data that has changed: the shards hold other bytes"
    if key == "order":
        return "other samples, or the same in another order"
    if isinstance(here, dict):
        inner = there if isinstance(there, dict) else {}
        name = next((name for name, value in here.items() if inner.get(name) != value), "")
        there, here, key = inner.get(name), here.get(name), f"{key} {name}".strip()
    return f"{key.replace('_', '-')} {there} there, {here} here"
