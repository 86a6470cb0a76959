"""Images back from their bands."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from typing import cast

import numpy as np
from numpy.typing import NDArray

from ...shards_manifest.dataset import Split, open_bands, open_part, open_split
from ...shards_manifest.errors import FormatError
from ...shards_manifest.manifest import SplitManifest
from ...shards_manifest.shard.bands_reader import Blocks
from ...shards_manifest.spectral.color import to_rgb
from ...shards_manifest.spectral.transform import band_matrix, inverse
from ...shards_manifest.storage.base import Store


class SplitBlocks:
    """Reads the coefficients of a part of a split, all bands of a block at a time. A context manager.

    Bands that were not written are zero.

    Attributes:
        samples: How many each block holds: int64 (blocks,).
    """

    def __init__(self, store: Store, manifest: SplitManifest, part: str) -> None:
        """Read the manifests and the indices of the bands.

        Args:
            store: Of the whole split.
            manifest: Of the whole split.
            part: train or val.

        Raises:
            FormatError: There are no bands, or they do not belong together, or the manifest of one is damaged.
            ShardError: An index is missing or damaged.
        """
        self._factor, self._side = manifest.geometry.factor, manifest.geometry.plane
        bands = open_bands(Split(store, manifest))
        self._bands = bands.each
        self._blocks = open_part(bands, part)
        self.samples = self._blocks.samples
        self._files = ExitStack()

    def __enter__(self) -> SplitBlocks:
        self._blocks = cast("Blocks", self._files.enter_context(self._blocks.for_reader(1)))
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        return map(self.read, range(len(self.samples)))

    def read(self, block: int) -> NDArray[np.float32]:
        """Return one block: float32 (K, n, 3, P, P). Raises ShardError, StoreError."""
        out = np.zeros((self._factor, int(self.samples[block]), 3, self._side, self._side), np.float32)
        for band, (x, _) in zip(self._bands, self._blocks.each_band(self._blocks.fetch(block)), strict=True):
            out[band.band] = x * np.array(band.step, np.float32)[:, None, None]
        return out


def rebuild(coefficients: NDArray[np.float32], manifest: SplitManifest) -> NDArray[np.uint8]:
    """Return the image of one sample.

    Args:
        coefficients: Of all bands: float32 (K, 3, P, P).
        manifest: Of the whole split.

    Returns:
        uint8 (P*s, P*s, 3), R, G, B.
    """
    geometry = manifest.geometry
    planes = inverse(coefficients.transpose(1, 0, 2, 3), band_matrix(geometry.transform, geometry.factor))
    return to_rgb(planes, geometry.color).transpose(1, 2, 0)


def reconstruct_images(data: str | os.PathLike[str] | Split, part: str = "val") -> Iterator[NDArray[np.uint8]]:
    """Yield the images of a part of a split, in stored order, rebuilt from all its bands.

    Args:
        data: The folder or the URL of the split, or what `open_split` returned.
        part: train or val.

    Returns:
        An iterator of uint8 (P*s, P*s, 3), R, G, B.

    Raises:
        FormatError: It is no split, or has no such part.
        ShardError: A shard is missing or damaged.
        StoreError: The disk or the server refuses.
    """
    store, manifest = data if isinstance(data, Split) else open_split(data)
    if part not in manifest.parts:
        raise FormatError(f"{store} has no {part} part: choose {', '.join(manifest.parts)}")
    with SplitBlocks(store, manifest, part) as blocks:
        for block in blocks:
            for sample in range(block.shape[1]):
                yield rebuild(block[:, sample], manifest)
