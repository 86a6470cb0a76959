"""Train one band's network: the whole job, read from top to bottom."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import Any

import torch
from tqdm import tqdm

from ...shards_manifest.dataset import open_band
from ...shards_manifest.errors import SpectralError
from ...shards_manifest.manifest import BandManifest
from ...shards_manifest.shard.reader import BlockReader
from ...shards_manifest.storage.base import Store
from .. import networks
from ..config import TrainPlan
from ..data.block_cache import BlockCache
from ..data.sampler import Epochs, Span, trained_blocks
from ..data.stream import Batch, TrainStream, reported
from ..data.worker_pool import loader
from ..distributed import SINGLE_PROCESS, Ranks
from ..errors import TrainError
from ..networks.profile import multiply_adds
from ..recipes import remarks
from ..runs.checkpoint import Progress, content
from ..runs.predictions import Recorder
from ..runs.run_folder import STEPS, Result, RunFolder, identity
from ..shutdown import StopRequest
from .evaluate import Evaluation, evaluate
from .lr_schedule import learning_rate
from .train_step import Session

REPORT = 20  # steps between two readings of the loss, each of which waits for the device, and a line in steps.jsonl


def train_band(
    shards: str,
    out: str | os.PathLike[str],
    plan: TrainPlan,
    quiet: bool = False,
    ranks: Ranks = SINGLE_PROCESS,
    stop: StopRequest | None = None,
) -> Result:
    """Train the network of the band in folder `shards` into run folder `out`, unless it is finished.

    An unfinished run there goes on from its checkpoint, unless the plan is to begin again. ranks: joined; all call
    this, the first one writes.
    stop: what may end it.  Raises TrainError, FormatError, ShardError, StoreError; KeyboardInterrupt and SystemExit
    after a checkpoint.
    """
    store, manifest = open_band(shards)
    run = RunFolder(out, bool(plan.restart))
    with ExitStack() as held:
        ranks.broadcast_from_rank0(lambda: held.enter_context(run.owning()))
        return _train(store, manifest, plan, run, quiet or not ranks.is_rank0, ranks, stop or StopRequest())


def _train(
    store: Store, manifest: BandManifest, plan: TrainPlan, run: RunFolder, quiet: bool, ranks: Ranks, stop: StopRequest
) -> Result:
    earlier = ranks.broadcast_from_rank0(lambda: run.finished(manifest, plan))
    if earlier is not None:
        return earlier
    if "train" not in manifest.parts or manifest.parts["train"].samples < 2:
        raise TrainError(f"{store} has fewer than two training samples")
    checkpoint = ranks.broadcast_from_rank0(lambda: run.unfinished(manifest, plan))
    if checkpoint is not None:  # auto may mean another here than where the run was begun
        plan = replace(plan, precision=checkpoint["identity"]["options"]["precision"])
    training = Training(store, manifest, plan, run, quiet, ranks, stop)
    if not quiet:
        for remark in remarks(plan.recipe, training.epochs.batch_size, training.epochs.batches):
            tqdm.write(remark)
    training.resume(checkpoint)
    del checkpoint  # it is as large as the network and the optimizer
    ranks.broadcast_from_rank0(lambda: run.begin(training.samples, training.epoch, plan))
    return training.run_epochs()


class Training:
    """A run under way in one rank: where it is, and what the unfinished epoch has added up so far."""

    def __init__(
        self,
        store: Store,
        manifest: BandManifest,
        plan: TrainPlan,
        run: RunFolder,
        quiet: bool,
        ranks: Ranks,
        stop: StopRequest,
    ) -> None:
        self.manifest, self.plan, self.run, self.quiet, self.ranks = manifest, plan, run, quiet, ranks
        cache = plan.reading.open_cache()
        self.blocks = BlockReader(store, manifest, "train", cache)
        blocks = self.blocks.samples
        trained = trained_blocks(blocks, plan.holdout_samples)
        self.holdout = range(trained, len(blocks))
        self.epochs = Epochs.of(
            blocks[:trained], plan.recipe.batch_size, self.blocks.block_bytes, plan.seed, plan.reading.last_batch
        )
        check_fits(manifest, plan, self.epochs.batch_size, ranks.world_size)
        self.session = Session(manifest, plan, ranks, self.epochs.partners)
        self.span = Span(0, self.epochs.batch_size).share(ranks.rank, ranks.world_size)
        self.val = self._val(store, cache)
        self.epoch = self.batch = 0
        self.sums = dict.fromkeys(("loss", "correct", "lost", "data_wait", "seconds"), 0.0)
        self.train_top1 = self.seconds = self.best = 0.0
        self.best_epoch = 0
        self.said: set[str] = set()
        self.saved = time.perf_counter()
        self.stop = stop
        self.failure: SpectralError | None = None  # of reading, which ends the run

    @property
    def samples(self) -> int:
        """Samples that have been trained on, all ranks and epochs."""
        return (self.epoch * self.epochs.batches + self.batch) * self.epochs.batch_size

    def resume(self, found: dict[str, Any] | None) -> None:
        """Go on from a checkpoint, if there is one. Raises TrainError."""
        if found is None:
            return
        progress = Progress(**found["progress"])
        self.epoch, self.batch = self.epochs.position(progress.reader)
        self.sums |= progress.sums
        self.train_top1, self.seconds = progress.train_top1, progress.seconds
        self.best, self.best_epoch = progress.best, progress.best_epoch
        self.session.load(found)
        if not self.quiet:
            tqdm.write(f"going on after {self.samples} samples, in epoch {self.epoch + 1}")

    def run_epochs(self) -> Result:
        """What is left of the run. Raises TrainError, ShardError, StoreError.

        Ctrl-C and SIGTERM end it after a checkpoint.
        """
        with self.stop.catching_signals():
            return self._run_epochs()

    def _run_epochs(self) -> Result:
        recipe, reading = self.plan.recipe, self.plan.reading
        left = range(self.epoch, recipe.epochs)
        stream = TrainStream(self.blocks, self.epochs, self.span, left, self.batch, reading.skip)
        found: dict[str, Evaluation] = {}
        with closing(loader(stream, reading.workers, self.session.device.type == "cuda")) as batches:
            for _ in left:
                with self.stop.deferred():  # who asks while the epoch is being saved ends before the next step
                    found = self._epoch(batches)
        if not found:  # killed after the last epoch, before its outputs were kept
            found = self._evaluations(last=True)
            self._check_evaluations(found)
        val, held = found.get("val"), found.get("holdout")
        result = Result(
            top1=val.top1 if val else None,
            top5=val.top5 if val else None,
            loss=val.loss if val else None,
            holdout_top1=held.top1 if held else None,
            train_top1=self.train_top1,
            best_epoch=self.best_epoch or None,
            seconds=self.seconds,
            parameter_bytes=networks.parameter_bytes(self.session.network),
            multiply_adds=multiply_adds(self.plan.network, self.manifest.geometry.crop, len(self.manifest.classes)),
        )
        if self.ranks.is_rank0:
            for part, use in (("val", "be fused"), ("holdout", "be ranked by what it held out")):
                if part in found and found[part].lost and not self.quiet:
                    tqdm.write(f"{found[part].lost} samples of {part} could not be read: this run cannot {use}")
            self.run.finish(self.manifest, self.plan, result)
        return result

    def _epoch(self, batches: Iterator[Batch]) -> dict[str, Evaluation]:
        """The rest of the epoch that the run is in, its evaluations, its line and its checkpoint."""
        self._steps(batches)
        samples = self.epochs.batches * self.epochs.batch_size
        self.train_top1 = self.sums["correct"] / samples
        line: dict[str, Any] = {
            "epoch": self.epoch + 1,
            "samples": self.samples,
            "train_loss": self.sums["loss"] / samples,
            "train_top1": self.train_top1,
            "train_seconds": self.sums["seconds"],
            "data_wait": self.sums["data_wait"] / self.sums["seconds"],
            "lost": int(self.sums["lost"]),
            "lr": self.session.optimizer.param_groups[0]["lr"],
        }
        begun = time.perf_counter()
        try:
            with self.stop.deferred(False):
                if self.stop.requested:
                    self.stop.end_now()
                found = self._evaluations(last=self.epoch + 1 == self.plan.recipe.epochs)
        except BaseException:  # a shard of val that is damaged, another rank, a signal: the epoch was trained
            if self.ranks.is_rank0:
                self._save()
            raise
        self._check_evaluations(found)
        self.seconds += time.perf_counter() - begun
        for part, evaluation in found.items():
            line |= {f"{part}_loss": evaluation.loss, f"{part}_top1": evaluation.top1}
            line |= {f"{part}_top5": evaluation.top5, f"{part}_lost": evaluation.lost}
        self.epoch, self.batch = self.epoch + 1, 0
        self.sums = dict.fromkeys(self.sums, 0.0)
        judge = found.get("holdout") or found.get("val")
        better = judge is not None and (judge.top1 > self.best or not self.best_epoch)
        if judge is not None and better:
            self.best, self.best_epoch = judge.top1, self.epoch
        if self.ranks.is_rank0:
            self.run.log(line)
            self._save(better)
        if not self.quiet:
            tqdm.write(_table_row(self.plan.recipe.epochs, line))
        return found

    def _check_finite(self, loss: float, name: str) -> None:
        """Raise TrainError if a run has diverged: it would be of no use, and is not kept."""
        if not math.isfinite(loss):
            raise TrainError(
                f"the {name} became {loss} in epoch {self.epoch + 1}: begin again, with a smaller --lr and --no-resume"
            )

    def _evaluations(self, last: bool) -> dict[str, Evaluation]:
        """On what is held out of train, and on val, as far as there are any. last: record the outputs."""
        found = {}
        if self.holdout:
            found["holdout"] = self._evaluation("holdout", self.blocks, self.holdout, last)
        if self.val is not None:
            found["val"] = self._evaluation("val", self.val, range(len(self.val.samples)), last)
        return found

    def _check_evaluations(self, found: dict[str, Evaluation]) -> None:
        """Raise TrainError if a network gives outputs that are no numbers."""
        for part, evaluation in found.items():
            self._check_finite(evaluation.loss, f"{part} loss")

    def _evaluation(self, part: str, blocks: BlockReader, chosen: range, last: bool) -> Evaluation:
        if not last:
            return evaluate(self.session, blocks, chosen=chosen)
        record = Recorder(self.ranks, self.session.device)
        if not self.ranks.is_rank0:
            return evaluate(self.session, blocks, chosen=chosen, record=record)
        samples = int(blocks.samples[chosen.start : chosen.stop].sum())
        with self.run.recording(part, samples, len(self.manifest.classes)) as (record.logits, record.labels):
            found = evaluate(self.session, blocks, chosen=chosen, record=record)
        if found.lost:
            self.run.forget_outputs(part)
        return found

    def _steps(self, batches: Iterator[Batch]) -> None:
        session, total = self.session, self.epochs.batch_size
        session.network.train()
        session.inputs.train()
        label = f"epoch {self.epoch + 1}"
        hidden = self.quiet or None
        shown = tqdm(total=self.epochs.batches, initial=self.batch, desc=label, leave=False, disable=hidden)
        with shown as bar:
            while self.batch < self.epochs.batches:
                begun, data_wait, lost = time.perf_counter(), 0.0, 0
                end = min(self.batch - self.batch % REPORT + REPORT, self.epochs.batches)
                # loss, correct answers, lost samples, reasons to stop
                sums = torch.zeros(4, dtype=torch.float64, device=session.device)
                for number in range(self.batch, end):
                    asked = time.perf_counter()
                    batch = self._next(batches)
                    if batch is None:
                        end = number
                        break
                    data_wait += time.perf_counter() - asked
                    lost += reported(batch, self.said)
                    step = self.epoch * self.epochs.batches + number
                    lr = learning_rate(step, self.epochs.batches, session.recipe)
                    loss, right = session.step(batch, step, lr, self.span.first, total)
                    sums[0] += loss
                    sums[1] += right
                sums[2] += lost
                sums[3] += self.stop.requested or self.failure is not None
                bar.update(end - self.batch)
                self._report(end, sums, data_wait, begun)
                bar.set_postfix(loss=f"{self.sums['loss'] / max(self.batch * total, 1):.3f}")

    def _next(self, batches: Iterator[Batch]) -> Batch | None:
        """The next batch; None where the run is to stop here. One that has ranks stops where they meet."""
        if self.ranks.world_size > 1:
            return next(batches)
        if self.stop.requested:
            return None
        try:
            with self.stop.deferred(False):  # a server may take its time
                return next(batches)
        except (KeyboardInterrupt, SystemExit):
            if not self.stop.requested:
                raise
        except SpectralError as error:  # raised when the steps so far have been saved
            self.failure = error
        return None

    def _report(self, end: int, sums: torch.Tensor, data_wait: float, begun: float) -> None:
        """Add the steps up to batch `end` up over the ranks, log them, and save when it is time to."""
        samples = (end - self.batch) * self.epochs.batch_size
        loss, correct, lost, stop = self.ranks.all_reduce_sum(sums).tolist()
        self._check_finite(loss, "loss")
        self.batch = end
        seconds = time.perf_counter() - begun
        self.seconds += seconds
        for name, value in zip(self.sums, (loss, correct, lost, data_wait, seconds), strict=True):
            self.sums[name] += value
        if self.ranks.is_rank0:
            self._keep(end, loss, samples, stop > 0)
        if self.failure is not None:
            raise self.failure
        if stop:
            self.stop.end_now()

    def _keep(self, end: int, loss: float, samples: int, stop: bool) -> None:
        """A line of the loss of `samples`, and a checkpoint when it is time for one."""
        lr = self.session.optimizer.param_groups[0]["lr"]
        if samples:
            self.run.log({"samples": self.samples, "loss": loss / samples, "lr": lr}, STEPS)
        if not self.samples:
            return
        if stop or (end < self.epochs.batches and time.perf_counter() - self.saved >= self.plan.save_every):
            self._save()
        if stop and not self.quiet:
            tqdm.write(f"saved after {self.samples} samples")

    def _save(self, best: bool = False) -> None:
        reader = self.epochs.state_dict(self.epoch, self.batch)
        progress = Progress(reader, self.sums, self.train_top1, self.best, self.best_epoch, self.seconds)
        whole = content(identity(self.manifest, self.plan), self.manifest, self.session.state(), progress)
        self.run.save(whole, best)
        self.saved = time.perf_counter()

    def _val(self, store: Store, cache: BlockCache | None) -> BlockReader | None:
        part = self.manifest.parts.get("val")
        return BlockReader(store, self.manifest, "val", cache) if part is not None and part.samples else None


def check_fits(manifest: BandManifest, plan: TrainPlan, batch_size: int, ranks: int) -> None:
    """Raise TrainError for what could not be trained on these planes, or by so many ranks."""
    side = manifest.geometry.crop
    if plan.recipe.random_shift >= side:
        raise TrainError(
            f"--random-shift {plan.recipe.random_shift} moves planes of {side}x{side} out of sight: choose less"
        )
    each = 1 if networks.trains_on_one(plan.network, side) else 2  # samples of a process
    if batch_size < each * ranks:
        processes = "1 process" if ranks == 1 else f"{ranks} processes"
        few = batch_size < plan.recipe.batch_size
        what = "all that there is to train on" if few else f"--batch-size {batch_size}"
        raise TrainError(
            f"{batch_size} samples a step ({what}) are too few for {processes} of {plan.network}, which need {each} "
            "each: start fewer" + ("" if few else ", or choose a larger --batch-size")
        )


def _table_row(epochs: int, line: dict[str, float]) -> str:
    val = (
        f"  val loss {line['val_loss']:.3f}  top-1 {line['val_top1']:6.2%}  top-5 {line['val_top5']:6.2%}"
        if "val_top1" in line
        else ""
    )
    held = f"  held {line['holdout_top1']:6.2%}" if "holdout_top1" in line else ""
    lost = f", {line['lost']} samples lost" if line["lost"] else ""
    return (
        f"epoch {line['epoch']:3d}/{epochs}  loss {line['train_loss']:.3f}  train {line['train_top1']:6.2%}"
        f"{held}{val}  {line['train_seconds']:.1f} s, {line['data_wait']:.1%} waiting for data" + lost
    )
