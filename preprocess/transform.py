"""Phases to spectral sub-bands: the orthonormal transform, its inverse, and exact quantising.

A plane of side P*s is cut into K = s*s phases of side P: phase n = p*s + q holds the pixels (s*i + p,
s*j + q). A K x K orthonormal matrix mixes the phases into K bands.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

TRANSFORMS = ("dct", "dct2", "none")


def dct_matrix(count: int) -> NDArray[np.float64]:
    """The orthonormal DCT-II of `count` points: float64, (count, count), row k is frequency k."""
    k, n = np.arange(count)[:, None], np.arange(count)[None, :]
    matrix = np.cos(np.pi * k * (2 * n + 1) / (2 * count)) * math.sqrt(2 / count)
    matrix[0] = 1 / math.sqrt(count)
    return np.asarray(matrix, np.float64)


def band_matrix(transform: str, factor: int) -> NDArray[np.float64]:
    """The orthonormal matrix that takes K phases to K bands: float64, (K, K).

    dct: a one-dimensional DCT-II over the phases in raster order, as published.
    dct2: the separable s x s DCT-II; band v*s + u has vertical frequency v, horizontal u.
    none: the phases themselves.
    Raises ValueError for another name.
    """
    if transform == "dct":
        return dct_matrix(factor)
    if transform == "dct2":
        axis = dct_matrix(math.isqrt(factor))
        return np.asarray(np.kron(axis, axis), np.float64)
    if transform == "none":
        return np.eye(factor)
    raise ValueError(f"unknown transform {transform!r}")


def band_frequency(transform: str, factor: int, band: int) -> tuple[int, ...]:
    """What a band is: (k,) for dct, (v, u) for dct2, the phase (p, q) for none."""
    return (band,) if transform == "dct" else divmod(band, math.isqrt(factor))


def phase_view(plane: NDArray[Any], grid: int) -> NDArray[Any]:
    """The phases of planes (..., P*s, P*s) as a strided view (..., s, s, P, P); nothing is copied."""
    *lead, height, width = plane.shape
    split = plane.reshape(*lead, height // grid, grid, width // grid, grid)
    axes = len(lead)
    return split.transpose(*range(axes), axes + 1, axes + 3, axes, axes + 2)


def forward(planes: NDArray[Any], matrix: NDArray[np.float64]) -> NDArray[np.float32]:
    """Bands of planes (..., P*s, P*s): float32, (..., K, P, P). The reference, exact to float32."""
    grid = math.isqrt(len(matrix))
    phases = phase_view(np.asarray(planes, np.float64), grid)
    *lead, _, _, height, width = phases.shape
    columns = phases.reshape(*lead, len(matrix), height * width)
    return np.asarray((matrix @ columns).reshape(*lead, len(matrix), height, width), np.float32)


def inverse(bands: NDArray[Any], matrix: NDArray[np.float64]) -> NDArray[np.float32]:
    """Planes (..., P*s, P*s), float32, of bands (..., K, P, P): undoes `forward`."""
    count = len(matrix)
    grid = math.isqrt(count)
    *lead, _, height, width = bands.shape
    columns = np.asarray(bands, np.float64).reshape(*lead, count, height * width)
    phases = (matrix.T @ columns).reshape(*lead, grid, grid, height, width)
    axes = len(lead)
    split = phases.transpose(*range(axes), axes + 2, axes, axes + 3, axes + 1)
    return np.asarray(split.reshape(*lead, height * grid, width * grid), np.float32)


def band_steps(step: float, dtype: str, transform: str, factor: int) -> tuple[float, ...]:
    """The quantising step of each band: `step`, and for int8 never so small that the mean band clips.

    A centred pixel lies in -128..127, the mean band (dct, dct2: band 0) in s times that, and a band of
    `none` in that itself, so steps of s and of 1 fill int8 exactly.
    """
    if dtype == "float16":
        return (1.0,) * factor
    if transform == "none":
        return (max(step, 1.0),) * factor
    return (max(step, float(math.isqrt(factor))), *(step,) * (factor - 1))


def exact_weights(matrix: NDArray[np.float64], peak: int) -> NDArray[np.float32]:
    """`matrix` rounded to multiples of 2**-f such that float32 products with integers are exact.

    peak: the largest absolute value of an input. With |partial sum| * 2**f <= 2**24 every partial sum
    is a float32, so the product is the same for any order of summation, with or without fused
    multiply-add: the same bytes from any BLAS on any machine (docs/decisions/0001).
    """
    bound = peak * np.abs(matrix).sum(axis=1).max()
    fraction = 24 - math.ceil(math.log2(bound * (1 + 2**-10)))  # headroom for the rounding of the entries
    return np.asarray(np.rint(np.ldexp(matrix, fraction)) * 2.0**-fraction, np.float32)
