"""RGB to the stored channels and back, counted in quarters of a grey level.

Rounding to quarters costs 0.01 dB where rounding to whole levels, as a JPEG does, costs 0.2; and it
leaves integers, so that the transform that follows is exact (docs/decisions/0001).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .transform import exact_weights

UNIT = 4
PEAK = 128 * UNIT
PIXEL_PEAK = 255

_GREY, _CHROMA = (-PEAK, PEAK - UNIT), (-PEAK + UNIT // 2, PEAK - UNIT // 2)


@dataclass(frozen=True)
class Color:
    """One way to store the colours of a pixel in three channels.

    Attributes:
        help: What it is, in one line.
        matrix: What takes R, G, B to the channels, row by row.
        ranges: The least and the largest value of each channel, in quarters of a grey level.
    """

    help: str
    matrix: tuple[tuple[float, float, float], ...]
    ranges: tuple[tuple[int, int], ...]


COLORS: Mapping[str, Color] = {
    "ycbcr": Color(
        "luma and two colour differences, as in a JPEG (ITU-R BT.601, full range)",
        (
            (0.299, 0.587, 0.114),
            (-0.299 / 1.772, -0.587 / 1.772, 0.886 / 1.772),
            (0.701 / 1.402, -0.587 / 1.402, -0.114 / 1.402),
        ),
        (_GREY, _CHROMA, _CHROMA),
    ),
    "rgb": Color("red, green, blue", ((1, 0, 0), (0, 1, 0), (0, 0, 1)), (_GREY, _GREY, _GREY)),
}


def color_matrix(color: str) -> NDArray[np.float64]:
    """Return what takes R, G, B to the stored channels: float64 (3, 3)."""
    return np.array(COLORS[color].matrix, np.float64)


def plane_ranges(color: str) -> list[tuple[int, int]]:
    """Return the least and the largest value of each stored channel, in quarters."""
    return list(COLORS[color].ranges)


def pixel_weights(color: str) -> NDArray[np.float32]:
    """Return what takes R, G, B and 128 to the stored channels, in quarters: float32 (3, 4).

    The fourth input centres what is not centred by itself. Products with pixels are exact (transform.exact_weights).
    """
    offset = [-UNIT if low == -PEAK else 0 for low, _ in plane_ranges(color)]
    return exact_weights(np.column_stack([UNIT * color_matrix(color), offset]), PIXEL_PEAK)


def phase_weights(matrix: NDArray[np.float64], steps: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return what takes a channel's phases, in quarters, to coefficients in steps.

    Args:
        matrix: Rows of `transform.band_matrix`: (bands, phases).
        steps: (bands, 3), in grey levels.

    Returns:
        float32 (3, bands, phases), whose products with phases are exact.
    """
    return np.stack([exact_weights(matrix / (UNIT * step[:, None]), PEAK) for step in steps.T])


def to_rgb(planes: NDArray[np.float32], color: str) -> NDArray[np.uint8]:
    """Return the pixels of centred channels (3, ...) in grey levels: uint8, the same shape."""
    rgb = np.tensordot(np.linalg.inv(color_matrix(color)), np.asarray(planes, np.float64), 1) + 128
    return np.asarray(np.clip(np.rint(rgb), 0, 255), np.uint8)
