"""How well an epoch is shuffled: the reader's order beside a full permutation and webdataset's shards and buffer.

    python benchmarks/shuffle.py

Numbers of samples only, no files: the plan is all that decides.
"""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

import click
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from spectral_shards.train.data.sampler import EpochSampler
from support import shuffling


@click.command()
@click.option("--samples", default=1_281_167, show_default=True, help="As many as ImageNet-1K has.")
@click.option("--classes", default=1000, show_default=True)
@click.option("--batch-size", default=256, show_default=True)
@click.option("--block", default=64, show_default=True)
@click.option("--shard", default=20_000, show_default=True, help="Samples of a shard.")
@click.option("--buffer", default=1000, show_default=True, help="Of webdataset's shuffle.")
@click.option("--epochs", default=40, show_default=True)
def main(samples: int, classes: int, batch_size: int, block: int, shard: int, buffer: int, epochs: int) -> None:
    """Print a table; 1 is what a full permutation has by chance."""
    counts = np.full(-(-samples // block), block, np.int64)
    counts[-1] -= counts.sum() - samples
    plan = EpochSampler.of(counts, batch_size, block * 3 * 56 * 56, seed=0)
    mixed = np.random.default_rng(0).permutation(samples) % classes  # as a split stores samples
    by_class = np.arange(samples) * classes // samples  # as no split does
    orders = {
        "full permutation": [shuffling.permuted(samples, epoch) for epoch in range(epochs)],
        f"slots ({plan.slots} blocks)": [shuffling.ours(plan, epoch) for epoch in range(epochs)],
        f"shards, buffer of {buffer}": [
            shuffling.shards_and_buffer(samples, shard, buffer, epoch) for epoch in range(epochs)
        ],
    }
    click.echo(f"{samples} samples, {classes} classes, batches of {batch_size}, {epochs} epochs, shards of {shard}\n")
    click.echo("| order | class mix | were it stored by class | pairs met again | position over epochs |")
    click.echo("|---|---|---|---|---|")
    for name, each in orders.items():
        mix, worst = (shuffling.class_mix(each[0], label, batch_size) for label in (mixed, by_class))
        again = np.mean([shuffling.met_again(*pair, batch_size) for pair in pairwise(each[:4])])
        row = f"{mix:.3f} | {worst:.2f} | {again:.2f} | {shuffling.spread(each, samples):.3f}"
        click.echo(f"| {name} | {row} |")


if __name__ == "__main__":
    main()
