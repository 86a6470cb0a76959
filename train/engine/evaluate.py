"""Metrics of a network over a part, each sample once, by any number of ranks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch

from ...shards_manifest.dataset import Split, open_bands, open_data
from ...shards_manifest.manifest import BandManifest
from ...shards_manifest.runtime.progress import ProgressLine
from ...shards_manifest.storage.address import shown
from ..config import TrainPlan
from ..data.loader import BandLoader, LoaderOptions
from ..distributed import SINGLE_PROCESS, Ranks
from ..errors import TrainError
from ..recipes import Recipe
from ..runs import checkpoint
from ..runs.predictions import PredictionWriter
from ..runs.run_folder import RunFolder
from .metrics import METRICS, Evaluation, summed
from .model import Model

FLOAT16 = torch.finfo(torch.float16).max  # outputs are kept in it


def eval_batch_size(recipe: Recipe, world_size: int) -> int:
    """Return the samples of an evaluation batch of one rank: as many as a training step has at once, 256 at least."""
    return max(recipe.batch_size // (recipe.grad_accum_steps * world_size), 256)


@torch.inference_mode()
def evaluate(
    model: Model,
    loader: BandLoader,
    ten_crop: bool = False,
    writer: PredictionWriter | None = None,
    progress: Callable[[int], object] = lambda samples: None,
) -> Evaluation:
    """Evaluate a network on every sample of a loader once. All ranks call this together.

    Args:
        model: The network; what `eval_model` says is evaluated.
        loader: The part.
        ten_crop: Take the mean of the probabilities of ten crops in place of the centre's.
        writer: Takes the outputs, in stored order. They are of no use where samples were lost.
        progress: Called with the samples of each batch, over all ranks.

    Raises:
        TrainError: No sample can be read, or the planes have no margin for ten crops.
        ShardError: A shard is damaged.
    """
    network, augmentation, ranks = model.eval_model.eval(), model.augmentation.eval(), model.ranks
    ranks.broadcast_buffers(network)
    lost = loader.lost
    if writer is not None:
        writer.begin(loader.rank_starts)
    zero = torch.zeros((), dtype=torch.float64, device=model.device)
    sums = {**dict.fromkeys(METRICS, zero), "samples": zero}
    for stored, labels in loader:
        if not len(labels):
            continue
        x, y = model.to_device(stored, labels)
        with model.autocast():
            if ten_crop:
                crops = augmentation.ten_crops(x)
                each = [network(crop.contiguous(memory_format=torch.channels_last)) for crop in crops]
                logits = torch.stack(each).float().log_softmax(2).logsumexp(0) - math.log(len(each))
            else:
                logits = network(augmentation(x).contiguous(memory_format=torch.channels_last)).float()
        for name, metric in METRICS.items():
            sums[name] = sums[name] + metric(logits, y)
        sums["samples"] = sums["samples"] + len(y)
        progress(len(y) * ranks.world_size)
        if writer is not None:
            writer.add((logits.clamp(-FLOAT16, FLOAT16).half().cpu().numpy(), labels.cpu().numpy()))
    if writer is not None:
        writer.end()
    totals = summed(ranks, model.device, {**sums, "lost": loader.lost - lost})
    if not totals["samples"]:
        raise TrainError(f"no sample of {loader.name} can be read: copy the band again")
    return Evaluation({name: totals[name] / totals["samples"] for name in METRICS}, int(totals["lost"]))


class Evaluator:
    """Evaluates the parts of a band while it is trained, and keeps the outputs of the last time.

    Args:
        model: The network that is trained.
        loaders: Of the parts to evaluate, by their names.
        run: Where the outputs go.
        classes: The number of classes.
    """

    def __init__(self, model: Model, loaders: Mapping[str, BandLoader], run: RunFolder, classes: int) -> None:
        self._model, self._loaders, self._run, self._classes = model, loaders, run, classes

    def __call__(self, last: bool) -> dict[str, Evaluation]:
        """Evaluate every part. last: keep the outputs. All ranks call this together. Raises TrainError, ShardError."""
        return {part: self._evaluate(part, loader, last) for part, loader in self._loaders.items()}

    def _evaluate(self, part: str, loader: BandLoader, last: bool) -> Evaluation:
        model = self._model
        if not last:
            return evaluate(model, loader)
        writer = PredictionWriter(model.ranks, model.device)
        if not model.ranks.is_rank0:
            return evaluate(model, loader, writer=writer)
        with self._run.predictions(part, loader.samples, self._classes) as (writer.logits, writer.labels):
            found = evaluate(model, loader, writer=writer)
        if found.lost:
            self._run.forget_predictions(part)
        return found


def evaluate_checkpoint(
    shards: str,
    path: Path,
    plan: TrainPlan,
    ten_crop: bool = False,
    ranks: Ranks = SINGLE_PROCESS,
    quiet: bool = True,
) -> Evaluation:
    """Evaluate the network of a checkpoint on the val part of its bands, wherever they lie.

    Args:
        shards: The folder or URL of the split, or of the band if it reads one.
        path: The checkpoint.
        plan: Device, precision and reading are taken from it.
        ten_crop: As in `evaluate`.
        ranks: The processes that evaluate together.
        quiet: Show no progress.

    Raises:
        TrainError: The checkpoint is damaged, or of other data, or there is no val part.
        FormatError, ShardError, StoreError: The band cannot be read.
    """
    found = checkpoint.load_checkpoint(path)
    data = open_data(shards)
    opened = open_bands(data, [band.band for band in found.bands] if isinstance(data, Split) else ())
    if differences := _differences(found.bands, opened.each):
        raise TrainError(
            f"{path} was trained on other data than {shown(shards)} ({'; '.join(differences)}): name the bands that it "
            "was trained on"
        )
    if "val" not in opened.first.parts or not opened.first.parts["val"].samples:
        raise TrainError(f"{shown(shards)} has no val part: there is nothing to evaluate")
    options = found.identity.options
    plan = replace(plan, network=options.network, recipe=options.recipe)
    model = Model(opened.each, plan, ranks, learned=found.bands)
    try:
        model.load_state_dict(dict(found.state))
    except (KeyError, RuntimeError) as error:
        raise TrainError(f"{path} does not fit its network ({str(error).splitlines()[0]}): copy it again") from None
    reading = plan.reading
    loader = BandLoader(
        opened,
        "val",
        eval_batch_size(plan.recipe, ranks.world_size),
        rank=ranks.rank,
        world_size=ranks.world_size,
        workers=reading.workers,
        options=LoaderOptions(cache=reading.open_cache(), skip_bad_shards=reading.skip),
    )
    with ProgressLine(f"evaluate {path}", "samples", loader.samples, quiet=quiet) as progress:
        return evaluate(model, loader, ten_crop, progress=progress)


def _differences(trained: Sequence[BandManifest], found_here: Sequence[BandManifest]) -> list[str]:
    """Return in what some bands differ from others, of what a network depends on."""
    found = []
    numbers = ["+".join(str(band.band) for band in bands) for bands in (trained, found_here)]
    if numbers[0] != numbers[1]:
        found.append(f"band {numbers[0]} there, {numbers[1]} here")
    there, here = trained[0], found_here[0]
    for name, value in sorted(asdict(here.geometry).items()):
        if getattr(there.geometry, name) != value:
            found.append(f"{name} {getattr(there.geometry, name)} there, {value} here")
    if len(there.classes) != len(here.classes):
        found.append(f"{len(there.classes)} classes there, {len(here.classes)} here")
    elif there.classes != here.classes:
        pairs = enumerate(zip(there.classes, here.classes, strict=True))
        number, one, other = next((i, a, b) for i, (a, b) in pairs if a != b)
        found.append(f"class {number} is {one} there, {other} here")
    return found
