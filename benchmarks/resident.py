"""What it costs to take a band into memory: its first epoch beside the stream's, the first batch, and the memory.

    python benchmarks/resident.py ../shared/data/imagenet-sample

The images are repeated to as many samples as wanted and split. Each measurement is a process of its own: one thread
reads, another gets memory ahead of it. Stream and resident are measured in turn.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import click
from loaders import peak
from read import prepared

from spectral_shards.train.data.loader import BandLoader, LoaderOptions

BATCH = 256


def measure(band: Path, where: str) -> dict[str, float]:
    """Read two epochs. Returns the seconds of the first batch, those of the epochs, and the largest memory, in MB."""
    import torch

    torch.set_num_threads(1)
    before, begun = peak(), time.perf_counter()
    loader = BandLoader(band, "train", BATCH, options=LoaderOptions(resident=where, epochs=2, pin_memory=False))
    found: dict[str, float] = {}
    for epoch in ("first", "second"):
        started = time.perf_counter()
        for _ in loader:
            found.setdefault("batch", time.perf_counter() - begun)
        found[epoch] = time.perf_counter() - started
    return {**found, "samples": len(loader) * BATCH, "memory": peak() - before}


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--samples", default=50_000, show_default=True, help="Least number of samples.")
@click.option("--factor", default=36, show_default=True)
@click.option("--bands", default="0,7", show_default=True)
@click.option("--runs", default=3, show_default=True)
@click.option("--keep", type=click.Path(path_type=Path), help="Folder to keep the prepared split in, for later runs.")
@click.option("--one", nargs=2, hidden=True, help="A band and where it stays: measure this alone.")
def main(
    source: Path, samples: int, factor: int, bands: str, runs: int, keep: Path | None, one: tuple[str, str] | None
) -> None:
    """Print a table: medians, least and largest."""
    if one:
        click.echo(json.dumps(measure(Path(one[0]), one[1])))
        return
    with ExitStack() as stack:
        folder = keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        prepared(source, folder, samples, factor)
        click.echo(
            "| band | stream: first epoch, samples/s | in memory: first epoch | ratio | second | first batch, ms: "
            "stream, in memory | memory, MB | decompressed, MB |"
        )
        click.echo("|---|---|---|---|---|---|---|---|")
        for number in bands.split(","):
            band = folder / "split" / number.zfill(2)
            found: dict[str, list[dict[str, float]]] = {"off": [], "memory": []}
            for _ in range(runs):
                for where, results in found.items():
                    command = [sys.executable, __file__, str(source), "--one", str(band), where]
                    done = subprocess.run(command, capture_output=True, text=True, check=True)
                    results.append(json.loads(done.stdout))
            click.echo(line(number, band, found))


def line(number: str, band: Path, found: dict[str, list[dict[str, float]]]) -> str:
    """Return a line of the table."""
    stream, resident = found["off"], found["memory"]

    def rates(results: list[dict[str, float]], epoch: str) -> str:
        each = sorted(result["samples"] / result[epoch] for result in results)
        return f"{median(each):,.0f} ({each[0]:,.0f} to {each[-1]:,.0f})"

    ratios = sorted(one["first"] / other["first"] for one, other in zip(stream, resident, strict=True))
    batches = ", ".join(f"{1000 * median(result['batch'] for result in each):.0f}" for each in (stream, resident))
    memory = median(one["memory"] for one in resident) - median(one["memory"] for one in stream)
    manifest = json.loads((band / "manifest.json").read_text())
    side = (manifest["geometry"]["size"] + manifest["geometry"]["margin"]) // int(manifest["geometry"]["factor"] ** 0.5)
    decompressed = manifest["parts"]["train"]["samples"] * (3 * side**2 + 8) / 1e6
    cells = [
        number,
        rates(stream, "first"),
        rates(resident, "first"),
        f"{median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})",
        rates(resident, "second"),
        batches,
        f"{memory:.0f}",
        f"{decompressed:.0f}",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
