"""RGB to the stored channels and back, counted in quarters of a grey level.

Rounding to quarters costs 0.01 dB where rounding to whole levels, as a JPEG does, costs 0.2; and it
leaves integers, so that the transform that follows is exact (docs/decisions/0001).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

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


def to_rgb(planes: NDArray[np.float32], color: str) -> NDArray[np.uint8]:
    """Pixels of centred channels (3, ...) in grey levels: uint8, same shape."""
    rgb = np.tensordot(np.linalg.inv(color_matrix(color)), np.asarray(planes, np.float64), 1) + 128
    return np.asarray(np.clip(np.rint(rgb), 0, 255), np.uint8)
