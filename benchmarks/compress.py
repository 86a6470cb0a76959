"""Compare our DEFLATE and inflate with ISA-L, level 1 with its best window: bytes, and the time there and back.

    python benchmarks/compress.py ../shared/data/imagenet-sample
    python benchmarks/compress.py ../shared/data/imagenet-sample --by-band 36

The first prints one line for each number of bands and transform, from one block of 64 images in all bands: ratios to
ISA-L with its own bytes. The second prints MB/s of output for each band, from as many blocks as the images fill, by
our inflate, ISA-L, and libdeflate where the system has it (Debian: libdeflate0). Both print medians; the
decompressors take turns, and processor time is counted, so that other work on the machine disturbs little.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np
from isal import igzip_lib

from spectral_shards.preprocess.config import SplitConfig
from spectral_shards.preprocess.pipeline.band_blocks import BandBlocks
from spectral_shards.preprocess.pipeline.decode import Decoder
from spectral_shards.preprocess.split.job import prepare
from spectral_shards.shards_manifest.shard.codec import DecodeBuffer, compress_block, decompress_block, window

PLANS = ((36, "dct"), (36, "dct2"), (16, "dct"), (16, "dct2"), (4, "dct"), (1, "dct"))
GZIP_HEADER, GZIP_END = 10, 8  # bytes around the DEFLATE stream


def read_blocks(source: Path, factor: int, transform: str) -> Iterator[tuple[list[bytes], int]]:
    """Yield, for every block, the .npy files of its bands and the bytes of a plane."""
    job = prepare(source, SplitConfig(factor, transform=transform, val_per_class=0))
    plan = job.config
    blocks, decoder = BandBlocks(plan), Decoder(plan.size, plan.fit, plan.geometry.grid)
    for task in map(job.task, job.rows):
        for i in range(len(task.images)):
            blocks.add(decoder(task.images.read(i)), 0)
            if blocks.full:
                yield [bytes(array) for array in blocks.take()[0]], blocks.plane
    if blocks.count:
        yield [bytes(array) for array in blocks.take()[0]], blocks.plane


def seconds(function: Callable[[Any], object], items: Iterable[bytes | memoryview]) -> float:
    """Return the processor time of a function for all items."""
    started = time.thread_time()
    for item in items:
        function(item)
    return time.thread_time() - started


def level_1(data: bytes, hist_bits: int) -> bytes:
    """Compress with ISA-L."""
    return igzip_lib.compress(data, 1, igzip_lib.COMP_GZIP, hist_bits=hist_bits)


def size_of(packed: bytes | memoryview) -> int:
    """Return the bytes that a gzip member says it decompresses to."""
    return int.from_bytes(packed[-4:], "little")


def by_isal(packed: bytes) -> bytes:
    """Decompress with ISA-L."""
    return igzip_lib.decompress(packed, igzip_lib.DECOMP_GZIP, 15, size_of(packed) + 1)


def by_libdeflate() -> Callable[[memoryview], None] | None:
    """Return a function that decompresses with libdeflate, into one buffer; None where the system has none.

    It compares no checksum, which is an advantage of about 3 %.
    """
    path = ctypes.util.find_library("deflate")
    if path is None:
        return None
    library = ctypes.CDLL(path)
    library.libdeflate_alloc_decompressor.restype = ctypes.c_void_p
    decompress = library.libdeflate_deflate_decompress
    size_t, pointer = ctypes.c_size_t, ctypes.c_void_p
    decompress.argtypes = (pointer, pointer, size_t, pointer, size_t, pointer)
    decompressor, buffer = library.libdeflate_alloc_decompressor(), DecodeBuffer()

    def run(packed: memoryview) -> None:
        start = np.frombuffer(packed, np.uint8).ctypes.data + GZIP_HEADER
        size = size_of(packed)
        out = buffer.of(size).ctypes.data
        if decompress(decompressor, start, len(packed) - GZIP_HEADER - GZIP_END, out, size, None):
            raise ValueError("libdeflate refuses a block")

    return run


def compare_plans(source: Path, runs: int) -> None:
    """Print one line for each number of bands and transform."""
    click.echo("| bands | bytes | time to compress | to decompress | the same by ISA-L |\n|---|---|---|---|---|")
    back = partial(decompress_block, buffer=DecodeBuffer())
    for factor, transform in PLANS:
        files, plane = next(read_blocks(source, factor, transform))
        by_level_1, ours = partial(level_1, hist_bits=window(plane)), partial(compress_block, plane=plane)
        theirs, packed = [by_level_1(file) for file in files], [ours(file) for file in files]
        views = [memoryview(file) for file in packed]
        timed = ((by_level_1, files), (ours, files), (by_isal, theirs), (back, views), (by_isal, packed))
        runs_of = [[seconds(function, items) for function, items in timed] for _ in range(runs)]
        pack, ours_pack, unpack, ours_unpack, crossed = map(median, zip(*runs_of, strict=True))
        size = sum(map(len, packed)) / sum(map(len, theirs))
        ratios = f"{ours_pack / pack:.2f} | {ours_unpack / unpack:.2f} | {crossed / unpack:.2f}"
        click.echo(f"| {factor}, {transform} | {size:.2f} | {ratios} |")


def speed(times: Sequence[float], size: int) -> str:
    """Return the median MB/s, and in brackets the middle half of the runs."""
    low, middle, high = np.quantile(times, (0.25, 0.5, 0.75))
    return f"{size / middle / 1e6:.0f} ({size / high / 1e6:.0f} to {size / low / 1e6:.0f})"


def compare_bands(source: Path, factor: int, runs: int, most: int) -> None:
    """Print one line for each band, of at most so many blocks."""
    functions: dict[str, Callable[[Any], object]] = {
        "ours": partial(decompress_block, buffer=DecodeBuffer()),
        "ISA-L": by_isal,
    }
    libdeflate = by_libdeflate()
    if libdeflate is not None:
        functions["libdeflate"] = libdeflate
    click.echo(f"| band | packed to | {' | '.join(functions)} |\n|---|---|{'---|' * len(functions)}")
    packed = [
        [memoryview(compress_block(file, plane)) for file in files]
        for files, plane in islice(read_blocks(source, factor, "dct"), most)
    ]
    for band, items in enumerate(zip(*packed, strict=True)):
        size = sum(map(size_of, items))
        times: dict[str, list[float]] = {name: [] for name in functions}
        for _ in range(runs):
            for name, function in functions.items():
                times[name].append(seconds(function, items))
        speeds = " | ".join(speed(runs_of, size) for runs_of in times.values())
        click.echo(f"| {band} | {sum(map(len, items)) / size:.2f} | {speeds} |")


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--runs", default=9, show_default=True, help="Runs of each measurement.")
@click.option("--by-band", "factor", type=int, help="Compare decompressors in each band of this many.")
@click.option("--blocks", default=8, show_default=True, help="With --by-band: the most blocks of a band.")
def main(source: Path, runs: int, factor: int | None, blocks: int) -> None:
    """Compare bytes and times with ISA-L."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    if factor is None:
        compare_plans(source, runs)
    else:
        compare_bands(source, factor, runs, blocks)


if __name__ == "__main__":
    main()
