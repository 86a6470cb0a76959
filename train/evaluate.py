"""Loss and accuracy of a network over a part, each sample once, by any number of ranks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from .blocks import PartBlocks
from .errors import TrainError
from .order import evaluation_blocks
from .reader import EvalStream, loader, reported
from .session import Session


@dataclass(frozen=True)
class Evaluation:
    """Mean loss and accuracies (fractions) over a part; samples that could not be read.

    logits: float16 (samples, classes) in stored order, with their int64 labels, in the first rank, if they were asked
    for and nothing was lost.
    """

    loss: float
    top1: float
    top5: float
    lost: int
    logits: NDArray[np.float16] | None = None
    labels: NDArray[np.int64] | None = None


@torch.inference_mode()
def evaluate(session: Session, blocks: PartBlocks, last: bool) -> Evaluation:
    """Evaluate on every sample once, all ranks together; `last` keeps the outputs. Raises TrainError, ShardError."""
    network = session.judged.eval()
    session.inputs.eval()
    ranks, reading, lost = session.ranks, session.plan.reading, 0
    # loss, top-1, top-5, samples, lost
    sums = torch.zeros(5, dtype=torch.float64, device=session.device)
    kept: list[tuple[NDArray[np.float16], NDArray[np.int64]]] = []
    chosen = evaluation_blocks(len(blocks.samples), ranks.rank, ranks.size)
    stream = EvalStream(blocks, chosen, max(session.recipe.batch_size // ranks.size, 256), reading.skip)
    workers = min(reading.workers, 1) if blocks.forks else 0  # a new process that fetches takes seconds to start
    for batch in loader(stream, workers, session.device.type == "cuda"):
        lost += reported(batch)
        if not len(batch.y):
            continue
        x, y = session.on_device(batch)
        with session.autocast():
            logits = network(session.inputs(x).contiguous(memory_format=torch.channels_last)).float()
        best = logits.topk(min(5, logits.shape[1])).indices == y[:, None]
        right = [best[:, 0].sum().double(), best.sum().double()]
        loss = nn.functional.cross_entropy(logits, y, reduction="sum").double()
        sums[:4] += torch.stack([loss, *right, torch.full_like(loss, len(y))])
        if last:
            kept.append((logits.half().cpu().numpy(), batch.y.numpy()))
    sums[4] = lost
    *means, samples, all_lost = ranks.sum(sums).tolist()
    if not samples:
        raise TrainError(f"no sample of {blocks.name} can be read: copy the band again")
    loss, top1, top5 = (value / samples for value in means)
    result = Evaluation(loss, top1, top5, int(all_lost))
    if not last or all_lost:
        return result
    pieces = [piece for one in ranks.gathered(kept) for piece in one]  # ranks hold successive samples
    logits, labels = (np.concatenate(column) for column in zip(*pieces, strict=True))
    return Evaluation(loss, top1, top5, 0, logits, labels)
