"""A contact sheet: some images of a split, rebuilt from all bands, beside the bands."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ...shards_manifest import tables
from ...shards_manifest.dataset import open_split
from ...shards_manifest.manifest import SplitManifest
from .reconstruct import SplitBlocks, rebuild

LABEL = 14  # pixels of a line of text
GAP = 8
SMALLEST = 336  # pixels of a tile's side; small images are enlarged to it


def preview(path: str, count: int = 4) -> tuple[Image.Image, str]:
    """Draw some samples of a split, spread over its classes: of val if there is one, else of train.

    Args:
        path: Path or URL of the split.
        count: Number of samples.

    Returns:
        The sheet, and a note for the user, perhaps empty.

    Raises:
        FormatError: There is no whole split at `path`.
    """
    store, manifest = open_split(path)
    part = "val" if manifest.parts.get("val") and manifest.parts["val"].samples else "train"
    rows, _ = tables.read_samples(store.read(tables.samples_name(part)), f"{store}/{tables.samples_name(part)}")
    places = np.arange(1, 2 * min(count, len(rows)), 2) * len(rows) // (2 * min(count, len(rows)))
    with SplitBlocks(store, manifest, part) as blocks:
        ends = np.cumsum(blocks.samples)
        tiles = []
        for place in places.tolist():
            block = int(np.searchsorted(ends, place, side="right"))
            sample = blocks.read(block)[:, place - int(ends[block]) + blocks.samples[block]]
            tiles.append(_pair(sample, manifest, rows[place][0]))
    width = max(tile.width for tile in tiles)
    sheet = Image.new("RGB", (width, sum(tile.height + GAP for tile in tiles)), "white")
    top = 0
    for tile in tiles:
        sheet.paste(tile, (0, top))
        top += tile.height + GAP
    missing = sorted(set(range(manifest.geometry.factor)) - {b.band for b in manifest.bands})
    notes = []
    if len(tiles) < count:
        images = "the only image" if len(tiles) == 1 else f"all {len(tiles)} images"
        notes.append(f"{images} of {part}")
    if missing:
        notes.append(f"rebuilt without the bands {', '.join(map(str, missing))}, which were not written")
    return sheet, ", ".join(notes)


def _pair(sample: NDArray[np.float32], manifest: SplitManifest, title: str) -> Image.Image:
    """Draw one sample: the rebuilt image and, beside it, its bands in a grid."""
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
