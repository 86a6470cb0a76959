"""Whether compressing a band pays, measured on a few images without writing anything."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ...shards_manifest.shard.codec import compress_block
from ..errors import RejectedImage
from ..pipeline.band_blocks import BandBlocks
from ..pipeline.decode import Decoder

if TYPE_CHECKING:
    from .job import Job

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


def choose_compression(job: Job, plan: bytes | None) -> tuple[Job, str]:
    """Return the job with `--compression auto` resolved, by what `measure` finds, and a sentence on it.

    The images are the first of a seeded order, so that the choice depends on the input and the options alone.

    Args:
        job: What to split.
        plan: The plan.json of an earlier run with the same destination, which has chosen already; None for none.
    """
    if job.config.uncompressed is not None:
        return job, ""
    chosen = _earlier_choice(plan) if plan else None
    if chosen is None:
        found, bands = measure(job), job.config.bands
        sizes = zip(bands, found.compressed, found.stored, strict=True)
        chosen = tuple(band for band, compressed, stored in sizes if compressed > (1 - LEAST_SAVED) * stored)
    job = replace(job, config=replace(job.config, uncompressed=chosen))
    return job, f"bands without compression, because gzip saves less than {LEAST_SAVED:.0%} there: {_ranges(chosen)}"


def _earlier_choice(plan: bytes) -> tuple[int, ...] | None:
    """Return the bands that a plan.json stores as they are; None if it is damaged, which is found out later."""
    try:
        return tuple(int(band) for band in json.loads(plan)["plan"].get("uncompressed", []))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _ranges(bands: tuple[int, ...]) -> str:
    """Return the numbers of bands as --bands takes them: 0-3,7."""
    pieces: list[list[int]] = []
    for band in bands:
        if pieces and pieces[-1][-1] == band - 1:
            pieces[-1][1:] = [band]
        else:
            pieces.append([band])
    return ",".join("-".join(map(str, piece)) for piece in pieces) or "none"


def measure(job: Job) -> Measured:
    """Split and compress up to 64 images of the first row."""
    config = job.config
    job.source.stage()
    task = job.task(job.rows[0] if job.rows[0].part == "train" else job.rows[-1])
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
