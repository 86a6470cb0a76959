"""A finished split beside the source it was made from: images rebuilt from the bands, and how close they are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...shards_manifest import tables
from ...shards_manifest.dataset import open_split
from ...shards_manifest.errors import FormatError
from ...shards_manifest.manifest import SplitManifest
from ...shards_manifest.storage.address import shown
from ...shards_manifest.storage.base import Store
from ..config import SourceOptions
from ..errors import RejectedImage, SourceError
from ..listing import CHUNK, Listing
from ..pipeline import pil_decode
from ..sources import OnProgress, Source, find_source, no_progress
from ..split.sharding import permutation
from .reconstruct import SplitBlocks, rebuild

_DRAWN = 7  # the stream of random numbers that samples are drawn from, different from those of sharding
WRONG = 15.0  # dB: two different photographs have about 10, the coarsest step leaves more than 20


@dataclass(frozen=True)
class Fidelity:
    """What a comparison found.

    Attributes:
        psnr: In dB, 10 log10(255**2 / mean squared error over R, G, B) of each image compared: float64 (n,).
        keys: Their keys.
        bad: A sentence for each that is not in the source, or is another picture there.
    """

    psnr: NDArray[np.float64]
    keys: tuple[str, ...]
    bad: tuple[str, ...]

    @property
    def of_mean_error(self) -> float:
        """PSNR of the mean squared error over all images."""
        return float(-10 * np.log10(np.mean(10 ** (-self.psnr / 10))))

    def to_json(self) -> dict[str, object]:
        """Return it as values of JSON; what is infinite, for images without any error, is null."""
        finite = [float(value) if np.isfinite(value) else None for value in self.psnr]
        return {"psnr": dict(zip(self.keys, finite, strict=True)), "bad": list(self.bad)}


def fidelity(
    data: str | os.PathLike[str],
    source: str | os.PathLike[str],
    samples: int,
    seed: int = 0,
    options: SourceOptions | None = None,
    progress: OnProgress = no_progress,
) -> Fidelity:
    """Rebuild `samples` images, drawn at random over all parts, and compare them with the source.

    The source is decoded and resized by PIL alone, so that no code of the split checks itself.

    Args:
        data: The folder or URL of a whole split.
        source: What it was made from.
        samples: How many to compare.
        seed: Of the draw.
        options: How to read the source.
        progress: Called with the number of images that were compared since the last call.

    Raises:
        FormatError: The split lacks bands, or is none.
        ShardError: A shard is missing or damaged.
        SourceError: The source cannot be read, or has changed.
    """
    store, manifest = open_split(data)
    if len(manifest.bands) != manifest.geometry.factor:
        raise FormatError(f"{store} has {len(manifest.bands)} of {manifest.geometry.factor} bands: images need all")
    found = find_source(source, options or SourceOptions())
    listing = found.scan()
    psnr, keys, bad = [], [], []
    for part, positions in _drawn(manifest, samples, seed):
        where = f"{store}/{tables.samples_name(part)}"
        table, _ = tables.read_samples(store.read(tables.samples_name(part)), where)
        origin = part if part in listing.parts else "train"
        places = _places(listing, origin, {table[i][0] for i in positions})
        for position, image in _rebuilt(store, manifest, part, positions):
            progress(1)
            key = table[position][0]
            if key not in places:
                bad.append(f"{key} of {part} is not in {shown(source)}")
                continue
            error = np.mean((image - _wanted(found, listing, origin, places[key], manifest)) ** 2)
            psnr.append(10 * np.log10(255**2 / max(float(error), 1e-9)))
            keys.append(key)
            if psnr[-1] < WRONG:
                bad.append(f"{key} of {part} is another picture in {shown(source)} ({psnr[-1]:.1f} dB)")
    return Fidelity(np.array(psnr), tuple(keys), tuple(bad))


def _drawn(manifest: SplitManifest, samples: int, seed: int) -> Iterator[tuple[str, list[int]]]:
    """Yield each part with the positions drawn from it, in order."""
    counts = {part: summary.samples for part, summary in sorted(manifest.parts.items())}
    picked = np.sort(permutation(seed, _DRAWN, sum(counts.values()))[:samples])
    start = 0
    for part, count in counts.items():
        yield part, (picked[(picked >= start) & (picked < start + count)] - start).tolist()
        start += count


def _places(listing: Listing, origin: str, keys: set[str]) -> dict[str, int]:
    """Return the place of each of `keys` in the source."""
    entries = listing.parts[origin]
    places = {}
    for start in range(0, len(entries), CHUNK):
        some = np.arange(start, min(start + CHUNK, len(entries)))
        places.update({key: start + i for i, key in enumerate(listing.keys(entries, some)) if key in keys})
    return places


def _rebuilt(
    store: Store, manifest: SplitManifest, part: str, positions: list[int]
) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """Yield positions and pixels, float64 (side, side, 3), of samples of a part; every block is read once."""
    with SplitBlocks(store, manifest, part) as blocks:
        ends = np.cumsum(blocks.samples)
        last, coefficients = -1, np.empty(0, np.float32)
        for position in positions:
            block = int(np.searchsorted(ends, position, side="right"))
            if block != last:
                last, coefficients = block, blocks.read(block)
            offset = position - int(ends[block] - blocks.samples[block])
            yield position, rebuild(coefficients[:, offset], manifest).astype(np.float64)


def _wanted(source: Source, listing: Listing, origin: str, index: int, manifest: SplitManifest) -> NDArray[np.float64]:
    """Return the image of the source as the split should have it, by PIL: float64 (side, side, 3)."""
    entries = listing.parts[origin]
    geometry = manifest.geometry
    side = geometry.size + geometry.margin
    upright = manifest.provenance.get("plan", {}).get("orientation") == "exif"
    try:
        data = source.read(origin, listing.names_in(origin)[int(entries.label[index])], entries, index)
        image, _ = pil_decode.read(data, upright)
    except RejectedImage as reason:
        raise SourceError(
            f"{listing.key(entries, index)} can no longer be used ({reason}): the source has changed"
        ) from None
    edge = min(image.size)
    left, top = (image.width - edge) / 2, (image.height - edge) / 2
    box = (left, top, left + edge, top + edge) if geometry.fit == "crop" else None
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR, box), np.float64)
