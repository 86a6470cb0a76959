"""Draw docs/method.png: a photograph, its four bands, and what is trained on them.

python docs/picture.py
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from numpy.typing import NDArray
from PIL import Image

from spectral_shards.shards_manifest.spectral.transform import band_matrix, forward

OUT = Path(__file__).with_name("method.png")
SIDE = 288  # pixels of the photograph, a square
INK, PAPER = "#24292f", "#ffffff"
NETWORKS = (
    ("all bands as channels", "#1f77b4", 0.82),
    ("all bands as channels", "#1f77b4", 0.62),
    ("the image, half as wide", "#d95f02", 0.42),
    ("the image, half as wide", "#d95f02", 0.22),
)


def photograph() -> NDArray[np.float64]:
    """Return a square photograph: float64 (SIDE, SIDE, 3), 0 to 255."""
    import skimage.data

    pixels = np.asarray(skimage.data.chelsea(), np.float64)
    top, left = 4, 90
    return pixels[top : top + SIDE, left : left + SIDE]


def shown(band: NDArray[np.floating[Any]], number: int) -> NDArray[np.uint8]:
    """Return a band (3, H, W) as an image: the mean as it is, the others around grey, stretched."""
    pixels = band.transpose(1, 2, 0)
    gain = 0.5 if number == 0 else 3.0
    return np.asarray(np.clip(pixels * gain + 128, 0, 255), np.uint8)


def place(figure: Figure, left: float, bottom: float, height: float) -> Axes:
    """Return square axes without ticks, in figure coordinates."""
    width = height * figure.get_figheight() / figure.get_figwidth()
    axes = figure.add_axes((left, bottom, width, height))
    axes.set_xticks([])
    axes.set_yticks([])
    return axes


def draw() -> Figure:
    """Return the picture."""
    mpl.rcParams.update({"font.size": 9, "text.color": INK, "font.family": "DejaVu Sans"})
    figure = Figure((10, 3.2), dpi=110, facecolor=PAPER)
    pixels = photograph()
    place(figure, 0.01, 0.16, 0.68).imshow(pixels.astype(np.uint8))
    figure.text(0.118, 0.91, "an image", ha="center", weight="bold")
    figure.text(0.118, 0.05, "one network: cost 1", ha="center", color="#57606a")
    bands = forward(pixels.transpose(2, 0, 1) - 128, band_matrix("dct2", 4))
    for number in range(4):
        row, column = divmod(number, 2)
        axes = place(figure, 0.315 + 0.115 * column, 0.52 - 0.36 * row, 0.33)
        axes.imshow(shown(bands[:, number], number))
    figure.text(0.425, 0.91, "four bands, stored once", ha="center", weight="bold")
    figure.text(0.425, 0.05, "each a data set of its own", ha="center", color="#57606a")
    sheet = figure.add_axes((0, 0, 1, 1))
    sheet.set_xlim(0, 1)
    sheet.set_ylim(0, 1)
    sheet.axis("off")
    figure.text(0.70, 0.91, "small networks, trained independently", ha="center", weight="bold")
    figure.text(0.70, 0.05, "together: cost 1", ha="center", color="#57606a")

    def arrow(start: tuple[float, float], end: tuple[float, float]) -> None:
        patch = FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=11, color="#57606a", linewidth=1.1)
        sheet.add_patch(patch)

    arrow((0.232, 0.5), (0.307, 0.5))
    for text, colour, middle in NETWORKS:
        box = FancyBboxPatch((0.60, middle - 0.06), 0.2, 0.11, boxstyle="round,pad=0.006", fc=colour, ec="none")
        sheet.add_patch(box)
        sheet.text(0.70, middle - 0.005, text, ha="center", va="center", color="white", fontsize=8.5)
        arrow((0.548, 0.5), (0.594, middle - 0.005))
        arrow((0.806, middle - 0.005), (0.872, 0.5))
    sheet.add_patch(FancyBboxPatch((0.878, 0.42), 0.10, 0.15, boxstyle="round,pad=0.006", fc="#2da44e", ec="none"))
    sheet.text(0.928, 0.495, "fused", ha="center", va="center", color="white", weight="bold")
    return figure


if __name__ == "__main__":
    buffer = io.BytesIO()
    draw().savefig(buffer)
    Image.open(buffer).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(OUT, optimize=True)
