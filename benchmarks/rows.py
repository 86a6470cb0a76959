"""Every system of the published table: its size, its cost, the speed of a training step here, and a short real run.

    python benchmarks/rows.py ../shared/data/cifar10 --steps 200

The short runs are by spectral-train itself, on band 0 of splits of SOURCE enlarged to the table's size, with the
classes of SOURCE; sizes, multiply-adds and steps are of the table's own classes. A second table has what an epoch
costs beside the baseline's, from the speed of the steps, beside what is printed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from statistics import median

import click
import torch
from published import ROWS, Row

from preprocess.plan import SplitPlan
from preprocess.run import prepare, split
from shards_manifest import open_band
from shards_manifest.backend import Backend
from train import recipes
from train.blocks import PartBlocks
from train.describe import FLOAT, MIB, describe
from train.plan import TrainPlan
from train.reader import Batch
from train.session import Session


def splits(source: Path, folder: Path, samples: int) -> None:
    """Splits of `samples` train images for every factor and size of the table."""
    for factor, size in sorted({(row.factor, row.size) for row in ROWS}):
        plan = SplitPlan(factor, size=size, bands=(0,), limit=samples, samples_per_block=16)
        split(prepare(source, plan), folder / f"sub{factor}", Backend(jobs=2))


def step_rate(row: Row, band: Path, batch_size: int, runs: int) -> tuple[float, float, float]:
    """Images/s of whole training steps on stored samples, labels at random: median, least, largest."""
    store, manifest = open_band(band)
    blocks = PartBlocks(store, manifest, "train")
    x = torch.cat([torch.from_numpy(blocks.read(b)[0].copy()) for b in range(-(-batch_size // manifest.block))])
    batch = Batch(x[:batch_size], torch.randint(0, row.classes, (batch_size,)))
    classes = tuple(map(str, range(row.classes)))
    session = Session(replace(manifest, classes=classes), TrainPlan(row.network, recipes.load(row.recipe)))
    session.network.train()
    rates = []
    for number in range(runs + 1):
        begun = time.perf_counter()
        loss, _ = session.step(batch, number, 0.01)
        float(loss)  # waits for the device
        rates.append(batch_size / (time.perf_counter() - begun))
    return median(rates[1:]), min(rates[1:]), max(rates[1:])


def short_run(row: Row, band: Path, out: Path, batch_size: int, steps: int) -> tuple[float, float, float]:
    """The loss of the first and of the last 20 steps of a run by spectral-train, and the share of waiting for data."""
    _, manifest = open_band(band)
    epochs = -(-steps * batch_size // manifest.parts["train"].samples)
    command = [str(Path(sys.executable).with_name("spectral-train")), "--shards", str(band), "--out", str(out)]
    command += ["--network", row.network, "--recipe", row.recipe, "--lr", "0.01", "--hold-out", "0"]
    command += ["--epochs", str(epochs), "--batch-size", str(batch_size), "--no-resume"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise click.ClickException(f"{' '.join(command)}: {done.stderr}")
    lines = [json.loads(line) for line in (out / "steps.jsonl").read_text().splitlines()]
    waited = [json.loads(line)["waited"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    return lines[0]["loss"], lines[-1]["loss"], median(waited)


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--only", default="", help="Rows whose name contains this.")
@click.option("--batch-size", default=8, show_default=True)
@click.option("--steps", default=200, show_default=True, help="Of the short run; 0 for none.")
@click.option("--runs", default=3, show_default=True, help="Timed steps, after one that warms up.")
@click.option("--keep", type=click.Path(path_type=Path), help="Where the splits and the runs stay.")
def main(source: Path, only: str, batch_size: int, steps: int, runs: int, keep: Path | None) -> None:
    """Print the tables."""
    with ExitStack() as stack:
        folder = keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        splits(source, folder, batch_size * 100)
        click.echo(f"batches of {batch_size}, {runs} timed steps, {steps} steps of a short run, {torch.__version__}\n")
        click.echo("| system | size, MiB | printed | multiply-adds | images/s of a step | loss of the short run |")
        click.echo("|---|---|---|---|---|---|")
        found: dict[Row, float] = {}
        for row in (row for row in ROWS if only in row.name):
            band = folder / row.split / "00"
            card = describe(row.network, row.plane, row.classes)
            size = FLOAT * (card.parameters + (card.buffers if row.buffers else 0)) / MIB
            found[row], least, most = step_rate(row, band, batch_size, runs)
            run = "-"
            if steps:
                name = row.name.replace(" ", "-").replace(",", "")
                first, last, waited = short_run(row, band, folder / "runs" / name, batch_size, steps)
                run = f"{first:.3f} to {last:.3f}, {waited:.1%} waiting"
            click.echo(
                f"| {row.name} | {size:.2f} | {row.printed_size:.2f} | {card.multiply_adds / 1e9:.3f} G "
                f"| {found[row]:.1f} ({least:.1f} to {most:.1f}) | {run} |"
            )
        costs(found)


def costs(found: dict[Row, float]) -> None:
    """Print the time of an epoch over the baseline's: of one sub-network, of all, and the hours as printed."""
    click.echo("\n| system | one sub-network's epoch | all of them | printed, all |")
    click.echo("|---|---|---|---|")
    for row, rate in found.items():
        whole = next((r for r in found if (r.network, r.classes, r.factor) == (row.network, row.classes, 1)), None)
        if whole is None or row is whole:
            continue
        one = found[whole] / rate
        printed = f"{row.hours / whole.hours:.2f}" if row.hours and whole.hours else "-"
        click.echo(f"| {row.name} | {one:.3f} | {one * row.factor:.2f} | {printed} |")


if __name__ == "__main__":
    main()
