"""RGB to the stored channels and back, counted in quarters of a grey level.

Rounding to quarters costs 0.01 dB where rounding to whole levels, as a JPEG does, costs 0.2; and it
leaves integers, so that the transform that follows is exact (docs/decisions/0001).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .transform import exact_weights

COLORS = ("ycbcr", "rgb")
UNIT = 4
PEAK = 128 * UNIT
PIXEL_PEAK = 255


def color_matrix(color: str) -> NDArray[np.float64]:
    """Channels of R, G, B: float64 (3, 3). ycbcr is JFIF's (ITU-R BT.601, full range)."""
    if color == "rgb":
        return np.eye(3)
    return np.array(
        [
            [0.299, 0.587, 0.114],
            [-0.299 / 1.772, -0.587 / 1.772, 0.886 / 1.772],
            [0.701 / 1.402, -0.587 / 1.402, -0.114 / 1.402],
        ]
    )


def plane_ranges(color: str) -> list[tuple[int, int]]:
    """Least and largest value of each stored channel, in quarters."""
    grey, chroma = (-PEAK, PEAK - UNIT), (-PEAK + UNIT // 2, PEAK - UNIT // 2)
    return [grey, grey, grey] if color == "rgb" else [grey, chroma, chroma]


def pixel_weights(color: str) -> NDArray[np.float32]:
    """What takes R, G, B and 128 to the stored channels, in quarters: float32 (3, 4).

    The fourth input centres what is not centred by itself. Products with pixels are exact (transform.exact_weights).
    """
    offset = [-UNIT if low == -PEAK else 0 for low, _ in plane_ranges(color)]
    return exact_weights(np.column_stack([UNIT * color_matrix(color), offset]), PIXEL_PEAK)


def phase_weights(matrix: NDArray[np.float64], steps: NDArray[np.float64]) -> NDArray[np.float32]:
    """What takes a channel's phases, in quarters, to coefficients in steps: float32 (3, bands, phases), exact.

    matrix: rows of `transform.band_matrix`.  steps: (bands, 3).
    """
    return np.stack([exact_weights(matrix / (UNIT * step[:, None]), PEAK) for step in steps.T])


def to_rgb(planes: NDArray[np.float32], color: str) -> NDArray[np.uint8]:
    """Pixels of centred channels (3, ...) in grey levels: uint8, same shape."""
    rgb = np.tensordot(np.linalg.inv(color_matrix(color)), np.asarray(planes, np.float64), 1) + 128
    return np.asarray(np.clip(np.rint(rgb), 0, 255), np.uint8)
