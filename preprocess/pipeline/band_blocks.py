"""The blocks that are compressed: one in every band, filled image by image."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ...shards_manifest.manifest import DTYPES
from ...shards_manifest.shard.format import NPY_HEADER, npy_header
from ..config import SplitConfig
from .coefficients import coefficients


class BandBlocks:
    """The block that is being filled in every written band, and the counts of all images that went in.

    Args:
        config: The options, resolved.

    Attributes:
        plane: Bytes of one plane.
        count: Images in the block.
        counts: Those of `Coefficients`.
    """

    def __init__(self, config: SplitConfig) -> None:
        self._coefficients = coefficients(config)
        self.counts = self._coefficients.counts
        self._side = config.geometry.plane
        self._dtype = DTYPES[config.dtype]
        self.plane = self._side**2 * self._dtype.itemsize
        self._capacity = config.samples_per_block
        # each band's block has space for its .npy header before it, so that it is compressed in place
        self._item = 3 * self.plane
        self._raw = np.empty((len(config.bands), NPY_HEADER + self._capacity * self._item), np.uint8)
        self._x = (
            self._raw[:, NPY_HEADER:].view(self._dtype).reshape(len(config.bands), self._capacity, 3, self._side**2)
        )
        self._labels = np.empty(self._capacity, np.int64)
        self.count = 0

    @property
    def full(self) -> bool:
        """True if the block has to be taken out before the next image."""
        return self.count == self._capacity

    def add(self, pixels: NDArray[np.uint8], label: int) -> None:
        """Split one image into the block.

        Args:
            pixels: uint8 (P*s, P*s, 4), R, G, B and an unused channel.
            label: Number of its class.
        """
        self._coefficients(pixels, self._x[:, self.count])
        self._labels[self.count] = label
        self.count += 1

    def take(self) -> tuple[list[memoryview], NDArray[np.int64]]:
        """Take out the block as one whole .npy file a band, with its labels int64 (n,); valid until the next `add`."""
        header = npy_header(self._dtype, (self.count, 3, self._side, self._side))
        self._raw[:, :NPY_HEADER] = np.frombuffer(header, np.uint8)
        end = NPY_HEADER + self.count * self._item
        labels = self._labels[: self.count]
        self.count = 0
        return [raw[:end].data for raw in self._raw], labels


def moments(
    total: tuple[int, ...], squares: tuple[int, ...], count: int, units: tuple[float, ...]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and the standard deviation of each channel from exact sums.

    A deviation of zero, or of no values, is given as 1, so that dividing by it is harmless.

    Args:
        total: Sum of the values of each channel, in its unit.
        squares: Sum of their squares.
        count: Number of values in a channel.
        units: What the values of each channel are counted in.
    """
    if not count:
        return (0.0,) * len(total), (1.0,) * len(total)
    means = tuple(first / count * unit for first, unit in zip(total, units, strict=True))
    # integers until the division: no cancellation
    variances = ((second * count - first * first) / count**2 for first, second in zip(total, squares, strict=True))
    return means, tuple(math.sqrt(variance) * unit or 1.0 for variance, unit in zip(variances, units, strict=True))
