"""Phases to spectral sub-bands: the orthonormal transform, its inverse, and exact quantising.

A plane of side P*s is cut into K = s*s phases of side P: phase n = p*s + q holds the pixels (s*i + p,
s*j + q). A K x K orthonormal matrix mixes the phases into K bands.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Transform:
    """One way to mix K phases into K bands.

    Attributes:
        help: What it is, in one line.
        matrix: Returns the orthonormal matrix for K: float64 (K, K), one row for each band.
        frequency: Returns what a band is, from K and the number of the band.
        mean_band: True where band 0 is the mean of the phases and the others hold what they differ by.
    """

    help: str
    matrix: Callable[[int], NDArray[np.float64]]
    frequency: Callable[[int, int], tuple[int, ...]]
    mean_band: bool = True


def dct_matrix(count: int) -> NDArray[np.float64]:
    """Return the orthonormal DCT-II of `count` points: float64 (count, count), row k is frequency k."""
    k, n = np.arange(count)[:, None], np.arange(count)[None, :]
    matrix = np.cos(np.pi * k * (2 * n + 1) / (2 * count)) * math.sqrt(2 / count)
    matrix[0] = 1 / math.sqrt(count)
    return np.asarray(matrix, np.float64)


def _separable_matrix(count: int) -> NDArray[np.float64]:
    """Return the separable s x s DCT-II: row v*s + u has vertical frequency v, horizontal u."""
    axis = dct_matrix(math.isqrt(count))
    return np.asarray(np.kron(axis, axis), np.float64)


def _one_index(factor: int, band: int) -> tuple[int]:
    return (band,)


def _row_and_column(factor: int, band: int) -> tuple[int, int]:
    return divmod(band, math.isqrt(factor))


TRANSFORMS: Mapping[str, Transform] = {
    "dct": Transform("a DCT over the phases in raster order, as published", dct_matrix, _one_index),
    "dct2": Transform("a separable DCT over rows and columns of phases", _separable_matrix, _row_and_column),
    "none": Transform("the phases themselves", np.eye, _row_and_column, mean_band=False),
}


def band_matrix(transform: str, factor: int) -> NDArray[np.float64]:
    """Return the orthonormal matrix that takes K phases to K bands.

    Args:
        transform: A name in TRANSFORMS.
        factor: K.

    Returns:
        float64 (K, K), one row for each band.
    """
    return TRANSFORMS[transform].matrix(factor)


def band_frequency(transform: str, factor: int, band: int) -> tuple[int, ...]:
    """Return what a band is: (k,) for dct, (v, u) for dct2, the phase (p, q) for none."""
    return TRANSFORMS[transform].frequency(factor, band)


def flip_matrix(transform: str, factor: int) -> NDArray[np.float64]:
    """Return how bands mix when an image is mirrored left to right.

    The bands of the mirrored image are this matrix times the mirrored planes of the bands. It is diagonal for dct2
    (1 or -1), a permutation for none, and mixes bands for dct.

    Args:
        transform: A name in TRANSFORMS.
        factor: K.

    Returns:
        float64 (K, K), one row for each band of the mirrored image.
    """
    matrix, grid = band_matrix(transform, factor), math.isqrt(factor)
    mirrored = np.arange(factor).reshape(grid, grid)[:, ::-1].ravel()  # phase (p, q) becomes (p, s - 1 - q)
    mixed = matrix @ matrix.T[mirrored]
    return np.asarray(np.where(np.abs(mixed - np.rint(mixed)) < 1e-12, np.rint(mixed), mixed) + 0.0)


def compose_matrix(transform: str, factor: int, bands: Sequence[int]) -> NDArray[np.float64]:
    """Return how some bands are put together to an image whose other bands are zero.

    With dct2, bands of low frequencies alone give a smaller image: those with v and u below g are the g x g DCT of
    an image of P*g pixels. Otherwise the image has the size of the whole one.

    Args:
        transform: A name in TRANSFORMS.
        factor: K.
        bands: The bands at hand.

    Returns:
        float64 (g*g, bands): row p*g + q makes the pixels (g*i + p, g*j + q) of the image from the coefficients (i, j)
        of the bands, in grey levels.
    """
    grid = math.isqrt(factor)
    if transform != "dct2":
        return band_matrix(transform, factor)[list(bands)].T
    frequencies = [divmod(band, grid) for band in bands]
    small = max(max(pair) for pair in frequencies) + 1
    matrix = _separable_matrix(small * small)[[v * small + u for v, u in frequencies]]
    return np.asarray(matrix.T * (small / grid), np.float64)  # the same mean over fewer pixels


def phase_view(plane: NDArray[Any], grid: int) -> NDArray[Any]:
    """Return the phases of planes (..., P*s, P*s) as a strided view (..., s, s, P, P); nothing is copied."""
    *lead, height, width = plane.shape
    split = plane.reshape(*lead, height // grid, grid, width // grid, grid)
    axes = len(lead)
    return split.transpose(*range(axes), axes + 1, axes + 3, axes, axes + 2)


def forward(planes: NDArray[Any], matrix: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the bands of planes (..., P*s, P*s): float32 (..., K, P, P). The reference, exact to float32."""
    grid = math.isqrt(len(matrix))
    phases = phase_view(np.asarray(planes, np.float64), grid)
    *lead, _, _, height, width = phases.shape
    columns = phases.reshape(*lead, len(matrix), height * width)
    return np.asarray((matrix @ columns).reshape(*lead, len(matrix), height, width), np.float32)


