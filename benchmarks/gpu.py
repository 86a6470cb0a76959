"""What a GPU does with our data: step rates of the published networks, and whether reading keeps up with them.

    python benchmarks/gpu.py ../shared/data/imagenet-sample

Meant to end within ten minutes on one GPU. Every network of the published table makes whole training steps (bfloat16,
channels last) on band 0 of splits of SOURCE: on one batch that is always the same and on the device (synthetic),
streamed from the shards, from memory, and from the device. Then spectral-train is killed and goes on, trains under
torchrun with one rank, and trains two networks at once; an exported ensemble runs on the device. `--device cpu` does
the same on a CPU, for a check of this program.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
import torch
from split import repeated

from published import ROWS, Row
from spectral_shards.preprocess.config import SplitConfig
from spectral_shards.preprocess.split.job import prepare, split
from spectral_shards.shards_manifest.dataset import open_bands
from spectral_shards.shards_manifest.runtime.executors import Backend
from spectral_shards.train import recipes
from spectral_shards.train.config import TrainPlan
from spectral_shards.train.data.loader import BandLoader, LoaderOptions
from spectral_shards.train.engine.model import Model
from spectral_shards.train.engine.train_step import TrainStep
from spectral_shards.train.networks import NetworkOptions

RATE = 1e-4  # learning rate: what a step takes does not depend on it
WARM = 3  # steps before timing
COMPILED = ("alexnet", "resnet34")  # networks whose compiled steps are timed too, on planes of 56


@dataclass(frozen=True)
class Settings:
    """How everything is measured.

    Attributes:
        device: The training device.
        batch_size: Images of a step.
        seconds: Of each measurement.
        workers: Threads that read ahead.
    """

    device: str
    batch_size: int
    seconds: float
    workers: int


Batches = Iterator[tuple[torch.Tensor, torch.Tensor]]


def splits(source: Path, folder: Path, times: int) -> None:
    """Split the images of `source`, each several times over, for every factor and size of the table."""
    images = repeated(source, folder / "images", times, large=False)
    for factor, size in sorted({(row.factor, row.size) for row in ROWS}):
        config = SplitConfig(factor, size=size, bands=(0,), val_per_class=0)
        split(prepare(images, config), folder / f"sub{factor}", Backend(jobs=len(os.sched_getaffinity(0))))


def synchronized(device: str) -> float:
    """Return the time once the device has done what it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter()


def training_step(row: Row, band: Path, settings: Settings, compiled: bool = False) -> TrainStep:
    """Return the step of a row's network with the row's classes."""
    classes = tuple(map(str, range(row.classes)))
    manifests = [replace(each, classes=classes) for each in open_bands(band).each]
    recipe = recipes.load(row.recipe, batch_size=settings.batch_size)
    plan = TrainPlan(
        NetworkOptions(row.network), recipe, device=settings.device, precision="bfloat16", compile=compiled
    )
    step = TrainStep(Model(manifests, plan), recipe)
    step.model.train()
    return step


def rate(step: TrainStep, batches: Batches, settings: Settings) -> tuple[float, float]:
    """Return the images/s of steps, and the share of the time that went by waiting for batches."""
    for number in range(WARM):
        step(*next(batches), number, RATE)
    started = synchronized(settings.device)
    images, waiting, number = 0, 0.0, WARM
    while time.perf_counter() - started < settings.seconds:
        asked = time.perf_counter()
        x, y = next(batches)
        waiting += time.perf_counter() - asked
        step(x, y, number, RATE)
        images += len(y)
        number += 1
    seconds = synchronized(settings.device) - started
    return images / seconds, waiting / seconds


def fixed(loader: BandLoader, device: str) -> Batches:
    """Yield one batch, on the device, without end."""
    x, y = next(iter(loader))
    x, y = x.to(device), y.to(device)
    while True:
        yield x, y


def epochs(loader: BandLoader) -> Batches:
    """Yield epoch after epoch."""
    while True:
        yield from loader


def row_line(row: Row, folder: Path, settings: Settings) -> str:
    """Return a line of the table of step rates."""
    band = folder / f"sub{row.factor}" / "00"
    step = training_step(row, band, settings)
    if settings.device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
    cells, base = [row.name, str(row.plane)], 0.0
    for place in ("synthetic", "off", "memory", settings.device):
        options = LoaderOptions(resident="off" if place == "synthetic" else place)
        with closing(
            BandLoader(band, "train", settings.batch_size, workers=settings.workers, options=options)
        ) as loader:
            if place == "synthetic":
                base, _ = rate(step, fixed(loader, settings.device), settings)
                cells.append(f"{base:,.0f}")
                continue
            if place != "off":  # what is measured is the time after the first epoch
                for _ in loader:
                    pass
            found, waiting = rate(step, epochs(loader), settings)
            cells += [f"{found / base:.3f}", f"{waiting:.2%}"]
    if row.network in COMPILED and row.factor == 16:
        del step
        with closing(BandLoader(band, "train", settings.batch_size)) as loader:
            compiled = training_step(row, band, settings, compiled=True)
            found, _ = rate(compiled, fixed(loader, settings.device), settings)
        cells.append(f"{found / base:.2f}")
    else:
        cells.append("")
    peak = torch.cuda.max_memory_allocated() / 1e9 if settings.device.startswith("cuda") else 0.0
    return f"| {' | '.join([*cells, f'{peak:.1f}'])} |"


