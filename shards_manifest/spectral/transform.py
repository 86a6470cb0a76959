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


def band_steps(step: float, dtype: str, color: str, transform: str, factor: int) -> NDArray[np.float64]:
    """The quantising step of each band and channel: float64 (K, 3).

    It is `step`, but for int8 never so small that the mean band can clip (band 0 of dct and dct2; every
    band of none). Centred luma, R, G, B lie in -128..127, chroma in -127.5..127.5, and the mean band in s
    times that: a step of s fills int8 exactly for the former, 128/127 of that holds the latter.
    """
    if dtype == "float16":
        return np.ones((factor, 3))
    steps = np.full((factor, 3), step)
    chroma = 128 / 127 if color == "ycbcr" else 1.0
    mean, scale = (slice(None), 1) if transform == "none" else (slice(1), math.isqrt(factor))
    steps[mean] = np.maximum(steps[mean], scale * np.array([1.0, chroma, chroma]))
    return steps


def exact_weights(matrix: NDArray[np.float64], peak: int) -> NDArray[np.float32]:
    """`matrix` with each row rounded to multiples of some 2**-f, such that products with integers are exact.

    peak: the largest absolute value of an input. With |partial sum| * 2**f <= 2**24 every partial sum
    is a float32, so the product is the same for any order of summation, with or without fused
    multiply-add: the same bytes from any BLAS on any machine (docs/decisions/0001).
    """
    bound = peak * np.abs(matrix).sum(axis=1, keepdims=True) * (1 + 2**-10)  # room for the rounded entries
    fraction = 24 - np.ceil(np.log2(bound)).astype(np.int64)
    return np.asarray(np.ldexp(np.rint(np.ldexp(matrix, fraction)), -fraction), np.float32)


def reach(weights: NDArray[np.float32], limits: tuple[int, int]) -> tuple[float, float]:
    """The least and the largest product of any row with inputs within `limits` (one below, one above 0)."""
    low, high = limits
    positive = np.maximum(weights, 0).sum(axis=1, dtype=np.float64)
    negative = np.minimum(weights, 0).sum(axis=1, dtype=np.float64)
    return float((positive * low + negative * high).min()), float((positive * high + negative * low).max())
