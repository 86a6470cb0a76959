"""Training steps in each precision on this machine, in turn.

python benchmarks/step.py sub4/00 --network cnn
"""

from __future__ import annotations

import time
from statistics import median

import click
import torch

from spectral_shards.shards_manifest.dataset import open_band
from spectral_shards.train import recipes
from spectral_shards.train.config import TrainPlan
from spectral_shards.train.engine.model import Model
from spectral_shards.train.engine.train_step import TrainStep
from spectral_shards.train.networks import NetworkOptions


@click.command()
@click.argument("band")
@click.option("--network", default="cnn", show_default=True)
@click.option("--batch-size", default=128, show_default=True)
@click.option("--steps", default=10, show_default=True)
@click.option("--runs", default=5, show_default=True)
def main(band: str, network: str, batch_size: int, steps: int, runs: int) -> None:
    """Print images/s of whole steps: medians of some runs, after one that warms up."""
    _, manifest = open_band(band)
    side = manifest.geometry.plane
    x = torch.randint(-50, 50, (batch_size, 3, side, side), dtype=torch.int8)
    y = torch.randint(0, len(manifest.classes), (batch_size,))
    recipe = recipes.load("quick")
    steps_of = {
        name: TrainStep(Model([manifest], TrainPlan(NetworkOptions(network), recipe, precision=name)), recipe)
        for name in ("float32", "bfloat16")
    }
    rates: dict[str, list[float]] = {name: [] for name in steps_of}
    for _ in range(runs + 1):
        for name, step in steps_of.items():
            started = time.perf_counter()
            for _ in range(steps):
                loss, _ = step(x, y, 0, 0.01)
            float(loss)  # waits for the device
            rates[name].append(steps * batch_size / (time.perf_counter() - started))
    for name, values in rates.items():
        counted = values[1:]
        spread = f"{min(counted):.0f} to {max(counted):.0f}"
        click.echo(f"{network} on {side}x{side}, {name}: {median(counted):.0f} images/s ({spread})")


if __name__ == "__main__":
    main()
