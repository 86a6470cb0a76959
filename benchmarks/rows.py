"""Every system of the published table: its size, its cost, the speed of a training step here, and a short real run.

    python benchmarks/rows.py ../shared/data/cifar10/train

Sizes, multiply-adds and steps are of the table's own classes. The steps of a baseline and of its sub-networks are
timed in turn, and a second table has what an epoch costs beside the baseline's, and what is printed. The short runs
are by spectral-train itself, on band 0 of splits of SOURCE enlarged to the table's sizes, with the classes of SOURCE.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from statistics import mean, median

import click
import torch

from published import ROWS, Row
from spectral_shards.preprocess.config import SplitConfig
from spectral_shards.preprocess.split.job import prepare, split
from spectral_shards.shards_manifest.dataset import open_band
from spectral_shards.shards_manifest.runtime.executors import Backend
from spectral_shards.shards_manifest.shard.reader import BlockReader
from spectral_shards.train import recipes
from spectral_shards.train.config import TrainPlan
from spectral_shards.train.engine.model import Model
from spectral_shards.train.engine.train_step import TrainStep
from spectral_shards.train.networks import InputShape, NetworkOptions
from spectral_shards.train.networks.profile import FLOAT, MIB, describe

RATES = {"resnet50": 0.001, "vgg16": 0.001}  # of the short runs: at 0.01 their first steps overshoot
RATE = 0.01
VAL = 10  # images a class


def splits(source: Path, folder: Path, samples: int) -> None:
    """Splits of `samples` train images, and a few for val, for every factor and size of the table."""
    val = VAL * len(prepare(source, SplitConfig(1)).listing.classes)
    limit = max(samples + val, 3 * val)  # drawn at random, some for train in every class
    for factor, size in sorted({(row.factor, row.size) for row in ROWS}):
        plan = SplitConfig(factor, size=size, bands=(0,), limit=limit, samples_per_block=16, val_per_class=VAL)
        split(prepare(source, plan), folder / f"sub{factor}", Backend(jobs=2))


def timed_steps(row: Row, band: Path, batch_size: int) -> Iterator[float]:
    """Images/s of whole training steps on stored samples, labels at random: without end, the first to warm up."""
    store, manifest = open_band(band)
    blocks = BlockReader(store, manifest, "train")
    x = torch.cat([torch.from_numpy(blocks.read(b)[0].copy()) for b in range(-(-batch_size // manifest.block))])
    x, y = x[:batch_size], torch.randint(0, row.classes, (batch_size,))
    classes = tuple(map(str, range(row.classes)))
    recipe = recipes.load(row.recipe)
    step = TrainStep(
        Model([replace(manifest, classes=classes)], TrainPlan(NetworkOptions(row.network), recipe)), recipe
    )
    step.model.train()
    number = 0
    while True:
        begun = time.perf_counter()
        loss, _ = step(x, y, number, 1e-4)  # what a step takes does not depend on the rate
        float(loss)  # waits for the device
        yield batch_size / (time.perf_counter() - begun)
        number += 1


def rates(rows: list[Row], folder: Path, batch_size: int, runs: int) -> dict[Row, list[float]]:
    """The rates of the steps of a baseline and its sub-networks, one of each in turn."""
    steps = {row: timed_steps(row, folder / f"sub{row.factor}" / "00", batch_size) for row in rows}
    rounds = [{row: next(timed) for row, timed in steps.items()} for _ in range(runs + 1)]
    return {row: [found[row] for found in rounds[1:]] for row in rows}


def size_line(row: Row, rates: list[float]) -> str:
    """What a system is and how fast its steps are, as a line of a table."""
    card = describe(NetworkOptions(row.network), InputShape(row.plane, row.classes))
    size = FLOAT * (card.parameters + (card.buffers if row.buffers else 0)) / MIB
    return (
        f"| {row.name} | `{row.command}` | {size:.2f} | {row.printed_size:.2f} | {card.multiply_adds / 1e9:.3f} G "
        f"| {median(rates):.1f} ({min(rates):.1f} to {max(rates):.1f}) |"
    )


def cost_lines(found: dict[Row, list[float]]) -> Iterator[str]:
    """The time of an epoch over the baseline's: of one sub-network, of all, and the hours as printed."""
    for row, mine in found.items():
        whole = next((r for r in found if (r.network, r.classes, r.factor) == (row.network, row.classes, 1)), None)
        if whole is None or row is whole:
            continue
        ratios = [a / b for a, b in zip(found[whole], mine, strict=True)]
        one = median(ratios)
        printed = f"{row.hours / whole.hours:.2f}" if row.hours and whole.hours else "-"
        yield (
            f"| {row.name} | {one:.3f} ({min(ratios):.3f} to {max(ratios):.3f}) | {one * row.factor:.2f} | {printed} |"
        )


