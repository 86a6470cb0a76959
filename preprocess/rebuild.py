"""Images back from their bands, and how close they are to the source."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from shards_manifest import FormatError, LocalStore, SplitManifest, index_shard, open_split, read_band, read_block

from .color import to_rgb
from .row import RowTask, read_image
from .run import Job
from .transform import band_matrix, inverse


def stored_blocks(store: LocalStore, manifest: SplitManifest, part: str) -> Iterator[NDArray[np.float32]]:
    """The coefficients of a part, block by block in stored order: float32 (K, n, 3, P, P).

    Bands that were not written are zero. Raises FormatError, ShardError.
    """
    bands = {summary.folder: read_band(store, summary.folder) for summary in manifest.bands}
    if not bands:
        raise FormatError(f"{store} has no bands")
    numbers = [summary.band for summary in manifest.bands]
    side = manifest.geometry.plane
    for shard in next(iter(bands.values())).parts[part].shards:
        views = {folder: store.view(f"{folder}/{shard.name}") for folder in bands}
        blocks = {folder: index_shard(view, f"{store}/{folder}/{shard.name}") for folder, view in views.items()}
        for number in range(shard.blocks):
            out: NDArray[np.float32] | None = None
            for band, (folder, one) in zip(numbers, bands.items(), strict=True):
                x, _ = read_block(views[folder], blocks[folder][number], f"{store}/{folder}/{shard.name}")
                if out is None:
                    out = np.zeros((manifest.geometry.factor, len(x), 3, side, side), np.float32)
                out[band] = x * np.array(one.step, np.float32)[:, None, None]
            assert out is not None
            yield out


def rebuild(coefficients: NDArray[np.float32], manifest: SplitManifest) -> NDArray[np.uint8]:
    """The image of one sample's coefficients (K, 3, P, P): uint8 (P*s, P*s, 3)."""
    geometry = manifest.geometry
    planes = inverse(coefficients.transpose(1, 0, 2, 3), band_matrix(geometry.transform, geometry.factor))
    return to_rgb(planes, geometry.color).transpose(1, 2, 0)


def rebuilt_psnr(job: Job, out: str | Path, images: int) -> NDArray[np.float64]:
    """PSNR in dB of the first stored train images against the source, resized by PIL: float64 (images,).

    10 log10(255**2 / mean squared error over R, G, B). The source is decoded by PIL alone, so that nothing of
    the split's own path is its judge; `job` has to be the one that made `out`, without rejects.
    """
    store, manifest = open_split(out)
    assert manifest.geometry.fit == "squash"
    side = manifest.geometry.size + manifest.geometry.margin
    found = []
    sources = _source_images(job)
    for block in stored_blocks(store, manifest, "train"):
        for i in range(block.shape[1]):
            data = next(sources)
            with Image.open(io.BytesIO(data)) as image:
                wanted = np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BILINEAR), np.float64)
            error = np.mean((rebuild(block[:, i], manifest) - wanted) ** 2)
            found.append(10 * np.log10(255**2 / max(float(error), 1e-9)))
            if len(found) == images:
                return np.array(found)
    return np.array(found)


def _source_images(job: Job) -> Iterator[bytes]:
    for row in job.rows:
        if row.part == "train":
            task: RowTask = job.task(row)
            for i in range(len(task.entries)):
                yield read_image(task, i)