def program(name: str) -> str:
    """Return the path of an installed program."""
    return str(Path(sys.executable).with_name(name))


def run(*command: str | Path, kill_at: Path | None = None) -> float:
    """Run an installed program, or a module of Python, and kill it once a file is there. Returns its seconds."""
    started = time.perf_counter()
    name, *arguments = map(str, command)
    first = [sys.executable, name, *arguments] if name == "-m" else [program(name), *arguments]
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(first, stdout=subprocess.DEVNULL, stderr=errors)
        while kill_at is not None and process.poll() is None and not kill_at.exists():
            time.sleep(0.01)
        if kill_at is not None:
            process.send_signal(signal.SIGKILL)
        if process.wait() and kill_at is None:
            errors.seek(0)
            raise click.ClickException(f"{' '.join(first)}: {errors.read()}")
    return time.perf_counter() - started


def whole_runs(source: Path, folder: Path, device: str) -> Iterator[str]:
    """Train small networks by the programs themselves, and yield sentences on what came out."""
    run("spectral-prep", "split", source, "--factor", "4", "--size", "32", "--limit", "4000", "--out", folder / "small")
    small = ("--network", "cnn", "--recipe", "quick", "--epochs", "4", "--batch-size", "64", "--device", device)
    train: tuple[str | Path, ...] = ("spectral-train", "--shards", folder / "small", "--bands", "stack", *small)
    run(*train, "--out", folder / "whole")
    run(*train, "--save-every", "0", "--out", folder / "killed", kill_at=folder / "killed" / EVERY / "checkpoint.pt")
    run(*train, "--out", folder / "killed")
    losses = [last_loss(folder / name / EVERY) for name in ("whole", "killed")]
    yield f"killed and gone on with: loss {losses[1]:.6f}, without {losses[0]:.6f}"
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1", "--no-python")
    run(*launcher, program("spectral-train"), *train[1:], "--out", folder / "rank")
    yield f"torchrun with one rank: loss {last_loss(folder / 'rank' / EVERY):.6f}"
    two = ("spectral-train", "--shards", folder / "small", "--bands", "stackx2", *small)
    seconds = [run(*two, "--jobs", jobs, "--out", folder / f"jobs{jobs}") for jobs in ("1", "2")]
    yield f"two networks in turn: {seconds[0]:.0f} s; at once: {seconds[1]:.0f} s"
    run("spectral-ensemble", folder / "jobs2", "--export", folder / "ensemble.pt2")
    model = torch.export.load(str(folder / "ensemble.pt2")).module()
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (8, 3, 64, 64), np.uint8))
    with torch.inference_mode():
        here = model(images)
        there = model.to(device)(images.to(device)).cpu()
    yield f"exported ensemble on {device}: at most {float((here - there).abs().max()):.1e} from the CPU"


EVERY = "00+01+02+03"


def last_loss(run_folder: Path) -> float:
    """Return the training loss of a run's last epoch."""
    return float(json.loads((run_folder / "metrics.jsonl").read_text().splitlines()[-1])["train_loss"])


@click.command()
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--small",
    type=click.Path(exists=True, path_type=Path),
    help="Images for the whole runs.  [default: SOURCE/../cifar10]",
)
@click.option("--device", default="cuda:0", show_default=True)
@click.option("--only", default="", help="Rows whose name contains this.")
@click.option("--batch-size", default=256, show_default=True)
@click.option("--times", default=8, show_default=True, help="How often each image is repeated.")
@click.option("--seconds", default=2.0, show_default=True, help="Of each measurement.")
@click.option("--workers", default=4, show_default=True)
def main(
    source: Path, small: Path | None, device: str, only: str, batch_size: int, times: int, seconds: float, workers: int
) -> None:
    """Print the tables."""
    settings = Settings(device, batch_size, seconds, workers)
    where = torch.cuda.get_device_name(device) if device.startswith("cuda") else "CPU"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        splits(source, folder, times)
        click.echo(f"{where}, torch {torch.__version__}, batches of {batch_size}, bfloat16\n")
        click.echo(
            "| system | plane | synthetic, images/s | streamed | waiting | in memory | waiting | on the device "
            "| waiting | compiled | peak, GB |"
        )
        click.echo("|" + "---|" * 11)
        for row in ROWS:
            if only in row.name:
                click.echo(row_line(row, folder, settings))
        click.echo("")
        for sentence in whole_runs(small or source.parent / "cifar10", folder, device):
            click.echo(f"- {sentence}")


if __name__ == "__main__":
    main()
