"""What making a network's inputs takes: crop, flip, dequantise and normalise a batch, as it is and compiled.

    python benchmarks/augment.py ../shared/data/cifar10

Only shapes matter here: a few images are split, and batches are random numbers. Beside it stands the least that a pass
can take, a copy of the stored planes to float32.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median

import click
import torch

from spectral_shards.preprocess.config import SplitConfig
from spectral_shards.preprocess.split.job import prepare, split
from spectral_shards.shards_manifest.dataset import open_bands
from spectral_shards.shards_manifest.runtime.executors import Backend
from spectral_shards.train.augment.planes import DRAWS, BandAugmentation

FORMS: tuple[tuple[str, SplitConfig, tuple[int, ...], int, str], ...] = (
    ("one of 36 bands, planes of 60 cropped to 56", SplitConfig(36, size=336, margin=24), (0,), 0, "planes"),
    ("four bands as channels, planes of 16 moved by 1", SplitConfig(4, size=32, transform="dct2"), (), 1, "planes"),
    ("the image of four bands, 32x32 moved by 2", SplitConfig(4, size=32, transform="dct2"), (), 1, "image"),
)


def seconds(call: Callable[[], object], device: str, least: float = 0.3) -> float:
    """Return the time of a call: the mean over so many calls that they take long enough."""
    calls, started = 0, time.perf_counter()
    while time.perf_counter() - started < least:
        for _ in range(10):
            call()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        calls += 10
    return (time.perf_counter() - started) / calls


@click.command()
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.option("--device", default="cpu", show_default=True)
@click.option("--batch-size", default=256, show_default=True)
@click.option("--runs", default=5, show_default=True)
def main(source: Path, device: str, batch_size: int, runs: int) -> None:
    """Print us a sample: medians, least and largest of some runs in turn."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        click.echo("| inputs | float32 copy, us a sample | eager | compiled |\n|---|---|---|---|")
        for number, (title, config, bands, shift, inputs) in enumerate(FORMS):
            folder = Path(name) / str(number)
            split(prepare(source, replace(config, limit=20)), folder, Backend(jobs=1))
            manifests = open_bands(folder, bands).each
            eager = BandAugmentation(manifests, flip=True, random_shift=shift, inputs=inputs).train().to(device)
            compiled = torch.compile(eager)
            side = manifests[0].geometry.plane
            x = torch.randint(-99, 99, (batch_size, len(manifests), 3, side, side), dtype=torch.int8, device=device)
            random = torch.rand(DRAWS, batch_size, device=device)
            calls: tuple[Callable[[], object], ...] = (
                x.float,
                partial(eager, x, random),
                partial(compiled, x, random),
            )
            found: list[list[float]] = [[] for _ in calls]
            for call in calls:
                call()
            for _ in range(runs):
                for times, call in zip(found, calls, strict=True):
                    times.append(seconds(call, device) / batch_size * 1e6)
            cells = [f"{median(each):.2f} ({min(each):.2f} to {max(each):.2f})" for each in found]
            click.echo(f"| {title} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
