"""Opening a band with the counts of ImageNet-21K: time and memory until the first block is known.

    python benchmarks/opening.py

The manifest and the index are generated; no shard is there, and none is read.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import resource
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import click
import numpy as np

from spectral_shards.shards_manifest.dataset import open_band
from spectral_shards.shards_manifest.manifest import MANIFEST, BandManifest, Geometry, Part, Shard, dump
from spectral_shards.shards_manifest.shard.index import ENTRY, index_name
from spectral_shards.shards_manifest.shard.reader import BlockReader
from spectral_shards.train.data.sampler import EpochSampler, Span


def measured(band: str) -> tuple[float, float, float, float, int]:
    """Seconds to open a band and to plan its first block, MB of this process before and after, and the batches."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    store, manifest = open_band(band)
    part = BlockReader(store, manifest, "train")
    opened = time.perf_counter()
    plan = EpochSampler.of(part.samples, 256, part.block_bytes, 0)
    next(plan.block_reads(0, Span(0, 256)))
    ended = time.perf_counter()
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return opened - started, ended - opened, before / 1000, after / 1000, plan.batches


def generated(folder: Path, samples: int, shard: int, block: int, classes: int) -> None:
    """Write the manifest and the index of a band of so many samples."""
    sizes = [min(shard, samples - start) for start in range(0, samples, shard)]
    counts = [-(-size // block) for size in sizes]
    entries = np.zeros(sum(counts), ENTRY)
    entries["size"] = np.random.default_rng(0).integers(100, 400, len(entries)) * 512
    ends = np.cumsum(counts)
    shards = tuple(
        Shard(
            f"train-{number:06d}.tar",
            size,
            count,
            int(entries["size"][end - count : end].sum(dtype=np.int64)) + 1024,
            hashlib.sha256(str(number).encode()).hexdigest(),
        )
        for number, (size, count, end) in enumerate(zip(sizes, counts, ends, strict=True))
    )
    data = entries.tobytes()
    part = Part(samples, "0" * 64, hashlib.sha256(data).hexdigest(), shards)
    geometry = Geometry(36, 336, 0, "squash", "dct", "ycbcr", "int8")
    manifest = BandManifest(
        "winter21",
        geometry,
        7,
        (7,),
        block,
        (6.0,) * 3,
        (0.0,) * 3,
        (1.0,) * 3,
        tuple(f"n{number:08d}" for number in range(classes)),
        {"train": part, "val": replace(part, samples=0, shards=(), index=hashlib.sha256(b"").hexdigest())},
    )
    (folder / MANIFEST).write_bytes(dump(manifest))
    (folder / index_name("train")).write_bytes(data)
    (folder / index_name("val")).write_bytes(b"")


@click.command()
@click.option("--samples", default=12_400_000, show_default=True)
@click.option("--shard", default=20_000, show_default=True, help="Samples of a shard.")
@click.option("--classes", default=10_450, show_default=True)
@click.option("--runs", default=5, show_default=True)
def main(samples: int, shard: int, classes: int, runs: int) -> None:
    """Print seconds and MB, each run in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        generated(Path(folder), samples, shard, 64, classes)
        sizes = ", ".join(f"{path.name} {path.stat().st_size / 1e6:.2f} MB" for path in sorted(Path(folder).iterdir()))
        click.echo(f"{samples} samples in {-(-samples // shard)} shards: {sizes}")
        with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            outcomes = [pool.apply(measured, (folder,)) for _ in range(runs)]
    opened, planned, before, after, batches = zip(*outcomes, strict=True)
    click.echo(f"opened in {median(opened):.3f} s ({min(opened):.3f} to {max(opened):.3f}), n = {runs}")
    spread = f"{median(planned):.3f} s ({max(planned):.3f} at most)"
    click.echo(f"first block of {batches[0]:.0f} batches planned in {spread}")
    click.echo(f"memory of the process {median(after):.0f} MB, before with its libraries {median(before):.0f} MB")


if __name__ == "__main__":
    main()
