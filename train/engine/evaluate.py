"""Loss and accuracy of a network over a part, each sample once, by any number of ranks."""

from __future__ import annotations

import json
import math
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...shards_manifest.dataset import open_band
from ...shards_manifest.manifest import canonical_json
from ...shards_manifest.shard.reader import BlockReader
from ...shards_manifest.storage.address import shown
from ..config import TrainPlan
from ..data.sampler import evaluation_blocks
from ..data.stream import EvalStream, reported
from ..data.worker_pool import loader
from ..distributed import SINGLE_PROCESS, Ranks
from ..errors import TrainError
from ..recipes import Recipe
from ..runs import checkpoint
from ..runs.predictions import Recorder
from .train_step import Session

FLOAT16 = torch.finfo(torch.float16).max  # outputs are kept in it


@dataclass(frozen=True)
class Evaluation:
    """Mean loss and accuracies (fractions) over a part; samples that could not be read."""

    loss: float
    top1: float
    top5: float
    lost: int


@torch.inference_mode()
def evaluate(
    session: Session,
    blocks: BlockReader,
    ten_crop: bool = False,
    chosen: range | None = None,
    record: Recorder | None = None,
) -> Evaluation:
    """Evaluate on every sample once, all ranks together. Raises TrainError, ShardError.

    ten_crop: the mean of the probabilities of ten crops in place of the centre's.  chosen: some blocks, where it is
    not all.  record: takes the outputs, in stored order; of no use where samples were lost.
    """
    network = session.eval_model.eval()
    session.ranks.broadcast_buffers(network)
    inputs = session.inputs.eval()
    ranks, reading, lost = session.ranks, session.plan.reading, 0
    # loss, top-1, top-5, samples, lost
    sums = torch.zeros(5, dtype=torch.float64, device=session.device)
    said: set[str] = set()
    every = range(len(blocks.samples)) if chosen is None else chosen
    mine = evaluation_blocks(every, ranks.rank, ranks.world_size)
    if record is not None:
        firsts = (evaluation_blocks(every, rank, ranks.world_size).start for rank in range(ranks.world_size))
        record.begin([int(blocks.samples[every.start : first].sum()) for first in firsts])
    batch_size = max(session.recipe.batch_size // (session.recipe.grad_accum_steps * ranks.world_size), 256)
    stream = EvalStream(blocks, mine, batch_size, reading.skip)
    with closing(loader(stream, min(reading.workers, 1), session.device.type == "cuda")) as batches:
        for batch in batches:
            lost += reported(batch, said)
            if not len(batch.y):
                continue
            x, y = session.on_device(batch)
            with session.autocast():
                if ten_crop:
                    each = [network(crop.contiguous(memory_format=torch.channels_last)) for crop in inputs.ten_crops(x)]
                    logits = torch.stack(each).float().log_softmax(2).logsumexp(0) - math.log(len(each))
                else:
                    logits = network(inputs(x).contiguous(memory_format=torch.channels_last)).float()
            best = logits.topk(min(5, logits.shape[1])).indices == y[:, None]
            right = [best[:, 0].sum().double(), best.sum().double()]
            loss = nn.functional.cross_entropy(logits, y, reduction="sum").double()
            sums[:4] += torch.stack([loss, *right, torch.full_like(loss, len(y))])
            if record is not None:
                record.add((logits.clamp(-FLOAT16, FLOAT16).half().cpu().numpy(), batch.y.numpy()))
    if record is not None:
        record.end()
    sums[4] = lost
    *means, samples, all_lost = ranks.all_reduce_sum(sums).tolist()
    if not samples:
        raise TrainError(f"no sample of {blocks.name} can be read: copy the band again")
    loss, top1, top5 = (value / samples for value in means)
    return Evaluation(loss, top1, top5, int(all_lost))


def evaluate_checkpoint(
    shards: str, path: Path, plan: TrainPlan, ten_crop: bool = False, ranks: Ranks = SINGLE_PROCESS
) -> Evaluation:
    """Evaluate the network of a checkpoint on the val part of its band, wherever that lies.

    plan: device, precision and reading are taken from it.  Raises TrainError, FormatError, ShardError, StoreError.
    """
    store, manifest = open_band(shards)
    found = checkpoint.load(path)
    there, here = (json.loads(canonical_json(band)) for band in (found["band"], asdict(manifest)))
    if differences := _differences(there, here):
        raise TrainError(
            f"{path} was trained on other data than {shown(shards)} ({'; '.join(differences)}): name the band that it "
            "was trained on"
        )
    if "val" not in manifest.parts or not manifest.parts["val"].samples:
        raise TrainError(f"{shown(shards)} has no val part: there is nothing to evaluate")
    options = found["identity"]["options"]
    manifest = replace(manifest, mean=tuple(found["band"]["mean"]), std=tuple(found["band"]["std"]))  # as it learned
    session = Session(manifest, replace(plan, network=options["network"], recipe=Recipe(**options["recipe"])), ranks)
    session.load(found)
    return evaluate(session, BlockReader(store, manifest, "val", plan.reading.open_cache()), ten_crop)


def _differences(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """In what the band of a checkpoint and that of some shards differ, of what its network depends on."""
    found = []
    if there["band"] != here["band"]:
        found.append(f"band {there['band']} there, {here['band']} here")
    for name, value in here["geometry"].items():
        if there["geometry"].get(name) != value:
            found.append(f"{name} {there['geometry'].get(name)} there, {value} here")
    classes, others = there["classes"], here["classes"]
    if len(classes) != len(others):
        found.append(f"{len(classes)} classes there, {len(others)} here")
    elif classes != others:
        number, one, other = next((i, a, b) for i, (a, b) in enumerate(zip(classes, others, strict=True)) if a != b)
        found.append(f"class {number} is {one} there, {other} here")
    return found
