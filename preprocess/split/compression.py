"""Whether compressing a band pays, measured on a few images without writing anything."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from ...shards_manifest.shard.codec import compress_block
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
    """Split and compress up to 64 images of a row."""
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


def hardly_compressed(found: Measured, bands: Sequence[int]) -> tuple[int, ...]:
    """Return the bands that `--compression auto` stores as they are, of those that were measured."""
    sizes = zip(bands, found.compressed, found.stored, strict=True)
    return tuple(band for band, compressed, stored in sizes if compressed > (1 - LEAST_SAVED) * stored)


def earlier_choice(plan: bytes) -> tuple[int, ...] | None:
    """Return the bands that a plan.json stores as they are; None if it is damaged, which is found out later."""
    try:
        return tuple(int(band) for band in json.loads(plan)["plan"].get("uncompressed", []))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def sentence(bands: Sequence[int]) -> str:
    """Return what `--compression auto` came to."""
    return f"bands without compression, because gzip saves less than {LEAST_SAVED:.0%} there: {_ranges(bands)}"


def _ranges(bands: Sequence[int]) -> str:
    """Return the numbers of bands as --bands takes them: 0-3,7."""
    pieces: list[list[int]] = []
    for band in bands:
        if pieces and pieces[-1][-1] == band - 1:
            pieces[-1][1:] = [band]
        else:
            pieces.append([band])
    return ",".join("-".join(map(str, piece)) for piece in pieces) or "none"