def short_run(row: Row, folder: Path, batch_size: int) -> str:
    """A run by spectral-train, as a line of a table: how its loss falls, and the waiting for data.

    The recipe's schedule is compressed to two epochs: a cosine over both, or a step after the first.
    """
    lr = RATES.get(row.network, RATE)
    out = folder / "runs" / row.name.replace(" ", "-").replace(",", "")
    command = [
        str(Path(sys.executable).with_name("spectral-train")),
        "--shards",
        str(folder / f"sub{row.factor}" / "00"),
    ]
    command += [
        "--network",
        row.network,
        "--recipe",
        row.recipe,
        "--lr",
        str(lr),
        "--holdout-samples",
        "0",
        "--epochs",
        "2",
    ]
    command += ["--step-epochs", "1", "--batch-size", str(batch_size), "--out", str(out), "--no-resume"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise click.ClickException(f"{' '.join(command)}: {done.stderr}")
    losses = [json.loads(line)["loss"] for line in (out / "steps.jsonl").read_text().splitlines()]
    data_wait = [json.loads(line)["data_wait"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    sixth = len(losses) // 6  # lines of as many steps each
    return f"| {row.name} | {lr} | {mean(losses[:sixth]):.3f} | {mean(losses[-sixth:]):.3f} | {median(data_wait):.1%} |"


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--only", default="", help="Rows whose name contains this.")
@click.option("--step-batch", default=32, show_default=True, help="Images of a timed step.")
@click.option("--runs", default=3, show_default=True, help="Timed steps, after one that warms up.")
@click.option("--steps", default=240, show_default=True, help="Of the short runs, a multiple of 240; 0 for none.")
@click.option("--batch-size", default=8, show_default=True, help="Images of a short run's step.")
@click.option("--keep", type=click.Path(path_type=Path), help="Where the splits and the runs stay.")
def main(source: Path, only: str, step_batch: int, runs: int, steps: int, batch_size: int, keep: Path | None) -> None:
    """Print the tables."""
    with ExitStack() as stack:
        folder = keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        splits(source, folder, max(steps * batch_size // 2, step_batch))
        rows = [row for row in ROWS if only in row.name]
        found: dict[Row, list[float]] = {}
        click.echo(
            f"torch {torch.__version__}, {torch.get_num_threads()} threads, batches of {step_batch}, n = {runs}\n"
        )
        click.echo(
            "| system | command | size, MiB | printed | multiply-adds | images/s of a step |\n|---|---|---|---|---|---|"
        )
        for _, family in groupby(rows, lambda row: (row.network, row.classes)):
            measured = rates(list(family), folder, step_batch, runs)
            found.update(measured)
            click.echo("\n".join(size_line(row, mine) for row, mine in measured.items()))
        click.echo("\n| system | one sub-network's epoch | all of them | printed, all |\n|---|---|---|---|")
        click.echo("\n".join(cost_lines(found)))
        if steps:
            click.echo(f"\nShort runs: {steps} steps of {batch_size}\n")
            click.echo(
                "| system | rate | loss of the first sixth | of the last sixth | waiting |\n|---|---|---|---|---|"
            )
        for row in rows if steps else ():
            click.echo(short_run(row, folder, batch_size))


if __name__ == "__main__":
    main()
