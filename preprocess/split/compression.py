"""Whether compressing a band pays, measured on a few images without writing anything."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from ...shards_manifest.shard.codec import compress_block
from ..config import ranges
from ..errors import RejectedImage
from ..pipeline.band_blocks import BandBlocks
from ..pipeline.decode import Decoder
from .shard_row import RowTask

SAMPLE = 64
LEAST_SAVED = 0.25  # of a band's bytes, for `--compression auto` to compress it


@dataclass(frozen=True)
class Measured:
    """Images that were split and compressed, without writing anything.

    Attributes:
        images: How many.
        compressed: Bytes of their blocks in each written band.
        stored: The same without compression.
        blocks: How many blocks each band has.
    """

    images: int
    compressed: tuple[int, ...]
    stored: tuple[int, ...]
    blocks: int


def measure(task: RowTask) -> Measured:
    """Split and compress up to 64 images of a row.

    Args:
        task: The row, whose images can be read.

    Raises:
        SourceError: They cannot.
    """
    config = task.config
    decoder = Decoder(config.size + config.margin, config.fit, config.geometry.grid, upright=config.upright)
    blocks = BandBlocks(config)
    compressed, stored = [0] * len(config.bands), [0] * len(config.bands)
    images = count = 0

    def flush() -> None:
        nonlocal count
        count += 1
        for band, array in enumerate(blocks.take()[0]):
            compressed[band] += len(compress_block(array, blocks.plane))
            stored[band] += array.nbytes

    for i in range(min(SAMPLE, len(task.images))):
        label = int(task.images.entries.label[i])
        try:
            blocks.add(decoder(task.images.read(i)), label)
        except RejectedImage:
            continue
        images += 1
        if blocks.full:
            flush()
    if blocks.count:
        flush()
    return Measured(images, tuple(compressed), tuple(stored), count)


def bands_to_leave(found: Measured, bands: Sequence[int]) -> tuple[int, ...]:
    """Return the bands that `--compression auto` stores as they are, of those that were measured."""
    sizes = zip(bands, found.compressed, found.stored, strict=True)
    return tuple(band for band, compressed, stored in sizes if compressed > (1 - LEAST_SAVED) * stored)


def earlier_choice(plan: bytes) -> tuple[int, ...] | None:
    """Return the bands that a plan.json stores as they are; None if it is damaged, which is found out later."""
    try:
        return tuple(int(band) for band in json.loads(plan)["plan"].get("uncompressed", []))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def sentence(bands: Sequence[int], earlier: bool) -> str:
    """Return what `--compression auto` came to.

    Args:
        bands: Those that are stored without compression.
        earlier: Whether an earlier run with the same destination chose them.
    """
    if earlier:
        return f"bands without compression, as an earlier run began them: {ranges(bands)}"
    if not bands:
        return f"all bands are compressed: gzip saves {LEAST_SAVED:.0%} or more of each"
    return f"bands without compression, because gzip saves less than {LEAST_SAVED:.0%} there: {ranges(bands)}"
