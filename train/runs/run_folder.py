"""Run folders: what a run leaves behind, and how a rerun recognises it.

recipe.toml            the recipe as it was resolved
metrics.jsonl          one line an epoch
steps.jsonl            the training loss between, one line for some steps
events.out...          the same for TensorBoard, if it was asked for
checkpoint.pt          the network with its configuration and all that is needed to go on
best.pt                the same after the epoch that was best on the holdout, or on val
val-logits.npy         float16 (samples, classes), in stored order; val-labels.npy int64 (samples,)
holdout-logits.npy     the same of the holdout, with holdout-labels.npy
error.log              the traceback of an error that no sentence was foreseen for
restart                which command with --no-resume the run was started by
run.json               written last: the bands, the options, the result
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ...shards_manifest.manifest import BandManifest
from ...shards_manifest.storage.address import is_url, shown, url_names
from ...shards_manifest.storage.base import TEMPORARY
from ...shards_manifest.storage.local import LocalStore
from .. import recipes
from ..config import TrainPlan
from ..errors import TrainError
from . import checkpoint, metrics_log, tensorboard
from .checkpoint import Checkpoint
from .metrics_log import METRICS, STEPS, EpochLine, StepLine
from .predictions import LABELS, LOGITS, PredictionFile
from .run_record import RUN, Result, RunIdentity, RunRecord, read_run

CHECKPOINT = "checkpoint.pt"
BEST = "best.pt"
RECIPE = "recipe.toml"
ERROR = "error.log"
RESTART = "restart"
EVENTS = "events.out.tfevents.*"
PREDICTED = ("val", "holdout")
GOES_ON = "which goes on from the last checkpoint"  # what the same command does after an error
PATIENCE = 5.0  # seconds that workers of a killed run get to end


def run_path(shards: str | os.PathLike[str], root: str = "runs") -> Path:
    """Return where the run of a band goes by default: runs/sub36/07 for .../sub36/07, runs/sub36/07 for s3://sub36/07."""
    return Path(root, *_last_folders(shards, 2))


def split_runs_path(shards: str | os.PathLike[str], root: str = "runs") -> Path:
    """Return where the runs of a split's bands go by default: runs/sub36 for .../sub36."""
    return Path(root, *_last_folders(shards, 1))


def _last_folders(path: str | os.PathLike[str], count: int) -> list[str]:
    if is_url(path):  # a bucket is no folder, but names a split that fills it
        return url_names(os.fspath(path))[-count:]
    return list(Path(path).resolve().parts[1:][-count:])


def local_folder(path: str | os.PathLike[str]) -> Path:
    """Return a folder for runs. Raises TrainError for a URL: lines are appended to files in it."""
    if is_url(path):
        raise TrainError(f"{shown(path)}: runs are kept in local folders: choose one, and copy it when it is done")
    return Path(path)


