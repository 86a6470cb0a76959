"""Time and memory of everything but the images, at the size of ImageNet-21K: scan, plan, tables, manifests.

    python benchmarks/scan.py                       # 14,197,122 samples in 21,841 classes
    python benchmarks/scan.py --samples 1281167 --classes 1000 --members 200000

The source is simulated, names and sizes only; --members then scans a real tar of class tars of so many tiny
files, page cache warm. Memory is the growth of the resident set over the
phase's start, at its peak and after it, and the whole process at that peak. Linux with glibc only.
"""

from __future__ import annotations

import ctypes
import gc
import io
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import click
import numpy as np

from spectral_shards.preprocess.config import SplitConfig
from spectral_shards.preprocess.listing import Entries, EntriesBuilder, Listing
from spectral_shards.preprocess.sources import Source, find_source
from spectral_shards.preprocess.sources.base import OnProgress, no_progress
from spectral_shards.preprocess.sources.path import SourcePath
from spectral_shards.preprocess.split import scan_cache
from spectral_shards.preprocess.split.class_filter import choose_classes
from spectral_shards.preprocess.split.job import Job
from spectral_shards.preprocess.split.manifests import write_manifests
from spectral_shards.preprocess.split.shard_row import BandRow, RowRecord
from spectral_shards.preprocess.split.sharding import ShardRow, plan_rows, stored_order
from spectral_shards.shards_manifest.manifest import Shard
from spectral_shards.shards_manifest.storage.local import LocalStore

T = TypeVar("T")


@dataclass(frozen=True)
class Simulated(Source):
    """Class tars that are not there: wnids, member names as ImageNet has them, offsets and sizes."""

    samples: int
    classes: int

    def scan(self, found: OnProgress = no_progress) -> Listing:
        """As sources do."""
        builder = EntriesBuilder()
        names = tuple(f"n{1_440_764 + 97 * label:08d}" for label in range(self.classes))
        edges = np.linspace(0, self.samples, self.classes + 1).astype(np.int64).tolist()
        random = np.random.default_rng(0)
        for label, (start, end) in enumerate(pairwise(edges)):
            prefix = names[label].encode()
            size = random.integers(20_000, 200_000, end - start)
            offset = np.cumsum(-(-size // 512) * 512 + 512) + 512
            numbers = random.permutation(end - start).tolist()
            rows = (b"%s_%d.JPEG" % (prefix, 7 * number) for number in numbers)
            builder.add(label, zip(rows, offset.tolist(), size.tolist(), strict=True))
        return Listing(names, {"train": builder.build()}, ())

    def read(self, part: str, class_name: str, entries: Entries, i: int) -> bytes:
        """As sources do."""
        raise OSError("simulated")

    def describe(self) -> dict[str, str]:
        """As sources do."""
        return {"kind": "simulated", "name": "simulated"}

    def files(self) -> Iterable[SourcePath]:
        """As sources do."""
        return ()


def resident(peak: bool) -> int:
    """Bytes of memory of this process now, or at most since the peak was last reset."""
    field = "VmHWM:" if peak else "VmRSS:"
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def measured(what: str, samples: int, work: Callable[[], T]) -> T:
    """Do it, and print time and memory."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # or a phase would live on what the one before has let go of
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    before, started = resident(peak=False), time.perf_counter()
    result = work()
    seconds = time.perf_counter() - started
    peak = resident(peak=True)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    kept = resident(peak=False) - before
    growth = f"{(peak - before) / samples:.0f} | {kept / samples:.0f}"
    click.echo(f"| {what} | {seconds:.1f} | {growth} | {peak / 1e9:.2f} |")
    return result


def committed(job: Job) -> list[tuple[ShardRow, RowRecord]]:
    """Records of all rows as if they had been written."""
    one = tuple(BandRow(Shard("x.tar", 0, 0, 0, "0" * 64), b"", (0,) * 3, (0,) * 3, (1,) * 3) for _ in job.config.bands)
    return [(row, RowRecord(row.name, len(row.indices), (), one)) for row in job.rows]


def real_tar(path: Path, members: int, each: int = 500) -> None:
    """A tar of class tars with files of 1 kB."""
    with tarfile.open(path, "w") as outer:
        for start in range(0, members, each):
            buffer = io.BytesIO()
            with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as inner:
                for i in range(min(each, members - start)):
                    info = tarfile.TarInfo(f"n{start:08d}_{i}.JPEG")
                    info.size = 1024
                    inner.addfile(info, io.BytesIO(bytes(1024)))
            info = tarfile.TarInfo(f"n{start:08d}.tar")
            info.size = len(buffer.getvalue())
            buffer.seek(0)
            outer.addfile(info, buffer)


@click.command()
@click.option("--samples", default=14_197_122, show_default=True, help="Images of the simulated source.")
@click.option("--classes", default=21_841, show_default=True, help="Its classes.")
@click.option("--factor", default=36, show_default=True, help="Bands of the manifests.")
@click.option("--members", default=0, show_default=True, help="Scan a real tar of class tars of so many files.")
def main(samples: int, classes: int, factor: int, members: int) -> None:
    """Print a row for every phase."""
    with tempfile.TemporaryDirectory() as folder:
        if members:
            real_tar(Path(folder, "whole.tar"), members)
            click.echo(f"a real tar of class tars, {members} members\n")
            click.echo("| phase | s | bytes a sample at the peak | kept | process, GB |\n|---|---|---|---|---|")
            measured("scan of the tar", members, find_source(Path(folder, "whole.tar")).scan)
            click.echo("")
        click.echo(f"simulated, {samples} samples in {classes} classes\n")
        click.echo("| phase | s | bytes a sample at the peak | kept | process, GB |\n|---|---|---|---|---|")
        simulate(Simulated(samples, classes), SplitConfig(factor).resolved(), LocalStore(folder))
        click.echo("")
        for path in [*sorted(Path(folder).glob("*")), Path(folder, scan_cache.NAME)]:
            if path.is_file() and path.suffix != ".tar":
                click.echo(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB")
        bands = sum(path.stat().st_size for path in Path(folder).glob("[0-9]*/manifest.json"))
        click.echo(f"manifests of {factor} bands: {bands / 1e6:.1f} MB")


def simulate(source: Simulated, plan: SplitConfig, store: LocalStore) -> None:
    """All phases of a split but the rows themselves."""
    count = source.samples
    listing = measured("scan (simulated)", count, source.scan)
    stamp = scan_cache.stamp(source, plan)
    measured("save the scan", count, lambda: scan_cache.save(store, listing, stamp))
    again = measured("load the scan", count, lambda: scan_cache.load(store, stamp))
    assert again is not None
    del again
    half = SplitConfig(plan.factor, classes=listing.classes[::-2])
    measured("choose half the classes, reversed", count, lambda: choose_classes(listing, half))
    order = measured("stored order", count, lambda: stored_order(listing, plan))
    job = Job(source, listing, plan, measured("rows", count, lambda: plan_rows(order, plan)), stamp)
    measured("task of one row", count, lambda: job.task(job.rows[0]))
    measured("digest (identity)", count, job.identity)
    identity, ordered = job.identity(), committed(job)
    measured("tables and manifests", count, lambda: write_manifests(store, plan, listing, ordered, identity))


if __name__ == "__main__":
    main()
