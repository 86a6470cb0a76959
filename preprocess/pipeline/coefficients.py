"""Pixels of one image to quantised coefficients of its bands, in two ways: compiled code, and NumPy.

Both give the same bytes, because every product is exact (docs/decisions/0001). The compiled code, `_kernel.c`,
takes a third of the time; NumPy computes float16, and everything on machines where nothing was compiled.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...shards_manifest.spectral.color import phase_weights, pixel_weights, plane_ranges
from ...shards_manifest.spectral.transform import band_matrix, phase_view, reach
from ..config import SplitConfig

try:
    from . import _kernel
except ImportError:  # no compiler where this was installed
    _kernel = None  # type: ignore[assignment]

TILE_PIXELS = 10_000  # a tile's arrays (32 bytes a pixel) stay in a core's second-level cache
FLOAT16_UNIT = 1 / 16  # what the statistics of float16 coefficients are counted in


class Coefficients:
    """The weights that the options give; a subclass computes with them.

    Args:
        config: The options, resolved.

    Attributes:
        counts: int64 (3, bands, 3). For each band and channel: the coefficients that were cut to the range of the
            dtype, the sum of the stored values, and the sum of their squares. All are exact, whatever the order of the
            images. For float16 the sums are of the values rounded to 1/16, in that unit.
    """

    def __init__(self, config: SplitConfig) -> None:
        self._grid = config.geometry.grid
        self._side = config.geometry.plane
        bands = list(config.bands)
        matrix = band_matrix(config.transform, config.factor)[bands]
        self._weights = phase_weights(matrix, config.band_steps()[bands])
        self._color = pixel_weights(config.color)
        self.counts = np.zeros((3, len(bands), 3), np.int64)

    def __call__(self, pixels: NDArray[np.uint8], out: NDArray[Any]) -> None:
        """Split one image.

        Args:
            pixels: uint8 (P*s, P*s, 4), R, G, B and an unused channel.
            out: (bands, 3, P*P) of the stored dtype; it is filled.
        """
        raise NotImplementedError


def coefficients(config: SplitConfig) -> Coefficients:
    """Return the fastest implementation there is for these options."""
    if _kernel is not None and config.dtype == "int8":
        return Compiled(config)
    return Portable(config)


def kernel_name() -> str:
    """Return the implementation that computes int8 coefficients: compiled or NumPy."""
    return "compiled" if _kernel is not None else "NumPy"


class Compiled(Coefficients):
    """int8 coefficients by `_kernel.c`."""

    def __init__(self, config: SplitConfig) -> None:
        super().__init__(config)
        self._color = self._color * np.array([1, 1, 1, 128], np.float32)
        # rows of a DCT are symmetric or antisymmetric: folding the phases halves the products. The even rows of the DCT
        # over all phases are a DCT of half the length, and are folded again.
        self._sums = self._again = -1
        places, terms, even = np.arange(len(config.bands)), self._weights, _mirrored(self._weights)
        if even is not None:
            places, terms, self._sums = (
                np.argsort(~even, kind="stable"),
                terms[:, :, : config.factor // 2],
                int(even.sum()),
            )
            again = _mirrored(terms[:, even])
            if again is not None:
                places[: self._sums] = places[: self._sums][np.argsort(~again, kind="stable")]
                self._again = int(again.sum())
        self._places = places.astype(np.int32)
        self._terms = np.ascontiguousarray(terms[:, places])

    def __call__(self, pixels: NDArray[np.uint8], out: NDArray[Any]) -> None:
        """Split one image."""
        _kernel.split(
            pixels, out, self._color, self._terms, self._places, self.counts, self._grid, self._sums, self._again
        )


def _mirrored(weights: NDArray[np.float32]) -> NDArray[np.bool_] | None:
    """Return which rows are symmetric, bool (rows,); None unless all others are antisymmetric.

    Args:
        weights: (channels, rows, terms).
    """
    even, odd = ((weights == sign * weights[:, :, ::-1]).all(axis=(0, 2)) for sign in (1, -1))
    return even if weights.shape[2] % 2 == 0 and (even | odd).all() else None


class Portable(Coefficients):
    """int8 or float16 coefficients by NumPy, tile by tile: some rows of every phase, over the whole width."""

    def __init__(self, config: SplitConfig) -> None:
        super().__init__(config)
        self._float = config.dtype == "float16"
        self._limits = (-65504, 65504) if self._float else (-128, 127)
        self._may_clip = any(
            least < self._limits[0] - 0.5 or most > self._limits[1] + 0.49
            for least, most in map(reach, self._weights, plane_ranges(config.color))
        )
        # a channel of a packed pixel stays in its bits of the word: the power of two is taken back here
        self._color /= np.array([1, 1 << 8, 1 << 16, 1], np.float32)
        self._rows = _largest_divisor(self._side, TILE_PIXELS // (self._side * config.factor))
        self._tile = _Tile(self._grid, self._rows, self._side, len(config.bands))

    def __call__(self, pixels: NDArray[np.uint8], out: NDArray[Any]) -> None:
        """Split one image."""
        phases = phase_view(pixels.view(np.uint32)[..., 0], self._grid)
        size = self._rows * self._side
        bands = self._tile.bands.transpose(1, 0, 2)
        for row in range(0, self._side, self._rows):
            self._transform(phases[:, :, row : row + self._rows])
            if self._may_clip:
                self._clip()
            np.copyto(out[:, :, row * self._side :][:, :, :size], bands, casting="unsafe")
            self._measure()

    def _transform(self, phases: NDArray[np.uint32]) -> None:
        """Compute the coefficients of a tile (s, s, rows, P) of packed pixels, in quantising steps."""
        tile = self._tile
        np.copyto(tile.packed, phases)  # a pixel moves as one 32-bit word
        words = tile.packed.reshape(-1)
        for byte, plane in enumerate(tile.rgb):
            np.bitwise_and(words, 0xFF << 8 * byte, out=tile.word)
            np.copyto(plane, tile.word.view(np.int32), casting="unsafe")
        channels = tile.phases.reshape(tile.rgb.shape)
        np.rint(np.matmul(self._color, tile.inputs, out=channels), out=channels)
        for weights, channel, bands in zip(self._weights, tile.phases, tile.bands, strict=True):
            np.matmul(weights, channel, out=bands)
        if not self._float:
            np.rint(tile.bands, out=tile.bands)

    def _clip(self) -> None:
        low, high = self._limits
        bands = self._tile.bands
        if bands.min() < low or bands.max() > high:
            outside = (bands < low) | (bands > high)
            self.counts[0] += outside.sum(axis=2).T
            np.clip(bands, low, high, out=bands)

    def _measure(self) -> None:
        ones = self._tile.ones
        values = self._tile.bands.reshape(-1, len(ones))
        if self._float:
            values = np.rint(values.astype(np.float64) / FLOAT16_UNIT)
        for counts, sums in ((self.counts[1], values @ ones), (self.counts[2], np.vecdot(values, values))):
            # the sum of each run is exact, and float64 holds the sums of the runs exactly too
            counts += sums.reshape(3, len(counts), -1).sum(axis=2, dtype=np.float64).T.astype(np.int64)


class _Tile:
    """The work arrays of one tile."""

    def __init__(self, grid: int, rows: int, side: int, bands: int) -> None:
        factor, size = grid * grid, rows * side
        self.packed = np.empty((grid, grid, rows, side), np.uint32)
        self.inputs = np.full((4, factor * size), 128, np.float32)
        self.rgb = self.inputs[:3]
        self.phases = np.empty((3, factor, size), np.float32)
        # two arrays serve twice, which keeps more of the decoder's memory in the cache (10 % of the time)
        self.word = self.phases[0].reshape(-1).view(np.uint32)
        self.bands = self.rgb.reshape(-1)[: 3 * bands * size].reshape(3, bands, size)
        # runs of at most 1024 int8 values: their sums of squares stay within 2**24, exact in float32
        self.ones = np.ones(_largest_divisor(size, 1024), np.float32)


def _largest_divisor(number: int, most: int) -> int:
    return max((d for d in range(1, min(number, most) + 1) if number % d == 0), default=1)
