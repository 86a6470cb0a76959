"""Split speed on one core beside JPEG decoding alone, in turn, in one run.

    python benchmarks/split.py ../shared/data/imagenet-sample
    python benchmarks/split.py ../shared/data/imagenet-sample --large --bands 36

Decoding alone is simplejpeg from memory to RGB; the split reads files, writes every band to a temporary
folder and commits it, as `spectral-prep split --jobs 1` does.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path
from statistics import median

import click
import simplejpeg
from PIL import Image

from spectral_shards.preprocess.config import SplitConfig
from spectral_shards.preprocess.pipeline.decode import resizer_name
from spectral_shards.preprocess.split.job import Job, prepare, split
from spectral_shards.shards_manifest.runtime.executors import Backend


def decode_alone(images: list[bytes]) -> float:
    started = time.perf_counter()
    for data in images:
        simplejpeg.decode_jpeg(data)
    return len(images) / (time.perf_counter() - started)


def whole_split(job: Job) -> float:
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        split(job, Path(folder, "out"), Backend(jobs=1))
        return sum(job.samples.values()) / (time.perf_counter() - started)


def repeated(source: Path, folder: Path, times: int, large: bool) -> Path:
    """The class folders of `source`: every image `times` over, or once, enlarged to 1600x1200 or more."""
    for path in sorted(source.glob("*/*")):
        (folder / path.parent.name).mkdir(parents=True, exist_ok=True)
        if large:
            with Image.open(path) as image:
                scale = max(1600 / max(image.size), 1200 / min(image.size))
                size = round(image.width * scale), round(image.height * scale)
                enlarged = image.convert("RGB").resize(size, Image.Resampling.BICUBIC)
            enlarged.save(folder / path.parent.name / path.name, "JPEG", quality=90)
            continue
        first = folder / path.parent.name / f"0-{path.name}"
        shutil.copyfile(path, first)
        for copy in range(1, times):  # a symbolic link would take longer to open than a file
            first.with_name(f"{copy}-{path.name}").hardlink_to(first)
    return folder


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--runs", default=7, show_default=True)
@click.option("--times", default=4, show_default=True, help="How often each image is taken.")
@click.option("--samples-per-shard", default=2048, show_default=True, help="0 for the default of a set this small.")
@click.option("--large", is_flag=True, help="Enlarge the images to 1600x1200 or more, each taken once.")
@click.option("--bands", default="36,36x,16,4,1", show_default=True, help="x for the separable transform.")
def main(source: Path, runs: int, times: int, samples_per_shard: int, large: bool, bands: str) -> None:
    """Print medians and the ratio for some numbers of bands."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    click.echo(f"images/s on one core, medians of {runs}; the ratio is taken pair by pair; {resizer_name()}\n")
    click.echo(f"{'bands':>12} {'decode alone':>14} {'split':>10} {'ratio: median':>14} {'min':>6} {'max':>6}")
    with tempfile.TemporaryDirectory() as folder:
        images_folder = repeated(source, Path(folder, "images"), times, large)
        for name in bands.split(","):
            transform = "dct2" if name.endswith("x") else "dct"
            plan = SplitConfig(
                int(name.rstrip("x")), transform=transform, val_per_class=0, samples_per_shard=samples_per_shard
            )
            job = prepare(images_folder, plan)
            images = [task.images.read(i) for task in map(job.task, job.rows) for i in range(len(task.images))]
            # the first pair warms up
            rates = [(decode_alone(images), whole_split(job)) for _ in range(runs + 1)][1:]
            ratios = sorted(ours / decode for decode, ours in rates)
            click.echo(
                f"{plan.factor:>6} {transform:>5} {median(d for d, _ in rates):14.0f} "
                f"{median(s for _, s in rates):10.0f} {median(ratios):14.3f} {ratios[0]:6.3f} {ratios[-1]:6.3f}"
            )


if __name__ == "__main__":
    main()
