"""Images back from their bands."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ...shards_manifest.dataset import read_band
from ...shards_manifest.errors import FormatError
from ...shards_manifest.manifest import SplitManifest
from ...shards_manifest.shard.format import BlockSpan, index_shard, read_block
from ...shards_manifest.spectral.color import to_rgb
from ...shards_manifest.spectral.transform import band_matrix, inverse
from ...shards_manifest.storage.base import Store


class SplitBlocks:
    """The coefficients of a part of a split, block by block; the shards last read from stay open.

    Bands that were not written are zero. Raises FormatError, ShardError.
    """

    def __init__(self, store: Store, manifest: SplitManifest, part: str) -> None:
        self._store, self._part = store, part
        self._factor, self._side = manifest.geometry.factor, manifest.geometry.plane
        self._bands = {summary.folder: read_band(store, summary.folder) for summary in manifest.bands}
        if not self._bands:
            raise FormatError(f"{store} has no bands")
        first = next(iter(self._bands.values()))
        self.shards, self.block = first.parts[part].shards, first.block
        self._open: tuple[int, list[tuple[str, memoryview, list[BlockSpan]]]] = (-1, [])

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        for number, shard in enumerate(self.shards):
            for block in range(shard.blocks):
                yield self.read(number, block)

    def read(self, shard: int, block: int) -> NDArray[np.float32]:
        """One block, by number of shard and of block in it: float32 (K, n, 3, P, P)."""
        if self._open[0] != shard:
            self._open = shard, [self._index(f"{folder}/{self.shards[shard].name}") for folder in self._bands]
        out: NDArray[np.float32] | None = None
        for band, (where, view, blocks) in zip(self._bands.values(), self._open[1], strict=True):
            x, _ = read_block(view, blocks[block], where)
            if out is None:
                out = np.zeros((self._factor, len(x), 3, self._side, self._side), np.float32)
            out[band.band] = x * np.array(band.step, np.float32)[:, None, None]
        assert out is not None
        return out

    def _index(self, name: str) -> tuple[str, memoryview, list[BlockSpan]]:
        view, where = self._store.view(name), f"{self._store}/{name}"
        return where, view, index_shard(view, where)


def rebuild(coefficients: NDArray[np.float32], manifest: SplitManifest) -> NDArray[np.uint8]:
    """The image of one sample's coefficients (K, 3, P, P): uint8 (P*s, P*s, 3)."""
    geometry = manifest.geometry
    planes = inverse(coefficients.transpose(1, 0, 2, 3), band_matrix(geometry.transform, geometry.factor))
    return to_rgb(planes, geometry.color).transpose(1, 2, 0)
