"""Train one band's network: the whole job, read from top to bottom."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

from shards_manifest import BandManifest, open_band

from . import checkpoint, networks
from .blocks import PartBlocks
from .errors import TrainError
from .inputs import Inputs
from .order import Epochs, Span
from .plan import TrainPlan
from .reader import Batch, EvalStream, TrainStream, loader
from .runs import CHECKPOINT, Result, RunFolder
from .schedule import learning_rate

REPORT = 50  # steps between two readings of the loss: each one waits for the device


class Session:
    """A network on its device with all that a step needs."""

    def __init__(self, manifest: BandManifest, plan: TrainPlan) -> None:
        recipe = plan.recipe
        torch.manual_seed(plan.seed)
        self.plan, self.recipe = plan, recipe
        self.device = plan.torch_device()
        self.dtype = plan.dtype(self.device)
        self.inputs = Inputs(manifest, recipe.flip, recipe.shift).to(self.device)
        self.network = networks.build(plan.network, manifest.geometry.crop, len(manifest.classes))
        self.network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.compiled = torch.compile(self.network) if plan.compile else self.network
        self.optimizer = torch.optim.SGD(
            self.network.parameters(),
            lr=recipe.lr,
            momentum=recipe.momentum,
            nesterov=recipe.nesterov,
            weight_decay=recipe.weight_decay,
        )
        self.criterion = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)
        self.generator = torch.Generator(self.device).manual_seed(plan.seed)

    def autocast(self) -> AbstractContextManager[object]:
        """The precision of forward passes."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    def on_device(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """A batch on the device; the copy overlaps with computing where memory is pinned."""
        return batch.x.to(self.device, non_blocking=True), batch.y.to(self.device, non_blocking=True)

    def step(self, batch: Batch, lr: float) -> tuple[torch.Tensor, torch.Tensor]:
        """One optimizer step; the summed loss and the correct answers of the batch, left on the device."""
        x, y = self.on_device(batch)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        with self.autocast():
            logits = self.compiled(self.inputs(x, self.generator).contiguous(memory_format=torch.channels_last))
            loss = self.criterion(logits, y)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss.detach() * len(y), (logits.detach().argmax(1) == y).sum()


def train_band(shards: str, out: str | os.PathLike[str], plan: TrainPlan, quiet: bool = False) -> Result:
    """Train the network of the band in folder `shards` into run folder `out`, unless it is finished.

    Raises TrainError, FormatError, ShardError, StoreError.
    """
    store, manifest = open_band(shards)
    run = RunFolder(out)
    earlier = run.finished(manifest, plan)
    if earlier is not None:
        return earlier
    if "train" not in manifest.parts or manifest.parts["train"].samples < 2:
        raise TrainError(f"{shards} has fewer than two training samples")
    session = Session(manifest, plan)
    reading, cache = plan.reading, plan.reading.open_cache()
    blocks = PartBlocks(store, manifest, "train", cache)
    epochs = Epochs.of(blocks.samples, plan.recipe.batch_size, blocks.block_bytes, plan.seed, reading.remainder)
    stream = TrainStream(blocks, epochs, Span(0, epochs.batch_size), range(plan.recipe.epochs), skip=reading.skip)
    has_val = "val" in manifest.parts and manifest.parts["val"].samples > 0
    val = PartBlocks(store, manifest, "val", cache) if has_val else None
    run.begin()

    started = time.perf_counter()
    evaluation: Evaluation | None = None
    train_top1 = 0.0
    batches = loader(stream, reading.workers, session.device.type == "cuda")
    for epoch in range(plan.recipe.epochs):
        loss, train_top1, waited, seconds, lost = _train_epoch(session, epochs, batches, epoch, quiet)
        line = {
            "epoch": epoch + 1,
            "samples": (epoch + 1) * epochs.batches * epochs.batch_size,
            "train_loss": loss,
            "train_top1": train_top1,
            "train_seconds": seconds,
            "waited": waited,
            "lost": lost,
            "lr": session.optimizer.param_groups[0]["lr"],
        }
        if val is not None:
            evaluation = evaluate(session, val, last=epoch + 1 == plan.recipe.epochs)
            line |= {"val_loss": evaluation.loss, "val_top1": evaluation.top1, "val_top5": evaluation.top5}
            line |= {"val_lost": evaluation.lost}
        run.log(line)
        checkpoint.save(run.store, CHECKPOINT, session.network, session.optimizer, plan, manifest, epoch + 1)
        if not quiet:
            tqdm.write(_table_row(epoch + 1, plan.recipe.epochs, line))
    if evaluation is not None and evaluation.logits is not None:
        run.write_logits(evaluation.logits, evaluation.labels)
    result = Result(
        top1=evaluation.top1 if evaluation else None,
        top5=evaluation.top5 if evaluation else None,
        loss=evaluation.loss if evaluation else None,
        train_top1=train_top1,
        seconds=time.perf_counter() - started,
        parameter_bytes=networks.parameter_bytes(session.network),
    )
    run.finish(manifest, plan, result)
    return result


def _train_epoch(
    session: Session, epochs: Epochs, batches: Iterator[Batch], epoch: int, quiet: bool
) -> tuple[float, float, float, float, int]:
    """One epoch: mean loss, accuracy under augmentation, fraction of the time without data, seconds, samples lost."""
    session.network.train()
    session.inputs.train()
    loss_sum = torch.zeros((), device=session.device)
    correct = torch.zeros((), dtype=torch.int64, device=session.device)
    started, waited, lost = time.perf_counter(), 0.0, 0
    with tqdm(total=epochs.batches, desc=f"epoch {epoch + 1}", leave=False, disable=quiet or None) as bar:
        for number in range(epochs.batches):
            asked = time.perf_counter()
            batch = next(batches)
            waited += time.perf_counter() - asked
            lost += _reported(batch)
            lr = learning_rate(epoch * epochs.batches + number, epochs.batches, session.recipe)
            loss, right = session.step(batch, lr)
            loss_sum += loss
            correct += right
            if (number + 1) % REPORT == 0:
                bar.update(REPORT)
                bar.set_postfix(loss=f"{float(loss_sum) / ((number + 1) * epochs.batch_size):.3f}")
    samples = epochs.batches * epochs.batch_size
    mean = float(loss_sum) / samples
    if not np.isfinite(mean):
        raise TrainError(f"the loss became {mean} in epoch {epoch + 1}: choose a smaller --lr")
    seconds = time.perf_counter() - started
    return mean, float(correct) / samples, waited / seconds, seconds, lost


def _reported(batch: Batch) -> int:
    """Say what could not be read for a batch; the count of samples."""
    for sentence, samples in batch.lost:
        tqdm.write(f"{sentence}: going on without {samples} samples")
    return sum(samples for _, samples in batch.lost)


class Evaluation:
    """Loss and accuracies over a part; with the outputs, in stored order, if they were asked for and none was lost."""

    def __init__(
        self,
        loss: float,
        top1: float,
        top5: float,
        logits: NDArray[np.float16] | None,
        labels: NDArray[np.int64],
        lost: int,
    ) -> None:
        self.loss, self.top1, self.top5, self.lost = loss, top1, top5, lost
        self.logits, self.labels = logits, labels


@torch.inference_mode()
def evaluate(session: Session, blocks: PartBlocks, last: bool) -> Evaluation:
    """Evaluate on every sample once; `last` keeps the outputs as float16."""
    session.network.eval()
    session.inputs.eval()
    sums = torch.zeros(3, dtype=torch.float64, device=session.device)
    kept: list[NDArray[np.float16]] = []
    labels: list[NDArray[np.int64]] = []
    reading, lost = session.plan.reading, 0
    stream = EvalStream(blocks, range(len(blocks.samples)), max(session.recipe.batch_size, 256), reading.skip)
    workers = min(reading.workers, 1) if blocks.forks else 0  # a new process that fetches takes seconds to start
    for batch in loader(stream, workers, session.device.type == "cuda"):
        lost += _reported(batch)
        x, y = session.on_device(batch)
        with session.autocast():
            logits = session.network(session.inputs(x).contiguous(memory_format=torch.channels_last)).float()
        best = logits.topk(min(5, logits.shape[1])).indices == y[:, None]
        sums += torch.stack(
            [
                nn.functional.cross_entropy(logits, y, reduction="sum").double(),
                best[:, 0].sum().double(),
                best.sum().double(),
            ]
        )
        labels.append(batch.y.numpy())
        if last:
            kept.append(logits.half().cpu().numpy())
    all_labels = np.concatenate(labels)
    if not len(all_labels):
        raise TrainError(f"no sample of {blocks.name} can be read: copy the band again")
    loss, top1, top5 = (sums / len(all_labels)).tolist()
    return Evaluation(loss, top1, top5, np.concatenate(kept) if last and not lost else None, all_labels, lost)


def _table_row(epoch: int, epochs: int, line: dict[str, float]) -> str:
    val = (
        f"  val loss {line['val_loss']:.3f}  top-1 {line['val_top1']:6.2%}  top-5 {line['val_top5']:6.2%}"
        if "val_top1" in line
        else ""
    )
    return (
        f"epoch {epoch:3d}/{epochs}  loss {line['train_loss']:.3f}  train {line['train_top1']:6.2%}{val}  "
        f"{line['train_seconds']:.1f} s, {line['waited']:.1%} waiting for data"
    )
