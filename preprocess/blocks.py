"""Pixels to quantised coefficients, straight into the blocks that are compressed."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from shards_manifest import DTYPES, NPY_HEADER, npy_header

from .color import PEAK, PIXEL_PEAK, UNIT, color_matrix, plane_ranges
from .plan import SplitPlan
from .transform import band_matrix, band_steps, exact_weights, phase_view, reach

TILE_PIXELS = 20_000  # a tile's arrays (32 bytes a pixel) stay in a core's second-level cache
FLOAT16_UNIT = 1 / 16  # what the statistics of float16 coefficients are counted in


class BandBlocks:
    """One block under way in every written band, and the running statistics of what went in.

    clipped: int64 (bands, 3), the coefficients cut to the range of the dtype. It and the sums are exact,
    whatever the order of the images; for float16 the sums are of the values rounded to 1/16, in that unit.
    area: values of one plane.
    """

    def __init__(self, plan: SplitPlan) -> None:
        self._grid = plan.geometry.grid
        self._side = plan.geometry.plane
        self._dtype = DTYPES[plan.dtype]
        self._capacity = plan.samples_per_block
        self.area = area = self._side**2
        bands = len(plan.bands)
        matrix = band_matrix(plan.transform, plan.factor)[list(plan.bands)]
        steps = band_steps(plan.step, plan.dtype, plan.color, plan.transform, plan.factor)[list(plan.bands)]
        self._weights = [exact_weights(matrix / (UNIT * step[:, None]), PEAK) for step in steps.T]
        # a fourth input, always 128, centres what is not centred by itself
        offset = [-UNIT if low == -PEAK else 0 for low, _ in plane_ranges(plan.color)]
        self._color = exact_weights(np.column_stack([UNIT * color_matrix(plan.color), offset]), PIXEL_PEAK)
        self._color /= np.array([1, 1 << 8, 1 << 16, 1], np.float32)
        self._limits = (-128, 127) if plan.dtype == "int8" else (-65504, 65504)
        self._may_clip = any(
            least < self._limits[0] - 0.5 or most > self._limits[1] + 0.49
            for least, most in map(reach, self._weights, plane_ranges(plan.color))
        )

        # each band's block lies behind room for its .npy header, so that it is compressed in place
        self._item = 3 * area * self._dtype.itemsize
        self._raw = np.empty((bands, NPY_HEADER + self._capacity * self._item), np.uint8)
        self._x = self._raw[:, NPY_HEADER:].view(self._dtype).reshape(bands, self._capacity, 3, area)
        self._labels = np.empty(self._capacity, np.int64)
        self.count = 0

        # work arrays of one tile: some rows of every phase, over the whole width
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
        # of values and of squares, run by run: float64 holds these integers exactly
        self._sums = np.zeros((2, 3 * bands * tile // len(self._ones)))
        self.clipped = np.zeros((bands, 3), np.int64)

    @property
    def total(self) -> NDArray[np.int64]:
        """Sums of the stored values: int64 (bands, 3)."""
        return self._per_band(self._sums[0])

    @property
    def squares(self) -> NDArray[np.int64]:
        """Sums of their squares: int64 (bands, 3)."""
        return self._per_band(self._sums[1])

    def _per_band(self, sums: NDArray[np.float64]) -> NDArray[np.int64]:
        return np.asarray(sums.reshape(3, len(self.clipped), -1).sum(axis=2).T, np.int64)

    @property
    def full(self) -> bool:
        """True when the block has to be taken out before the next image."""
        return self.count == self._capacity

    def add(self, pixels: NDArray[np.uint8], label: int) -> None:
        """Split one image (uint8, (P*s, P*s, 4), R G B and an unused channel) into the block."""
        phases = phase_view(pixels.view(np.uint32)[..., 0], self._grid)
        tile = self._packed[0, 0].size
        for row in range(0, self._side, self._rows):
            self._transform(phases[:, :, row : row + self._rows])
            if self._may_clip:
                self._clip()
            stored = self._x[:, self.count, :, row * self._side : row * self._side + tile]
            np.copyto(stored, self._bands.transpose(1, 0, 2), casting="unsafe")
            self._measure()
        self._labels[self.count] = label
        self.count += 1

    def take(self) -> tuple[list[memoryview], NDArray[np.int64]]:
        """The block as one whole .npy file a band, with its labels (n,); valid until the next `add`."""
        header = npy_header(self._dtype, (self.count, 3, self._side, self._side))
        self._raw[:, :NPY_HEADER] = np.frombuffer(header, np.uint8)
        end = NPY_HEADER + self.count * self._item
        labels = self._labels[: self.count]
        self.count = 0
        return [raw[:end].data for raw in self._raw], labels

    def _transform(self, phases: NDArray[np.uint32]) -> None:
        """Fill `_bands` with the coefficients of a tile (s, s, rows, P) of packed pixels, in steps."""
        np.copyto(self._packed, phases)  # a pixel moves as one 32-bit word
        words = self._packed.reshape(-1)
        for byte, plane in enumerate(self._rgb):
            # each channel stays in its place of the word: the color matrix takes the power of two back
            np.bitwise_and(words, 0xFF << 8 * byte, out=self._word)
            np.copyto(plane, self._word.view(np.int32), casting="unsafe")
        channels = self._phases.reshape(self._rgb.shape)
        np.rint(np.matmul(self._color, self._inputs, out=channels), out=channels)
        for weights, channel, bands in zip(self._weights, self._phases, self._bands, strict=True):
            np.matmul(weights, channel, out=bands)
        if self._dtype.kind == "i":
            np.rint(self._bands, out=self._bands)

    def _clip(self) -> None:
        low, high = self._limits
        if self._bands.min() < low or self._bands.max() > high:
            outside = (self._bands < low) | (self._bands > high)
            self.clipped += outside.sum(axis=2).T
            np.clip(self._bands, low, high, out=self._bands)

    def _measure(self) -> None:
        values = self._bands.reshape(-1, len(self._ones))
        if self._dtype.kind == "f":
            values = np.rint(values.astype(np.float64) / FLOAT16_UNIT)
        self._sums[0] += values @ self._ones
        self._sums[1] += np.vecdot(values, values)


def moments(
    total: tuple[int, ...], squares: tuple[int, ...], count: int, units: tuple[float, ...]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel from exact sums over `count` values counted in `units`.

    A deviation of zero, or of no values, is given as 1, so that dividing by it is harmless.
    """
    if not count:
        return (0.0,) * len(total), (1.0,) * len(total)
    means = tuple(first / count * unit for first, unit in zip(total, units, strict=True))
    # integers until the division: no cancellation
    variances = ((second * count - first * first) / count**2 for first, second in zip(total, squares, strict=True))
    return means, tuple(math.sqrt(variance) * unit or 1.0 for variance, unit in zip(variances, units, strict=True))


def _largest_divisor(number: int, most: int) -> int:
    return max((d for d in range(1, min(number, most) + 1) if number % d == 0), default=1)
