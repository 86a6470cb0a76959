"""What a split would write, measured on a few of its images without writing anything."""

from __future__ import annotations

from dataclasses import dataclass

from ...shards_manifest.shard.codec import compress_block
from ..errors import RejectedImage
from ..pipeline.band_blocks import BandBlocks
from ..pipeline.decode import Decoder
from .job import Job

SAMPLE = 64
BLOCK_OVERHEAD = 2048  # bytes of two tar headers, padding and the labels


@dataclass(frozen=True)
class Estimate:
    """What a split would write.

    Attributes:
        samples: Images of each part.
        shards: Shards of each part in one band.
        measured: Images that were compressed for the estimate.
        band_bytes: Stored bytes of an image in each written band.
    """

    samples: dict[str, int]
    shards: dict[str, int]
    measured: int
    band_bytes: tuple[float, ...]

    @property
    def image_bytes(self) -> float:
        """Stored bytes of an image in all written bands."""
        return sum(self.band_bytes)


def estimate(job: Job) -> Estimate:
    """Compress up to 64 images of the first row and estimate the size of the whole split."""
    config = job.config
    job.source.stage()
    task = job.task(job.rows[0] if job.rows[0].part == "train" else job.rows[-1])
    decoder = Decoder(config.size + config.margin, config.fit, config.geometry.grid, upright=config.upright)
    blocks = BandBlocks(config)
    sizes = [0] * len(config.bands)
    measured = 0

    def flush() -> None:
        for band, array in enumerate(blocks.take()[0]):
            sizes[band] += len(compress_block(array, blocks.plane)) + BLOCK_OVERHEAD

    for i in range(min(SAMPLE, len(task.images))):
        label = int(task.images.entries.label[i])
        try:
            blocks.add(decoder(task.images.read(i)), label)
        except RejectedImage:
            continue
        measured += 1
        if blocks.full:
            flush()
    if blocks.count:
        flush()
    shards: dict[str, int] = {}
    for row in job.rows:
        shards[row.part] = shards.get(row.part, 0) + 1
    return Estimate(
        samples=job.samples,
        shards=shards,
        measured=measured,
        band_bytes=tuple(size / max(measured, 1) for size in sizes),
    )
