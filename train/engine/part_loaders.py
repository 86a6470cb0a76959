"""The loaders of a run's parts, and where their samples are kept."""

from __future__ import annotations

import torch

from ...shards_manifest.dataset import Bands
from ...shards_manifest.runtime.cli_runner import human_bytes
from ..config import TrainPlan
from ..data.loader import BandLoader, LoaderOptions
from ..data.residence import FreeMemory, decompressed_bytes, free_memory, residence
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

    Raises:
        TrainError: There is not the memory that was asked for.
    """
    reading, device = plan.reading, plan.torch_device(ranks.local_rank)
    sizes = {"train": plan.recipe.batch_size}
    if plan.holdout_samples:
        sizes["holdout"] = eval_batch_size(plan.recipe, ranks.world_size)
    if "val" in bands.first.parts:
        sizes["val"] = eval_batch_size(plan.recipe, ranks.world_size)
    needed = decompressed_bytes(bands, sizes.keys() - {"holdout"})
    place = residence(
        reading.resident, needed, FreeMemory(free_memory(), _free_on_device(bands, plan, device), reading.networks)
    )
    options = LoaderOptions(
        last_batch=reading.last_batch,
        holdout_samples=plan.holdout_samples,
        epochs=plan.recipe.epochs,
        cache=reading.open_cache(),
        skip_bad_shards=reading.skip,
        pin_memory=device.type == "cuda",
        resident=str(device) if place == "device" else place,
    )
    loaders = {
        part: BandLoader(bands, part, size, plan.seed, ranks.rank, ranks.world_size, reading.workers, options)
        for part, size in sizes.items()
    }
    kept = {part: loader for part, loader in loaders.items() if loader.samples or part == "train"}
    where = {"device": f"on {device}", "memory": "in memory"}
    return kept, f"samples stay {where[place]} from the first epoch on: {human_bytes(needed)}" if place in where else ""


def _free_on_device(bands: Bands, plan: TrainPlan, device: torch.device) -> int | None:
    """Return the bytes that are free on a GPU beside a step; None for a CPU."""
    if device.type != "cuda":
        return None
    profile = describe(plan.network, plan.network.shape(bands.each))
    return max(torch.cuda.mem_get_info(device)[0] - profile.training_bytes(plan.recipe) - WORKSPACE, 0)
