"""Short trainings of a small network, for tests."""

from spectral_shards.train import recipes
from spectral_shards.train.config import ReadOptions, TrainPlan

QUICK = ("--network", "cnn", "--recipe", "quick", "--epochs", "2", "--batch-size", "16", "--workers", "0")


def quick(**fields: object) -> TrainPlan:
    recipe = recipes.load("quick", **{"epochs": 2, "batch_size": 16, **fields})
    return TrainPlan("cnn", recipe, reading=ReadOptions(workers=0))
