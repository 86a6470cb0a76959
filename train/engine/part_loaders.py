"""The loaders of a run's parts, and where their samples are kept."""

from __future__ import annotations

from ...shards_manifest.dataset import Bands
from ...shards_manifest.runtime.cli_runner import human_bytes
from ..config import TrainPlan
from ..data.loader import BandLoader, LoaderOptions
from ..data.residence import decompressed_bytes, free_memory, in_memory
from ..distributed import Ranks
from .evaluate import eval_batch_size


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
    resident = in_memory(reading.resident, needed, free_memory(), reading.networks)
    options = LoaderOptions(
        last_batch=reading.last_batch,
        holdout_samples=plan.holdout_samples,
        epochs=plan.recipe.epochs,
        cache=reading.open_cache(),
        skip_bad_shards=reading.skip,
        pin_memory=device.type == "cuda",
        resident=resident,
    )
    loaders = {
        part: BandLoader(bands, part, size, plan.seed, ranks.rank, ranks.world_size, reading.workers, options)
        for part, size in sizes.items()
    }
    kept = {part: loader for part, loader in loaders.items() if loader.samples or part == "train"}
    return kept, f"samples stay in memory from the first epoch on: {human_bytes(needed)}" if resident else ""
