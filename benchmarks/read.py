"""How fast samples are read on one core: our reader beside others, and beside decompression alone.

    python benchmarks/read.py ../shared/data/imagenet-sample --others ../others/bin/python --others ../ffcv/bin/python

`../others` is a virtual environment with torch, torchvision, mosaicml-streaming and litdata, whose dependencies do
not fit ours; `../ffcv` is one with torch and ffcv. Each loader is a process of its own (loaders.py) on one core, the
page cache warm, in turn; it has to deliver whole epochs, shuffled, as tensors in batches of 256. The images are
repeated to as many samples as wanted and split; the other loaders' forms are written from the same band.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import click
import numpy as np
from split import repeated

from spectral_shards.preprocess.config import SplitConfig
from spectral_shards.preprocess.split.job import prepare, split
from spectral_shards.shards_manifest.dataset import open_band
from spectral_shards.shards_manifest.runtime.executors import Backend
from spectral_shards.shards_manifest.shard.format import index_shard, read_block

LOADERS = Path(__file__).with_name("loaders.py")
SAID = {
    "ours": "spectral-train's reader",
    "plain": "the same, blocks without compression",
    "resident": "the same, the band in memory",
    "take": "NumPy's take of the same rows, in memory",
    "by_isal": "decompression alone, ISA-L",
    "by_ours": "decompression alone, ours",
    "blocks": "webdataset on the same blocks",
    "png": "webdataset, a PNG a sample",
    "mosaic": "MosaicML Streaming, arrays as they are",
    "litdata": "LitData, arrays as they are",
    "zstd": "LitData, Zstandard a sample",
    "ffcv": "FFCV, arrays as they are",
    "imagefolder": "torchvision ImageFolder, JPEGs",
}
OTHERS = {"mosaic": "streaming", "litdata": "litdata", "zstd": "litdata", "ffcv": "ffcv"}  # and their packages


def prepared(source: Path, folder: Path, samples: int, factor: int) -> int:
    """Split `source`, repeated to at least `samples` images, into folder/split; the count."""
    images = folder / "images"
    if not images.exists():
        count = sum(1 for _ in source.glob("*/*"))
        repeated(source, images, -(-samples // count), large=False)
    job = prepare(images, SplitConfig(factor, val_per_class=0))
    split(job, folder / "split", Backend(jobs=len(os.sched_getaffinity(0))))
    return sum(job.samples.values())


def one_band(folder: Path, band: Path) -> Path:
    """The folder that loaders.py takes: the band, and its samples as arrays."""
    data = folder / f"band-{band.name}"
    if data.exists():
        return data
    data.mkdir()
    (data / "images").symlink_to((folder / "images").absolute())
    (data / "band").symlink_to(band.absolute())
    store, manifest = open_band(band)
    part, plane = manifest.parts["train"], manifest.geometry.plane
    x = np.lib.format.open_memmap(data / "x.npy", "w+", np.int8, (part.samples, 3, plane, plane))
    y = np.empty(part.samples, np.int64)
    at = 0
    for shard in part.shards:
        view = store.view(shard.name)
        for block in index_shard(view, shard.name):
            some, labels = read_block(view, block, shard.name)
            x[at : at + len(some)], y[at : at + len(some)] = some, labels
            at += len(some)
    x.flush()
    np.save(data / "y.npy", y)
    return data


def run(python: str, *arguments: str) -> str:
    """The last line that loaders.py prints."""
    done = subprocess.run([python, str(LOADERS), *arguments], text=True, capture_output=True)
    if done.returncode:
        raise click.ClickException(f"loaders.py {' '.join(arguments)}: {done.stderr or done.stdout}")
    return done.stdout.strip().rpartition("\n")[2]


def environment_of(package: str, pythons: Sequence[str]) -> str | None:
    """The first Python that has a package."""
    find = f"import importlib.util as util, sys; sys.exit(util.find_spec({package!r}) is None)"
    return next((python for python in pythons if not subprocess.run([python, "-c", find]).returncode), None)


def size_of(path: Path) -> int:
    files = [path] if path.is_file() else [file for file in path.glob("**/*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--others", multiple=True, help="Python of an environment with other loaders; may be repeated.")
@click.option("--samples", default=50_000, show_default=True, help="At least so many.")
@click.option("--factor", default=36, show_default=True)
@click.option("--bands", default="0,7,35", show_default=True)
@click.option("--loaders", default=",".join(SAID), show_default=True, help="Without the others, left out.")
@click.option("--runs", default=3, show_default=True)
@click.option("--keep", type=click.Path(path_type=Path), help="Where what is prepared stays, for another run.")
def main(
    source: Path,
    others: tuple[str, ...],
    samples: int,
    factor: int,
    bands: str,
    loaders: str,
    runs: int,
    keep: Path | None,
) -> None:
    """Print a table for each band: medians of samples/s, the ratio to our reader pair by pair, and memory."""
    pythons = {
        name: python
        for name in loaders.split(",")
        if (python := environment_of(OTHERS[name], others) if name in OTHERS else sys.executable)
    }
    names = list(pythons)
    with ExitStack() as stack:
        folder = keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        count = prepared(source, folder, samples, factor)
        for number in bands.split(","):
            data = one_band(folder, folder / "split" / number.zfill(int(math.log10(max(factor - 1, 1))) + 1))
            for name in ("plain", "png", *OTHERS):
                if name in names and not (data / name).exists():
                    run(pythons[name], "write", name, str(data))
            found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
            for _ in range(runs):
                for name in names:
                    found[name].append(json.loads(run(pythons[name], "read", name, str(data))))
            report(number, count, found, data)
            own = float(run(sys.executable, "memory", str(data)))
            click.echo(f"\na reading process of spectral-train has {own:.0f} MB of its own, beside what it shares")


def report(band: str, samples: int, found: dict[str, list[dict[str, float]]], data: Path) -> None:
    """Print the table of one band."""
    stored = {"ours": "band", "resident": "band", "take": "x.npy", "blocks": "band", "imagefolder": "images"}
    click.echo(f"\nband {band}: {samples} samples\n")
    click.echo("| loader | samples/s | our reader is | memory at most, of which libraries | on disk, a sample |")
    click.echo("|---|---|---|---|---|")
    for name, results in found.items():
        rates = sorted(result["rate"] for result in results)
        ratio = "-"
        if name != "ours" and "ours" in found:
            each = sorted(mine["rate"] / other["rate"] for mine, other in zip(found["ours"], results, strict=True))
            digits = 2 if each[-1] < 10 else 0
            ratio = f"{median(each):.{digits}f} ({each[0]:.{digits}f} to {each[-1]:.{digits}f}) times as fast"
        memory, before = (max(result[key] for result in results) for key in ("after", "before"))
        folder = (data / stored.get(name, name)).resolve()
        size = f"{size_of(folder) / samples:.0f} B" if not name.startswith("by_") else "-"
        speed = f"{median(rates):,.0f} ({rates[0]:,.0f} to {rates[-1]:,.0f})"
        click.echo(f"| {SAID[name]} | {speed} | {ratio} | {memory:.0f} MB, {before:.0f} | {size} |")


if __name__ == "__main__":
    main()
