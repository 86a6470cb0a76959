"""Train one network: the whole job, read from top to bottom."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace

import torch
from tqdm import tqdm

from ...shards_manifest.dataset import Bands, open_bands
from ...shards_manifest.errors import SpectralError
from ...shards_manifest.manifest import BandManifest
from ...shards_manifest.runtime.progress import ProgressLine
from ..config import TrainPlan
from ..distributed import SINGLE_PROCESS, Ranks
from ..errors import TrainError
from ..networks import parameter_bytes, trains_on_one
from ..networks.profile import multiply_adds
from ..recipes import remarks
from ..runs.checkpoint import Checkpoint, Progress
from ..runs.metrics_log import EpochLine, StepLine
from ..runs.run_folder import RunFolder
from ..runs.run_record import Result, RunIdentity
from ..shutdown import StopRequest
from .checkpoint_timer import CheckpointTimer
from .evaluate import Evaluator
from .lr_schedule import learning_rate
from .metrics import EpochTotals, Evaluation, summed
from .model import Model
from .part_loaders import part_loaders
from .train_step import TrainStep

REPORT = 20  # steps between two readings of the loss, each of which waits for the device, and a line in steps.jsonl
LOG_INTERVAL = 60.0  # seconds between two lines of an epoch in a log


def train_network(
    shards: str,
    out: str | os.PathLike[str],
    plan: TrainPlan,
    bands: Sequence[int] = (),
    quiet: bool = False,
    ranks: Ranks = SINGLE_PROCESS,
    stop: StopRequest | None = None,
) -> Result:
    """Train a network on one or several bands, unless that is done. An unfinished run goes on from its checkpoint.

    Args:
        shards: The folder or URL of a band or of a split.
        out: The run folder.
        plan: What to do.
        bands: The numbers of the bands of a split that the network reads as channels; empty for all of what is there.
        quiet: Print nothing.
        ranks: The processes that train it together, connected; all of them call this, and rank 0 writes.
        stop: What may end the run.

    Returns:
        The result, which is in the run folder too.

    Raises:
        TrainError, FormatError, ShardError, StoreError: The run cannot be done.
        KeyboardInterrupt, SystemExit: It was stopped, after a checkpoint.
    """
    opened = open_bands(shards, bands)
    manifests = opened.each
    run = RunFolder(out, bool(plan.restart))
    with ExitStack() as stack:
        ranks.broadcast_from_rank0(lambda: stack.enter_context(run.owning()))
        earlier = ranks.broadcast_from_rank0(lambda: run.finished(manifests, plan))
        if earlier is not None:
            return earlier
        if "train" not in opened.first.parts or opened.first.parts["train"].samples < 2:
            raise TrainError(f"{opened.store} has fewer than two training samples")
        checkpoint = ranks.broadcast_from_rank0(lambda: run.unfinished(manifests, plan))
        if checkpoint is not None:  # auto may mean another precision here than where the run was started
            plan = replace(plan, precision=checkpoint.identity.options.precision)
        trainer = Trainer(opened, plan, run, ranks, stop or StopRequest(), quiet or not ranks.is_rank0)
        stack.callback(trainer.loader.close)
        if checkpoint is not None:
            trainer.resume(checkpoint)
        del checkpoint  # it is as large as the network and the optimizer
        ranks.broadcast_from_rank0(lambda: run.begin(trainer.samples, trainer.state.epoch, plan))
        return trainer.run_epochs()


@dataclass
class TrainState:
    """Where a run is.

    Attributes:
        epoch: The epoch under way, counted from 0.
        batch: Its batches that have been trained on.
        totals: What they added up to.
        train_top1: Of the last whole epoch.
        best_top1, best_epoch: The best epoch so far, counted from 1; 0 for none.
        seconds: Of the run.
    """

    epoch: int = 0
    batch: int = 0
    totals: EpochTotals = field(default_factory=EpochTotals)
    train_top1: float = 0.0
    best_top1: float = 0.0
    best_epoch: int = 0
    seconds: float = 0.0


class Trainer:
    """A run under way in one rank.

    Args:
        bands: What the network reads.
        plan: What to do.
        run: The run folder, which this process owns.
        ranks: The processes that train together.
        stop: What may end the run.
        quiet: Print nothing.

    Attributes:
        loader: The training batches.
        state: Where the run is.

    Raises:
        TrainError: The plan does not fit the bands.
    """

    def __init__(
        self, bands: Bands, plan: TrainPlan, run: RunFolder, ranks: Ranks, stop: StopRequest, quiet: bool
    ) -> None:
        self._bands, self._plan, self._run, self._stop, self._quiet = bands.each, plan, run, stop, quiet
        loaders, residence = part_loaders(bands, plan, ranks)
        self.loader = loaders.pop("train")
        shape = plan.network.shape(self._bands)
        check_fits(self._bands, plan, self.loader.batch_size, ranks.world_size)
        model = Model(self._bands, plan, ranks)
        self._step = TrainStep(model, plan.recipe, plan.seed, self.loader.epoch_sampler.partners)
        self._evaluate = Evaluator(model, loaders, run, shape.classes)
        self._timer = CheckpointTimer(plan.save_every)
        self._failure: SpectralError | None = None  # of reading, which ends the run after the steps so far
        self.state = TrainState()
        if not quiet:
            for remark in (*remarks(plan.recipe, self.loader.batch_size, len(self.loader)), residence):
                if remark:
                    tqdm.write(remark)

    @property
    def samples(self) -> int:
        """Samples that have been trained on, over all ranks and epochs."""
        return (self.state.epoch * len(self.loader) + self.state.batch) * self.loader.batch_size

    def resume(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint. Raises TrainError if it does not fit."""
        progress, state = checkpoint.progress, self.state
        self.loader.load_state_dict(dict(progress.loader))
        state.epoch, state.batch = self.loader.epoch_sampler.position(dict(progress.loader))
        state.totals = EpochTotals(**progress.totals)
        state.train_top1, state.seconds = progress.train_top1, progress.seconds
        state.best_top1, state.best_epoch = progress.best_top1, progress.best_epoch
        self._step.load_state_dict(dict(checkpoint.state))
        self._say(f"going on after {self.samples} samples, in epoch {state.epoch + 1}")

    def run_epochs(self) -> Result:
        """Train what is left of the run.

        Raises:
            TrainError, ShardError, StoreError: It cannot go on.
            KeyboardInterrupt, SystemExit: Ctrl-C or SIGTERM, after a checkpoint.
        """
        with self._stop.catching_signals():
            found: dict[str, Evaluation] = {}
            begun = time.monotonic()
            for number in range(self._plan.recipe.epochs - self.state.epoch):
                with self._stop.deferred():  # a signal while the epoch is saved takes effect before the next step
                    found, line = self._epoch()
                    left = self._plan.recipe.epochs - self.state.epoch
                    self._say(line.text(self._plan.recipe.epochs, left * (time.monotonic() - begun) / (number + 1)))
            if not found:  # killed after the last epoch, before its outputs were kept
                found = self._evaluate(last=True)
                self._check_evaluations(found)
            return self._finish(found)

    def _epoch(self) -> tuple[dict[str, Evaluation], EpochLine]:
        """Do the rest of an epoch, its evaluations, its line and its checkpoint."""
        self._train_epoch()
        state, rank0 = self.state, self._step.model.ranks.is_rank0
        begun = time.perf_counter()
        try:
            with self._stop.deferred(False):
                if self._stop.requested:
                    self._stop.end_now()
                found = self._evaluate(last=state.epoch + 1 == self._plan.recipe.epochs)
        except BaseException:  # a damaged shard of val, another rank, a signal: the epoch was trained
            if rank0:
                self._save()
            raise
        self._check_evaluations(found)
        state.seconds += time.perf_counter() - begun
        line = self._epoch_line(found)
        state.epoch, state.batch, state.totals = state.epoch + 1, 0, EpochTotals()
        self.loader.set_epoch(state.epoch)
        better = self._note_best(found)
        if rank0:
            self._run.log(line)
            if better or self._timer.due(epoch_ends=True):
                self._save(better)
        return found, line

    def _train_epoch(self) -> None:
        """Train on what is left of an epoch, some steps between two reports."""
        self._step.model.train()
        state, batches = self.state, iter(self.loader)
        label, steps = f"epoch {state.epoch + 1}", len(self.loader)
        with ProgressLine(label, "steps", steps, state.batch, self._quiet, LOG_INTERVAL) as progress:
            while state.batch < len(self.loader):
                before = state.batch
                end = min(before - before % REPORT + REPORT, len(self.loader))
                self._some_steps(batches, end)
                trained = max(state.batch * self.loader.batch_size, 1)
                progress(state.batch - before, f"loss {state.totals.loss / trained:.3f}")

    def _some_steps(self, batches: Iterator[tuple[torch.Tensor, torch.Tensor]], end: int) -> None:
        """Train up to batch `end` of the epoch, report, and save or stop where that is due."""
        model, loader, recipe = self._step.model, self.loader, self._plan.recipe
        begun, data_wait, done = time.perf_counter(), 0.0, self.state.batch
        lost = lost_before = loader.lost
        loss = correct = torch.zeros((), dtype=torch.float64, device=model.device)
        while done < end:
            asked = time.perf_counter()
            batch = self._next(batches)
            if batch is None:
                break
            data_wait += time.perf_counter() - asked
            lost = loader.lost  # not of a batch that a signal takes away
            step = self.state.epoch * len(loader) + done
            lr = learning_rate(step, len(loader), recipe)
            step_loss, right = self._step(*batch, step, lr, loader.positions.first, loader.batch_size)
            loss, correct, done = loss + step_loss, correct + right, done + 1
        stop = float(self._stop.requested or self._failure is not None)
        sums: dict[str, torch.Tensor | float] = {
            "loss": loss,
            "correct": correct,
            "lost": lost - lost_before,
            "stop": stop,
        }
        totals = summed(model.ranks, model.device, sums)
        self._check_finite(totals["loss"], "loss")
        samples, self.state.batch = (done - self.state.batch) * loader.batch_size, done
        stopping = totals.pop("stop") > 0
        seconds = time.perf_counter() - begun
        self.state.seconds += seconds
        self.state.totals.add(EpochTotals(**totals, data_wait=data_wait, seconds=seconds))
        if model.ranks.is_rank0:
            self._log_steps(totals["loss"], samples, stopping)
        if self._failure is not None:
            raise self._failure
        if stopping:
            self._stop.end_now()

    def _next(self, batches: Iterator[tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Return the next batch; None where the run is to stop here. Several ranks stop where they meet."""
        if self._step.model.ranks.world_size > 1:
            return next(batches)
        if self._stop.requested:
            return None
        try:
            with self._stop.deferred(False):  # a server may take its time
                return next(batches)
        except (KeyboardInterrupt, SystemExit):
            if not self._stop.requested:
                raise
        except SpectralError as error:  # raised when the steps so far have been saved
            self._failure = error
        return None

    def _log_steps(self, loss: float, samples: int, stopping: bool) -> None:
        """Write a line of the loss of `samples`, and a checkpoint where one is due."""
        if samples:
            self._run.log(StepLine(self.samples, loss / samples, self._step.lr))
        if not self.samples:
            return
        if stopping or (self.state.batch < len(self.loader) and self._timer.due()):
            self._save()
        if stopping:
            self._say(f"saved after {self.samples} samples")

    def _epoch_line(self, found: Mapping[str, Evaluation]) -> EpochLine:
        """Return the line of an epoch that was trained and evaluated, and note its training accuracy."""
        totals, trained = self.state.totals, len(self.loader) * self.loader.batch_size
        self.state.train_top1 = totals.correct / trained
        return EpochLine(
            epoch=self.state.epoch + 1,
            samples=self.samples,
            train_loss=totals.loss / trained,
            train_top1=self.state.train_top1,
            train_seconds=totals.seconds,
            data_wait=totals.data_wait / totals.seconds,
            lost=int(totals.lost),
            lr=self._step.lr,
            evaluations={part: {**each.values, "lost": each.lost} for part, each in found.items()},
        )

    def _note_best(self, found: Mapping[str, Evaluation]) -> bool:
        """Return whether the epoch that ended is the best so far, by the holdout, or by val where there is none."""
        state, by = self.state, found.get("holdout") or found.get("val")
        if by is None or (state.best_epoch and by.top1 <= state.best_top1):
            return False
        state.best_top1, state.best_epoch = by.top1, state.epoch
        return True

    def _check_finite(self, loss: float, name: str) -> None:
        """Raise TrainError if a run has diverged: it would be of no use, and is not kept."""
        if not math.isfinite(loss):
            epoch = self.state.epoch + 1
            raise TrainError(
                f"the {name} became {loss} in epoch {epoch}: start again, with a smaller --lr and --no-resume"
            )

    def _check_evaluations(self, found: Mapping[str, Evaluation]) -> None:
        for part, evaluation in found.items():
            self._check_finite(evaluation.loss, f"{part} loss")

    def _save(self, best: bool = False) -> None:
        state = self.state
        progress = Progress(
            # the loader's own state may be a batch ahead: a signal can take that batch away before it is trained on
            loader=self.loader.epoch_sampler.state_dict(state.epoch, state.batch),
            totals=asdict(state.totals),
            train_top1=state.train_top1,
            best_top1=state.best_top1,
            best_epoch=state.best_epoch,
            seconds=state.seconds,
        )
        identity = RunIdentity.of(self._bands, self._plan)
        self._run.save(Checkpoint.of(identity, self._bands, progress, self._step.state_dict()), best)
        self._timer.saved()

    def _finish(self, found: Mapping[str, Evaluation]) -> Result:
        """Write the result of the run."""
        val, holdout = found.get("val"), found.get("holdout")
        result = Result(
            top1=val.top1 if val else None,
            top5=val.top5 if val else None,
            loss=val.loss if val else None,
            holdout_top1=holdout.top1 if holdout else None,
            train_top1=self.state.train_top1,
            best_epoch=self.state.best_epoch or None,
            seconds=self.state.seconds,
            parameter_bytes=parameter_bytes(self._step.model.network),
            multiply_adds=multiply_adds(self._plan.network, self._plan.network.shape(self._bands)),
        )
        if self._step.model.ranks.is_rank0:
            for part, use in (("val", "be fused"), ("holdout", "be ranked by its holdout")):
                if part in found and found[part].lost:
                    self._say(f"{found[part].lost} samples of {part} could not be read: this run cannot {use}")
            self._run.finish(self._bands, self._plan, result)
        return result

    def _say(self, text: str) -> None:
        if not self._quiet:
            tqdm.write(text)


def check_fits(bands: Sequence[BandManifest], plan: TrainPlan, batch_size: int, world_size: int) -> None:
    """Raise TrainError for what could not be trained on these planes, or by so many processes."""
    side, shift = bands[0].geometry.crop, plan.recipe.random_shift
    if shift >= side:
        raise TrainError(f"--random-shift {shift} moves planes of {side}x{side} out of sight: choose less")
    each = 1 if trains_on_one(plan.network, plan.network.shape(bands)) else 2  # samples of a process
    if batch_size < each * world_size:
        processes = "1 process" if world_size == 1 else f"{world_size} processes"
        few = batch_size < plan.recipe.batch_size
        what = "all that there is to train on" if few else f"--batch-size {batch_size}"
        raise TrainError(
            f"{batch_size} samples a step ({what}) are too few for {processes} of {plan.network.name}, "
            f"which need {each} each: start fewer" + ("" if few else ", or choose a larger --batch-size")
        )
