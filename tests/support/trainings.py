"""Short trainings of a small network, for tests."""

from spectral_shards.shards_manifest.manifest import BandManifest
from spectral_shards.train import recipes
from spectral_shards.train.config import ReadOptions, TrainPlan
from spectral_shards.train.engine.model import Model
from spectral_shards.train.engine.train_step import TrainStep
from spectral_shards.train.networks import NetworkOptions

QUICK = ("--network", "cnn", "--recipe", "quick", "--epochs", "2", "--batch-size", "16")
QUICK += ("--resident", "off", "--workers", "0")  # what other tests have in memory would be shared


def quick(**fields: object) -> TrainPlan:
    recipe = recipes.load("quick", **{"epochs": 2, "batch_size": 16, **fields})
    return TrainPlan(NetworkOptions("cnn"), recipe, reading=ReadOptions(workers=0))


def train_step(manifest: BandManifest, plan: TrainPlan) -> TrainStep:
    """A step of a plan, in one process."""
    return TrainStep(Model([manifest], plan), plan.recipe, plan.seed)
