"""The loaders of a run's parts, and where their samples are kept."""

from __future__ import annotations

import gc
import math

import torch

from ...shards_manifest.dataset import Bands
from ...shards_manifest.runtime.cli_runner import human_bytes
from ..config import TrainPlan
from ..data.loader import BandLoader, LoaderOptions, ResidenceError
from ..data.residence import FreeMemory, decompressed_bytes, free_memory, residence
from ..data.resident import in_shared_memory
from ..distributed import Ranks
from ..networks.profile import describe
from .evaluate import eval_batch_size

WORKSPACE = 2 * 10**9  # bytes on a GPU for what single operations need, and its libraries


def part_loaders(bands: Bands, plan: TrainPlan, ranks: Ranks) -> tuple[dict[str, BandLoader], str]:
    """Return the loaders of train, and of the holdout and val if there are any; and a sentence on where samples are.

    Args:
        bands: What the network reads.
        plan: How it is trained.
        ranks: The processes that train together.

    Returns:
        The loaders by the names of their parts; and the sentence, empty where samples are in the shards alone.

    Raises:
        TrainError: There is not the memory that was asked for.
    """
    reading, device = plan.reading, plan.torch_device(ranks.local_rank)
    sizes = {"train": plan.recipe.batch_size}
    if plan.holdout_samples:
        sizes["holdout"] = eval_batch_size(plan.recipe, ranks.world_size)
    if "val" in bands.first.parts:
        sizes["val"] = eval_batch_size(plan.recipe, ranks.world_size)
    stored = [part for part in sizes if part != "holdout"]
    needed = decompressed_bytes(bands, stored)
    shared = decompressed_bytes(bands, [part for part in stored if in_shared_memory(bands, part)])
    place = residence(reading.resident, needed, _free(bands, plan, device, shared))

    def loaders_at(place: str) -> dict[str, BandLoader]:
        options = LoaderOptions(
            last_batch=reading.last_batch,
            holdout_samples=plan.holdout_samples,
            epochs=plan.recipe.epochs,
            cache=reading.open_cache(),
            skip_bad_shards=reading.skip,
            pin_memory=device.type == "cuda",
            resident=str(device) if place == "device" else place,
        )
        return {
            part: BandLoader(bands, part, size, plan.seed, ranks.rank, ranks.world_size, reading.workers, options)
            for part, size in sizes.items()
        }

    try:
        loaders = loaders_at(place)
    except ResidenceError:
        if reading.resident != "auto":
            raise
        place = "off"  # what was free is gone meanwhile
        loaders = loaders_at(place)
    kept = {part: loader for part, loader in loaders.items() if loader.samples or part == "train"}
    where = {"device": f"on {device}", "memory": "in memory"}
    return kept, f"samples stay {where[place]} from the first epoch on: {human_bytes(needed)}" if place in where else ""


def _free(bands: Bands, plan: TrainPlan, device: torch.device, shared: int) -> FreeMemory:
    """Return what is free for samples; on a GPU beside the steps of the networks that share it.

    Args:
        bands: What the network reads.
        plan: How it is trained.
        device: The training device.
        shared: Bytes of these samples that other processes have in memory.
    """
    networks, memory = plan.reading.networks, free_memory()
    if device.type != "cuda":
        return FreeMemory(memory, None, networks, shared=shared)
    on_device = math.ceil((networks or 1) / max(torch.cuda.device_count(), 1))
    gc.collect()  # networks that were trained before in this process
    torch.cuda.empty_cache()
    step = describe(plan.network, plan.network.shape(bands.each)).training_bytes(plan.recipe) + WORKSPACE
    free = max(torch.cuda.mem_get_info(device)[0] - on_device * step, 0)
    return FreeMemory(memory, free, networks, on_device, shared)
