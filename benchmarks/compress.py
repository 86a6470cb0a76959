"""Our DEFLATE and inflate beside ISA-L, level 1 with its best window: bytes, and the time there and back.

    python benchmarks/compress.py ../shared/data/imagenet-sample

One block of 64 images in all bands. Ratios to ISA-L with its own bytes, of medians of runs in turn.
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
from isal import igzip_lib

from spectral_shards.preprocess.config import SplitConfig
from spectral_shards.preprocess.pipeline.band_blocks import BandBlocks
from spectral_shards.preprocess.pipeline.decode import Decoder
from spectral_shards.preprocess.split.job import prepare
from spectral_shards.shards_manifest.shard.codec import DecodeBuffer, compress_block, decompress_block, window

PLANS = ((36, "dct"), (36, "dct2"), (16, "dct"), (16, "dct2"), (4, "dct"), (1, "dct"))


def block(source: Path, factor: int, transform: str) -> tuple[list[bytes], int]:
    """The .npy files of a block's bands, and the bytes of a plane."""
    job = prepare(source, SplitConfig(factor, transform=transform, val_per_class=0))
    plan = job.config
    blocks, decoder = BandBlocks(plan), Decoder(plan.size, plan.fit, plan.geometry.grid)
    for task in map(job.task, job.rows):
        for i in range(len(task.images)):
            if blocks.full:
                break
            blocks.add(decoder(task.images.read(i)), 0)
    return [bytes(array) for array in blocks.take()[0]], blocks.plane


def seconds(function: Callable[[Any], object], items: Iterable[bytes | memoryview]) -> float:
    started = time.perf_counter()
    for item in items:
        function(item)
    return time.perf_counter() - started


def level_1(data: bytes, hist_bits: int) -> bytes:
    return igzip_lib.compress(data, 1, igzip_lib.COMP_GZIP, hist_bits=hist_bits)


def by_isal(data: bytes) -> bytes:
    return igzip_lib.decompress(data, igzip_lib.DECOMP_GZIP, 15, int.from_bytes(data[-4:], "little") + 1)


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--runs", default=9, show_default=True)
def main(source: Path, runs: int) -> None:
    """Print one line for each number of bands and transform."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    click.echo("| bands | bytes | time to compress | to decompress | the same by ISA-L |\n|---|---|---|---|---|")
    room = DecodeBuffer()
    for factor, transform in PLANS:
        files, plane = block(source, factor, transform)
        by_level_1, ours = partial(level_1, hist_bits=window(plane)), partial(compress_block, plane=plane)
        theirs, packed = [by_level_1(file) for file in files], [ours(file) for file in files]
        views = [memoryview(file) for file in packed]
        back = partial(decompress_block, room=room)
        timed = ((by_level_1, files), (ours, files), (by_isal, theirs), (back, views), (by_isal, packed))
        runs_of = [[seconds(function, items) for function, items in timed] for _ in range(runs)]
        pack, ours_pack, unpack, ours_unpack, crossed = map(median, zip(*runs_of, strict=True))
        size = sum(map(len, packed)) / sum(map(len, theirs))
        ratios = f"{ours_pack / pack:.2f} | {ours_unpack / unpack:.2f} | {crossed / unpack:.2f}"
        click.echo(f"| {factor}, {transform} | {size:.2f} | {ratios} |")


if __name__ == "__main__":
    main()
