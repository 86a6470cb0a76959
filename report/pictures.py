"""Images of a split, rebuilt from its bands, as small files for a page."""

from __future__ import annotations

import io
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..preprocess.inspection.preview import preview
from ..preprocess.inspection.reconstruct import SplitBlocks, rebuild
from ..shards_manifest.dataset import Split
from .content import Picture

SIDE = 128  # pixels of a small picture
QUALITY = 82


def encoded(image: Image.Image, title: str) -> Picture:
    """Return an image as a picture of a page: WebP, or PNG's bytes where this PIL has no WebP."""
    buffer = io.BytesIO()
    try:
        image.save(buffer, "WEBP", quality=QUALITY)
    except (KeyError, OSError):
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
    return Picture(title, buffer.getvalue(), image.size)


def contact_sheet(path: str, count: int) -> Picture:
    """Return some images of a split beside their bands. Raises FormatError."""
    sheet, note = preview(path, count)
    return encoded(sheet, note or "images rebuilt from all bands, beside their bands")


def val_images(split: Split, rows: Iterable[int]) -> dict[int, NDArray[np.uint8]]:
    """Return images of val, rebuilt from their bands.

    Args:
        split: whose they are.
        rows: their places in stored order.

    Returns:
        uint8 (H, W, 3) by place.

    Raises:
        FormatError, ShardError, StoreError: the split cannot be read.
    """
    wanted = sorted(set(rows))
    found: dict[int, NDArray[np.uint8]] = {}
    with SplitBlocks(split.store, split.manifest, "val") as blocks:
        ends = np.cumsum(blocks.samples)
        for block in sorted({int(np.searchsorted(ends, row, side="right")) for row in wanted}):
            first = int(ends[block] - blocks.samples[block])
            coefficients = blocks.read(block)
            for row in wanted:
                if first <= row < ends[block]:
                    found[row] = rebuild(coefficients[:, row - first], split.manifest)
    return found


def small(pixels: NDArray[np.uint8], title: str) -> Picture:
    """Return an image as a small picture."""
    image = Image.fromarray(pixels)
    scale = SIDE / max(image.size)
    size = (max(round(image.width * scale), 1), max(round(image.height * scale), 1))
    method = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    return encoded(image.resize(size, method), title)