def inverse(bands: NDArray[Any], matrix: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the planes, float32 (..., P*s, P*s), of bands (..., K, P, P): undoes `forward`."""
    count = len(matrix)
    grid = math.isqrt(count)
    *lead, _, height, width = bands.shape
    columns = np.asarray(bands, np.float64).reshape(*lead, count, height * width)
    phases = (matrix.T @ columns).reshape(*lead, grid, grid, height, width)
    axes = len(lead)
    split = phases.transpose(*range(axes), axes + 2, axes, axes + 3, axes + 1)
    return np.asarray(split.reshape(*lead, height * grid, width * grid), np.float32)


def band_steps(
    step: float, chroma_step: float, dtype: str, color: str, transform: str, factor: int
) -> NDArray[np.float64]:
    """Return the quantising step of each band and channel.

    It is `step` for luma, R, G, B, and for all of the mean band (band 0), whose chroma networks see; chroma of other
    bands has `chroma_step` (docs/decisions/0019). For int8 it is never so small that the mean band can clip; without a
    mean band, any band. Centred luma, R, G, B lie in -128..127, chroma in -127.5..127.5, and the mean band in s times
    that: a step of s fills int8 exactly for the former, 128/127 of that holds the latter.

    Args:
        step: In grey levels.
        chroma_step: In grey levels; without effect unless `color` is ycbcr.
        dtype: int8 or float16, whose step is 1.
        color: ycbcr or rgb.
        transform: A name in TRANSFORMS.
        factor: K.

    Returns:
        float64 (K, 3), in grey levels.
    """
    if dtype == "float16":
        return np.ones((factor, 3))
    steps = np.full((factor, 3), step)
    least = np.ones(3)
    if color == "ycbcr":
        steps[:, 1:] = chroma_step
        least[1:] = 128 / 127
    if TRANSFORMS[transform].mean_band:
        steps[0] = np.maximum(step, math.isqrt(factor) * least)
        return steps
    return np.asarray(np.maximum(steps, least), np.float64)


def exact_weights(matrix: NDArray[np.float64], peak: int) -> NDArray[np.float32]:
    """Round each row of a matrix to multiples of some 2**-f, such that products with integers are exact.

    With |partial sum| * 2**f <= 2**24 every partial sum is a float32, so the product is the same for any order of
    summation, with or without fused multiply-add: the same bytes from any BLAS on any machine (docs/decisions/0001).

    Args:
        matrix: float64 (rows, inputs).
        peak: The largest absolute value of an input.

    Returns:
        float32 (rows, inputs).
    """
    bound = peak * np.abs(matrix).sum(axis=1, keepdims=True) * (1 + 2**-10)  # room for the rounded entries
    fraction = 24 - np.ceil(np.log2(bound)).astype(np.int64)
    return np.asarray(np.ldexp(np.rint(np.ldexp(matrix, fraction)), -fraction), np.float32)


def reach(weights: NDArray[np.float32], limits: tuple[int, int]) -> tuple[float, float]:
    """Return the least and the largest product of any row with inputs within `limits` (one below, one above 0)."""
    low, high = limits
    positive = np.maximum(weights, 0).sum(axis=1, dtype=np.float64)
    negative = np.minimum(weights, 0).sum(axis=1, dtype=np.float64)
    return float((positive * low + negative * high).min()), float((positive * high + negative * low).max())
