"""A contact sheet: some images rebuilt from all bands, beside the bands themselves."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from shards_manifest import BandManifest, FormatError, LocalStore, SplitManifest, index_shard, read_block, tables

from .color import to_rgb
from .transform import band_matrix, inverse
from .verify import open_data, read_band

LABEL = 14
GAP = 8
SMALLEST = 336  # pixels of a tile's side; small images are enlarged to it


def preview(path: str, count: int = 4) -> tuple[Image.Image, str]:
    """Draw the first `count` samples of a split; also a sentence on bands that are missing, or nothing.

    Raises FormatError if `path` is not a whole split.
    """
    store, manifest = open_data(path)
    if isinstance(manifest, BandManifest):
        raise FormatError(f"{path} is one band: name the folder of the whole split")
    part = "val" if manifest.parts.get("val") and manifest.parts["val"].samples else "train"
    coefficients = first_samples(store, manifest, part, count)
    rows, _ = tables.read_samples(store.read(tables.samples_name(part)), f"{store}/{tables.samples_name(part)}")
    tiles = []
    for i in range(coefficients.shape[2]):
        sample = coefficients[:, :, i]
        title = rows[i][0]
        tiles.append(_pair(sample, manifest, title))
    width = max(tile.width for tile in tiles)
    sheet = Image.new("RGB", (width, sum(tile.height + GAP for tile in tiles)), "white")
    top = 0
    for tile in tiles:
        sheet.paste(tile, (0, top))
        top += tile.height + GAP
    missing = sorted(set(range(manifest.geometry.factor)) - {b.band for b in manifest.bands})
    note = f"rebuilt without the bands {', '.join(map(str, missing))}, which were not written" if missing else ""
    return sheet, note


def rebuild(coefficients: NDArray[np.float32], manifest: SplitManifest) -> NDArray[np.uint8]:
    """The image of one sample's bands (K, 3, P, P), float32 coefficients: uint8 (P*s, P*s, 3)."""
    geometry = manifest.geometry
    planes = inverse(coefficients.transpose(1, 0, 2, 3), band_matrix(geometry.transform, geometry.factor))
    return to_rgb(planes, geometry.color).transpose(1, 2, 0)


def first_samples(store: LocalStore, manifest: SplitManifest, part: str, count: int) -> NDArray[np.float32]:
    """Coefficients (K, 3, n, P, P) of the first samples; bands that were not written are zero."""
    out: NDArray[np.float32] | None = None
    for summary in manifest.bands:
        band = read_band(store, summary.folder)
        shard = next(s for s in band.parts[part].shards if s.samples)
        name = f"{summary.folder}/{shard.name}"
        view = store.view(name)
        x, _ = read_block(view, index_shard(view, f"{store}/{name}")[0], f"{store}/{name}")
        values = x[:count].astype(np.float32) * np.array(band.step, np.float32)[:, None, None]
        if out is None:
            out = np.zeros((manifest.geometry.factor, 3, *values.transpose(1, 0, 2, 3).shape[1:]), np.float32)
        out[summary.band] = values.transpose(1, 0, 2, 3)[:, : out.shape[2]]
    if out is None:
        raise FormatError(f"{store} has no bands")
    return out


def _pair(sample: NDArray[np.float32], manifest: SplitManifest, title: str) -> Image.Image:
    """One sample: the rebuilt image and, beside it, its bands in a grid."""
    geometry = manifest.geometry
    scale = max(1, -(-SMALLEST // (geometry.grid * geometry.plane)))
    plane = geometry.plane * scale
    image = Image.fromarray(rebuild(sample, manifest)).resize((plane * geometry.grid,) * 2, Image.Resampling.NEAREST)
    cell = max(plane, 40)
    wide, tall = cell * geometry.grid, (cell + LABEL) * geometry.grid
    tile = Image.new("RGB", (image.width + GAP + wide, max(image.height + LABEL, tall)), "white")
    draw = ImageDraw.Draw(tile)
    draw.text((2, 1), f"{title}, rebuilt"[: image.width // 6], fill="black")
    tile.paste(image, (0, LABEL))
    for summary in manifest.bands:
        row, column = divmod(summary.band, geometry.grid)
        left, top = image.width + GAP + column * cell, row * (cell + LABEL)
        luma = sample[summary.band, 0]
        spread = max(float(np.abs(luma).max()), 1e-6)
        grey = np.clip(128 + luma * (127 / spread), 0, 255).astype(np.uint8)
        tile.paste(Image.fromarray(grey).resize((plane, plane), Image.Resampling.NEAREST), (left, top + LABEL))
        frequency = ",".join(map(str, summary.frequency))
        draw.text((left + 1, top + 1), f"{summary.band:02d} ({frequency})"[: cell // 6], fill="black")
    return tile
