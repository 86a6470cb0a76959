"""Pixels of one image to quantised coefficients of its bands, twice: compiled, and in NumPy.

Both give the same bytes, because every product is exact (docs/decisions/0001). The compiled one, `_kernel.c`,
takes a third of the time; NumPy's serves float16 and machines on which nothing was compiled.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...shards_manifest.spectral.color import phase_weights, pixel_weights, plane_ranges
from ...shards_manifest.spectral.transform import band_matrix, band_steps, phase_view, reach
from ..config import SplitPlan

try:
    from . import _kernel
except ImportError:  # no compiler where this was installed
    _kernel = None  # type: ignore[assignment]

TILE_PIXELS = 10_000  # a tile's arrays (32 bytes a pixel) stay in a core's second-level cache
FLOAT16_UNIT = 1 / 16  # what the statistics of float16 coefficients are counted in


class Coefficients:
    """What the numbers of a plan are; a subclass computes with them.

    counts: int64 (3, bands, 3): per band and channel the coefficients cut to the range of the dtype, the sum
    of the stored values, and that of their squares. All are exact, whatever the order of the images; for
    float16 the sums are of the values rounded to 1/16, in that unit.
    """

    def __init__(self, plan: SplitPlan) -> None:
        self._grid = plan.geometry.grid
        self._side = plan.geometry.plane
        bands = list(plan.bands)
        matrix = band_matrix(plan.transform, plan.factor)[bands]
        steps = band_steps(plan.step, plan.dtype, plan.color, plan.transform, plan.factor)[bands]
        self._weights = phase_weights(matrix, steps)
        self._color = pixel_weights(plan.color)
        self.counts = np.zeros((3, len(bands), 3), np.int64)

    def __call__(self, pixels: NDArray[np.uint8], out: NDArray[Any]) -> None:
        """Split one image.

        pixels: uint8 (P*s, P*s, 4), R G B and an unused channel; out: (bands, 3, P*P) of the plan's dtype.
        """
        raise NotImplementedError


def coefficients(plan: SplitPlan) -> Coefficients:
    """The fastest implementation there is for a plan."""
    if _kernel is not None and plan.dtype == "int8":
        return Compiled(plan)
    return Portable(plan)


def kernel_name() -> str:
    """Which implementation int8 coefficients are computed with."""
    return "compiled" if _kernel is not None else "NumPy"


class Compiled(Coefficients):
    """int8 coefficients by `_kernel.c`."""

    def __init__(self, plan: SplitPlan) -> None:
        super().__init__(plan)
        self._color = self._color * np.array([1, 1, 1, 128], np.float32)
        # rows of a DCT mirror themselves, with one sign or the other: folding the phases halves the products; the even
        # rows of the DCT over all phases are a DCT of half the length, and are folded again
        self._sums = self._again = -1
        places, terms, even = np.arange(len(plan.bands)), self._weights, _mirrored(self._weights)
        if even is not None:
            places, terms, self._sums = (
                np.argsort(~even, kind="stable"),
                terms[:, :, : plan.factor // 2],
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
    """Which rows of (channels, rows, terms) equal themselves reversed; None unless the rest equal their negative."""
    even, odd = ((weights == sign * weights[:, :, ::-1]).all(axis=(0, 2)) for sign in (1, -1))
    return even if weights.shape[2] % 2 == 0 and (even | odd).all() else None


class Portable(Coefficients):
    """int8 or float16 coefficients by NumPy, tile by tile."""

    def __init__(self, plan: SplitPlan) -> None:
        super().__init__(plan)
        self._float = plan.dtype == "float16"
        self._limits = (-65504, 65504) if self._float else (-128, 127)
        self._may_clip = any(
            least < self._limits[0] - 0.5 or most > self._limits[1] + 0.49
            for least, most in map(reach, self._weights, plane_ranges(plan.color))
        )
        # a channel of a packed pixel stays in its place of the word: the power of two is taken back here
        self._color /= np.array([1, 1 << 8, 1 << 16, 1], np.float32)

        # work arrays of one tile: some rows of every phase, over the whole width
        bands = len(plan.bands)
        self._rows = _largest_divisor(self._side, TILE_PIXELS // (self._side * plan.factor))
        tile = self._rows * self._side
        self._packed = np.empty((self._grid, self._grid, self._rows, self._side), np.uint32)
        self._inputs = np.full((4, plan.factor * tile), 128, np.float32)
        self._rgb = self._inputs[:3]
        self._phases = np.empty((3, plan.factor, tile), np.float32)
        # two arrays serve twice, which keeps more of the decoder's memory in the cache (10 % of the time)
        self._word = self._phases[0].reshape(-1).view(np.uint32)
        self._bands = self._rgb.reshape(-1)[: 3 * bands * tile].reshape(3, bands, tile)
        # runs of at most 1024 int8 values: their sums of squares stay within 2**24, exact in float32
        self._ones = np.ones(_largest_divisor(tile, 1024), np.float32)

    def __call__(self, pixels: NDArray[np.uint8], out: NDArray[Any]) -> None:
        """Split one image."""
        phases = phase_view(pixels.view(np.uint32)[..., 0], self._grid)
        tile = self._rows * self._side
        for row in range(0, self._side, self._rows):
            self._transform(phases[:, :, row : row + self._rows])
            if self._may_clip:
                self._clip()
            np.copyto(out[:, :, row * self._side :][:, :, :tile], self._bands.transpose(1, 0, 2), casting="unsafe")
            self._measure()

    def _transform(self, phases: NDArray[np.uint32]) -> None:
        """Fill `_bands` with the coefficients of a tile (s, s, rows, P) of packed pixels, in steps."""
        np.copyto(self._packed, phases)  # a pixel moves as one 32-bit word
        words = self._packed.reshape(-1)
        for byte, plane in enumerate(self._rgb):
            np.bitwise_and(words, 0xFF << 8 * byte, out=self._word)
            np.copyto(plane, self._word.view(np.int32), casting="unsafe")
        channels = self._phases.reshape(self._rgb.shape)
        np.rint(np.matmul(self._color, self._inputs, out=channels), out=channels)
        for weights, channel, bands in zip(self._weights, self._phases, self._bands, strict=True):
            np.matmul(weights, channel, out=bands)
        if not self._float:
            np.rint(self._bands, out=self._bands)

    def _clip(self) -> None:
        low, high = self._limits
        if self._bands.min() < low or self._bands.max() > high:
            outside = (self._bands < low) | (self._bands > high)
            self.counts[0] += outside.sum(axis=2).T
            np.clip(self._bands, low, high, out=self._bands)

    def _measure(self) -> None:
        values = self._bands.reshape(-1, len(self._ones))
        if self._float:
            values = np.rint(values.astype(np.float64) / FLOAT16_UNIT)
        for counts, sums in ((self.counts[1], values @ self._ones), (self.counts[2], np.vecdot(values, values))):
            # run by run exact; float64 holds the sums of the runs exactly as well
            counts += sums.reshape(3, len(counts), -1).sum(axis=2, dtype=np.float64).T.astype(np.int64)


def _largest_divisor(number: int, most: int) -> int:
    return max((d for d in range(1, min(number, most) + 1) if number % d == 0), default=1)
