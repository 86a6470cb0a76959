"""What a split would write, measured on a few of its images without writing anything."""

from __future__ import annotations

from dataclasses import dataclass

from .compression import measure
from .job import Job

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
    config, found = job.config, measure(job.first_task())
    sizes = [
        (stored if config.compression_of(band) == "none" else compressed) + found.blocks * BLOCK_OVERHEAD
        for band, stored, compressed in zip(config.bands, found.stored, found.compressed, strict=True)
    ]
    shards: dict[str, int] = {}
    for row in job.rows:
        shards[row.part] = shards.get(row.part, 0) + 1
    return Estimate(
        samples=job.samples,
        shards=shards,
        measured=found.images,
        band_bytes=tuple(size / max(found.images, 1) for size in sizes),
    )
