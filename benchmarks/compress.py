"""Our DEFLATE beside ISA-L level 1 with its best window: bytes, and the time to compress and to decompress.

    python benchmarks/compress.py ../shared/data/imagenet-sample

One block of 64 images in all bands; ISA-L decompresses both. Ratios of medians of runs in turn.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import click
from isal import isal_zlib

from preprocess.blocks import BandBlocks
from preprocess.decode import Decoder
from preprocess.plan import SplitPlan
from preprocess.run import prepare
from shards_manifest import compress_block
from shards_manifest.compress import compress_with_isal

PLANS = ((36, "dct"), (36, "dct2"), (16, "dct"), (16, "dct2"), (4, "dct"), (1, "dct"))


def block(source: Path, factor: int, transform: str) -> tuple[list[bytes], int]:
    """The .npy files of a block's bands, and the bytes of a plane."""
    job = prepare(source, SplitPlan(factor, transform=transform, val_per_class=0))
    plan = job.plan
    blocks, decoder = BandBlocks(plan), Decoder(plan.size, plan.fit, plan.geometry.grid)
    for task in map(job.task, job.rows):
        for i in range(len(task.images)):
            if blocks.full:
                break
            blocks.add(decoder(task.images.read(i)), 0)
    return [bytes(array) for array in blocks.take()[0]], blocks.plane


def seconds(function: Callable[[Any], object], items: Iterable[bytes]) -> float:
    started = time.perf_counter()
    for item in items:
        function(item)
    return time.perf_counter() - started


def decompress(data: bytes) -> bytes:
    return isal_zlib.decompress(data, 31)


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--runs", default=9, show_default=True)
def main(source: Path, runs: int) -> None:
    """Print one line for each number of bands and transform."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    click.echo("| bands | bytes | time to compress | time to decompress |\n|---|---|---|---|")
    for factor, transform in PLANS:
        files, plane = block(source, factor, transform)
        packers = [partial(compress_with_isal, plane=plane), partial(compress_block, plane=plane)]
        packed = [[pack(file) for file in files] for pack in packers]
        times = [
            [(seconds(pack, files), seconds(decompress, some)) for pack, some in zip(packers, packed, strict=True)]
            for _ in range(runs)
        ]
        size = sum(map(len, packed[1])) / sum(map(len, packed[0]))
        ratios = [median(run[1][k] for run in times) / median(run[0][k] for run in times) for k in (0, 1)]
        click.echo(f"| {factor}, {transform} | {size:.2f} | {ratios[0]:.2f} | {ratios[1]:.2f} |")


if __name__ == "__main__":
    main()
