"""Stored bytes beside the source's, and the fidelity of the images rebuilt from all bands.

python benchmarks/size.py ../shared/data/imagenet-sample
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import click

from spectral_shards.preprocess.config import SplitConfig
from spectral_shards.preprocess.inspection.fidelity import fidelity
from spectral_shards.preprocess.split.job import prepare, split
from spectral_shards.shards_manifest.dataset import open_split
from spectral_shards.shards_manifest.runtime.executors import Backend


@click.command()
@click.argument("source")
@click.option("--images", default=500, show_default=True, help="Images to rebuild.")
def main(source: str, images: int) -> None:
    """Print a row for every number of bands and both transforms."""
    original = sum(path.stat().st_size for path in Path(source).rglob("*") if path.is_file())
    click.echo(
        "| bands | transform | steps | kB an image | of the source | PSNR: mean, dB | of the mean error, dB | clipped |"
    )
    click.echo("|---|---|---|---|---|---|---|---|")
    for factor in (36, 16, 4):
        for transform in ("dct", "dct2"):
            job = prepare(source, SplitConfig(factor, transform=transform, val_per_class=0))
            with tempfile.TemporaryDirectory() as folder:
                out = Path(folder, "out")
                outcome = split(job, out, Backend(jobs=len(os.sched_getaffinity(0))))
                found = fidelity(out, source, images)
                _, manifest = open_split(out)
                clipped = sum(sum(band.clipped) for band in manifest.bands)
            total = outcome.bytes
            count = sum(outcome.samples.values())
            click.echo(
                f"| {factor} | {transform} | {job.config.quant_step:g}, {job.config.chroma_quant_step:g} "
                f"| {total / count / 1000:.1f} | {total / original:.3f} "
                f"| {found.psnr.mean():.2f} | {found.of_mean_error:.2f} | {clipped} |"
            )


if __name__ == "__main__":
    main()
