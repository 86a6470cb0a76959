"""What a split would write, measured on a few of its images without writing anything."""

from __future__ import annotations

from dataclasses import dataclass

from ...shards_manifest.shard.codec import compress_block
from ..errors import RejectedImage
from ..pipeline.band_blocks import BandBlocks
from ..pipeline.decode import Decoder
from .job import Job

SAMPLE = 64


@dataclass(frozen=True)
class Estimate:
    """samples, shards: by part.  measured: images looked at.
    image_bytes: stored bytes of an image in all bands.  band_bytes: the same for each written band."""

    samples: dict[str, int]
    shards: dict[str, int]
    measured: int
    band_bytes: tuple[float, ...]

    @property
    def image_bytes(self) -> float:
        """Bytes of an image in all written bands."""
        return sum(self.band_bytes)


def estimate(job: Job) -> Estimate:
    """Plan the whole split and compress up to 64 images of its first row."""
    plan = job.plan
    job.source.stage()
    task = job.task(job.rows[0] if job.rows[0].part == "train" else job.rows[-1])
    decoder = Decoder(plan.size + plan.margin, plan.fit, plan.geometry.grid, upright=plan.orientation == "exif")
    blocks = BandBlocks(plan)
    sizes = [0] * len(plan.bands)
    measured = 0

    def flush() -> None:
        for band, array in enumerate(blocks.take()[0]):
            sizes[band] += len(compress_block(array, blocks.plane)) + 2048  # two tar headers, padding, the labels

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
