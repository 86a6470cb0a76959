"""Split speed on one core beside JPEG decoding alone, in turn, in one run.

    python benchmarks/split.py ../shared/data/imagenet-sample

Decoding alone is simplejpeg from memory to RGB; the split reads files, writes every band to a temporary
folder and commits it, as `spectral-prep split --jobs 1` does.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from statistics import median

import click
import simplejpeg

from preprocess.plan import SplitPlan
from preprocess.row import read_image
from preprocess.run import Job, prepare, split


def decode_alone(images: list[bytes]) -> float:
    started = time.perf_counter()
    for data in images:
        simplejpeg.decode_jpeg(data)
    return len(images) / (time.perf_counter() - started)


def whole_split(job: Job) -> float:
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        split(job, Path(folder, "out"), jobs=1)
        return sum(job.samples.values()) / (time.perf_counter() - started)


@click.command()
@click.argument("source")
@click.option("--runs", default=7, show_default=True)
@click.option("--limit", default=500, show_default=True)
def main(source: str, runs: int, limit: int) -> None:
    """Print medians and the ratio for every number of bands."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    click.echo(f"images/s on one core, medians of {runs}; the ratio is taken pair by pair\n")
    click.echo(f"{'bands':>12} {'decode alone':>14} {'split':>10} {'ratio: median':>14} {'min':>6} {'max':>6}")
    for factor, transform in ((36, "dct"), (36, "dct2"), (16, "dct"), (4, "dct"), (1, "dct")):
        job = prepare(source, SplitPlan(factor, transform=transform, val_per_class=0, limit=limit))
        images = [read_image(task, i) for task in map(job.task, job.rows) for i in range(len(task.entries))]
        rates = [(decode_alone(images), whole_split(job)) for _ in range(runs + 1)][1:]  # the first one warms up
        ratios = sorted(ours / decode for decode, ours in rates)
        click.echo(
            f"{factor:>6} {transform:>5} {median(d for d, _ in rates):14.0f} {median(s for _, s in rates):10.0f} "
            f"{median(ratios):14.3f} {ratios[0]:6.3f} {ratios[-1]:6.3f}"
        )


if __name__ == "__main__":
    main()