class RunFolder:
    """One run on disk.

    Args:
        path: The folder.
        restart: Whether the command would start again instead of going on; errors say so.

    Raises:
        StoreError: From every method that writes, where the disk is full or refuses. The last checkpoint stays.
    """

    def __init__(self, path: str | os.PathLike[str], restart: bool = False) -> None:
        self.path = Path(path)
        self.store = LocalStore(path, f"without --no-resume, {GOES_ON}" if restart else GOES_ON)
        self._events: tensorboard.EventFile | None = None

    @contextmanager
    def owning(self) -> Iterator[None]:
        """Be the only process that writes here. Workers of a killed one get some seconds to end. Raises TrainError."""
        try:
            with self.store.locked("", exclusive=True, patience=PATIENCE):
                yield
        except BlockingIOError:
            raise TrainError(
                f"{self.path} is being trained by another process: wait, or choose another --out"
            ) from None
        except OSError as error:
            if self.path.is_dir():
                raise
            raise TrainError(f"cannot write to {self.path}: {error.strerror}") from None

    def finished(self, bands: Sequence[BandManifest], plan: TrainPlan) -> Result | None:
        """Return the result if this very run is finished here; None if it has to be done.

        Raises:
            TrainError: The folder has a finished run of other data or other options.
        """
        if self.starts_again(plan) or not self.store.exists(RUN):
            return None
        found = read_run(self.path)
        self._check(found.identity, bands, plan, "a finished run")
        return found.result

    def unfinished(self, bands: Sequence[BandManifest], plan: TrainPlan) -> Checkpoint | None:
        """Return the checkpoint to go on from; None for a new run.

        Raises:
            TrainError: It is damaged, or of a run with other data or other options.
        """
        if self.starts_again(plan) or not self.store.exists(CHECKPOINT):
            return None
        found = checkpoint.load_checkpoint(self.store.path(CHECKPOINT))
        self._check(found.identity, bands, plan, "an unfinished run")
        return found

    def starts_again(self, plan: TrainPlan) -> bool:
        """Return whether what is here does not count: the plan is to start again, and has not done so yet.

        A cluster may give a band to a second worker, which has to go on with what the first one began.
        """
        return bool(plan.restart) and (
            not self.store.exists(RESTART) or self.store.read(RESTART) != plan.restart.encode()
        )

    def begin(self, samples: int, epochs: int, plan: TrainPlan) -> None:
        """Make the folder ready to go on after so many samples and whole epochs.

        What was written later is removed; all of it where the run starts again.
        """
        if plan.tensorboard:
            tensorboard.check()
        if self.starts_again(plan):
            for name in (RUN, CHECKPOINT, BEST):
                self.store.remove(name)
            for path in self.path.glob(EVENTS):
                path.unlink()
            self.store.write(RESTART, plan.restart.encode())
        if plan.tensorboard:
            with self._refusing(EVENTS):
                self._events = tensorboard.EventFile(self.path, samples)
        self.store.remove(ERROR)
        for path in self.path.glob(f"*{TEMPORARY}"):  # of a run that was killed
            path.unlink()
        self.store.write(RECIPE, recipes.dump(plan.recipe).encode())
        for part in PREDICTED:
            self.forget_predictions(part)
        for name in (METRICS, STEPS):
            metrics_log.prune(self.store, name, samples, epochs)

    def save(self, content: Checkpoint, best: bool = False) -> None:
        """Write the checkpoint, whole or not at all; with `best` keep it as that of the best epoch so far, too."""
        data = content.to_bytes()
        if best:
            self.store.write(BEST, data)
        self.store.write(CHECKPOINT, data)

    def log(self, line: EpochLine | StepLine) -> None:
        """Append a line to metrics.jsonl or steps.jsonl, and to TensorBoard's file."""
        name, values = METRICS if isinstance(line, EpochLine) else STEPS, line.to_json()
        with self._refusing(name):
            metrics_log.append(self.store, name, values)
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
    def predictions(self, part: str, samples: int, classes: int) -> Iterator[tuple[PredictionFile, PredictionFile]]:
        """Open files for the logits and the labels of a part. They are there at the end of the block."""
        with self.store.writing([LOGITS.format(part), LABELS.format(part)]) as (logits, labels):
            yield (
                PredictionFile.create(logits, "<f2", (samples, classes)),
                PredictionFile.create(labels, "<i8", (samples,)),
            )

    def forget_predictions(self, part: str) -> None:
        """Remove the logits and labels of a part."""
        self.store.remove(LOGITS.format(part))
        self.store.remove(LABELS.format(part))

    def finish(self, bands: Sequence[BandManifest], plan: TrainPlan, result: Result) -> None:
        """Write run.json: from now on the run is finished."""
        record = RunRecord(RunIdentity.of(bands, plan), bands[0].classes, result)
        self.store.write(RUN, record.to_bytes())

    def _check(self, found: RunIdentity, bands: Sequence[BandManifest], plan: TrainPlan, what: str) -> None:
        # with auto it is whatever it was where the run was started
        difference = found.difference(RunIdentity.of(bands, plan), any_precision=plan.precision == "auto")
        if difference:
            raise TrainError(
                f"{self.path} holds {what} of another kind ({difference}): choose another --out, or delete it"
            )
