"""Short trainings of a small network, for tests."""

from train import recipes
from train.plan import Reading, TrainPlan

QUICK = ("--network", "cnn", "--recipe", "quick", "--epochs", "2", "--batch-size", "16", "--workers", "0")


def quick(**fields: object) -> TrainPlan:
    recipe = recipes.load("quick", **{"epochs": 2, "batch_size": 16, **fields})
    return TrainPlan("cnn", recipe, reading=Reading(workers=0))
