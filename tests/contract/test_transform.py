import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectral_shards.preprocess.config import SplitConfig
from spectral_shards.preprocess.pipeline.band_blocks import BandBlocks, moments
from spectral_shards.preprocess.pipeline.coefficients import Compiled, Portable, kernel_name
from spectral_shards.shards_manifest.manifest import FACTORS
from spectral_shards.shards_manifest.spectral.color import COLORS, PEAK, UNIT, color_matrix, to_rgb
from spectral_shards.shards_manifest.spectral.transform import (
    TRANSFORMS,
    band_frequency,
    band_matrix,
    band_steps,
    dct_matrix,
    exact_weights,
    forward,
    inverse,
    phase_view,
)
from support.pictures import picture


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_orthonormal_and_invertible(transform: str, factor: int) -> None:
    matrix = band_matrix(transform, factor)
    assert np.allclose(matrix @ matrix.T, np.eye(factor), atol=1e-14)
    planes = np.random.default_rng(0).uniform(0, 255, (2, 3, 24, 24))
    bands = forward(planes, matrix)
    assert bands.shape == (2, 3, factor, 24 // math.isqrt(factor), 24 // math.isqrt(factor))
    assert np.abs(inverse(bands, matrix) - planes).max() < 1e-4
    assert np.isclose((bands.astype(float) ** 2).sum(), (planes**2).sum(), rtol=1e-6)


def test_dct_by_its_definition() -> None:
    x = np.random.default_rng(0).normal(size=36)
    for k in (0, 1, 17, 35):
        total = sum(x[n] * math.cos(math.pi * k * (2 * n + 1) / 72) for n in range(36))
        assert math.isclose((dct_matrix(36) @ x)[k], total * math.sqrt((1 if k == 0 else 2) / 36), abs_tol=1e-12)


def test_phases_and_bands_by_hand() -> None:
    plane = np.arange(16.0).reshape(4, 4)
    assert phase_view(plane, 2)[1, 0].tolist() == [[4, 6], [12, 14]]  # row 1, column 0 of every 2x2
    assert np.shares_memory(phase_view(plane, 2), plane)
    bands = forward(plane, band_matrix("dct", 4))
    assert np.allclose(bands[0], [[5, 9], [21, 25]])  # the mean band: sum of four pixels / 2
    # raster order: phases (0,0), (0,1), (1,0), (1,1) are 0, 1, 4, 5
    assert np.isclose(bands[1, 0, 0], np.dot(dct_matrix(4)[1], [0, 1, 4, 5]))
    separable = forward(plane, band_matrix("dct2", 4))
    assert np.allclose(separable[1], -1)  # horizontal: (0 - 1 + 4 - 5) / 2
    assert np.allclose(separable[2], -4)  # vertical
    assert band_frequency("dct2", 4, 2) == (1, 0)
    assert band_frequency("dct", 36, 35) == (35,)


@given(st.sampled_from(tuple(TRANSFORMS)), st.sampled_from(FACTORS), st.floats(0.25, 128), st.integers(0, 2**32))
def test_products_are_exact_in_any_order(transform: str, factor: int, step: float, seed: int) -> None:
    """The bytes of a split cannot depend on how a BLAS sums: float32 gives what integers give."""
    weights = exact_weights(band_matrix(transform, factor) / (UNIT * step), PEAK)
    random = np.random.default_rng(seed)
    x = random.integers(-PEAK, PEAK + 1, (factor, 40)).astype(np.float32)
    x[:, 0], x[:, 1] = PEAK, -PEAK
    x[:, 2] = np.where(weights[seed % factor] < 0, -PEAK, PEAK)  # the largest sum there is
    exact = weights.astype(np.float64) @ x.astype(np.float64)
    order = random.permutation(factor)
    assert np.array_equal(weights @ x, exact)
    assert np.array_equal(np.ascontiguousarray(weights[:, order]) @ x[order], exact)
    one_by_one = np.zeros_like(exact, np.float32)
    for column, row in zip(weights.T[order], x[order], strict=True):
        one_by_one += column[:, None] * row
    assert np.array_equal(one_by_one, exact)


needs_kernel = pytest.mark.skipif(kernel_name() != "compiled", reason="preprocess/_kernel.c was not compiled here")


def splitter(**options: object) -> tuple[SplitConfig, BandBlocks]:
    plan = SplitConfig(samples_per_block=2, **options).resolved()  # type: ignore[arg-type]
    return plan, BandBlocks(plan)


def coefficients(plan: SplitConfig, blocks: BandBlocks, pixels: np.ndarray) -> np.ndarray:
    """What is stored of one image: (K, 3, P, P), times the step."""
    padded = np.concatenate([pixels, np.full((*pixels.shape[:2], 1), 255, np.uint8)], -1)
    blocks.add(padded, 0)
    arrays, _ = blocks.take()
    side = plan.geometry.plane
    dtype = np.int8 if plan.dtype == "int8" else np.float16
    stored = np.stack([np.frombuffer(a, dtype, offset=128).reshape(3, side, side) for a in arrays])
    steps = plan.band_steps()
    return stored.astype(np.float32) * steps[:, :, None, None].astype(np.float32)


@pytest.mark.parametrize("color", COLORS)
@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize(
    ("factor", "size", "dtype"),
    [(1, 30, "int8"), (4, 28, "int8"), (16, 40, "float16"), (36, 336, "int8"), (36, 48, "float16")],
)
def test_stored_coefficients_are_the_transform_rounded(
    factor: int, size: int, dtype: str, transform: str, color: str
) -> None:
    plan, blocks = splitter(factor=factor, size=size, dtype=dtype, transform=transform, color=color)
    pixels = picture(3, size, size)
    stored = coefficients(plan, blocks, pixels)
    planes = np.tensordot(color_matrix(color), pixels.transpose(2, 0, 1) - 128.0, 1)
    wanted = forward(planes, band_matrix(transform, factor)).transpose(1, 0, 2, 3)
    steps = plan.band_steps()[:, :, None, None] if dtype == "int8" else 0.5
    assert (np.abs(stored - wanted) <= 0.51 * steps + 0.8).all()
    assert not blocks.counts[0].any()
    rebuilt = to_rgb(inverse(stored.transpose(1, 0, 2, 3), band_matrix(transform, factor)), color)
    error = np.mean((rebuilt.transpose(1, 2, 0).astype(float) - pixels) ** 2)
    assert 10 * math.log10(255**2 / max(error, 1e-9)) > (36 if dtype == "int8" else 50)


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("factor", FACTORS)
def test_the_mean_band_never_clips(factor: int, transform: str) -> None:
    for color in COLORS:
        for step in (0.25, 1.0, 6.0, 0.0):
            _, blocks = splitter(factor=factor, size=12, transform=transform, color=color, quant_step=step)
            for rgb in [(r, g, b) for r in (0, 255) for g in (0, 255) for b in (0, 255)]:
                flat = np.broadcast_to(np.array(rgb, np.uint8), (12, 12, 3))
                blocks.add(np.ascontiguousarray(np.concatenate([flat, flat[..., :1]], -1)), 0)
                blocks.take()
            assert not blocks.counts[0, 0].any(), (color, step)


def test_clipping_is_counted() -> None:
    _, blocks = splitter(factor=4, size=4, transform="dct2", quant_step=0.5)
    checks = np.zeros((4, 4, 4), np.uint8)
    checks[::2, ::2] = checks[1::2, 1::2] = 255
    blocks.add(checks, 0)
    assert blocks.counts[0].tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, 0], [4, 0, 0]]
    x = np.frombuffer(blocks.take()[0][3], np.int8, offset=128)
    assert set(x[:4].tolist()) == {127}


@needs_kernel
@pytest.mark.parametrize(
    "options",
    [
        {"factor": 36, "size": 336},
        {"factor": 36, "size": 66, "transform": "dct2"},
        {"factor": 36, "size": 48, "transform": "none"},
        {"factor": 36, "size": 36, "margin": 6, "bands": (0, 3, 7, 35)},
        {"factor": 36, "size": 6},
        {"factor": 16, "size": 40, "color": "rgb"},
        {"factor": 16, "size": 40, "quant_step": 0.5},
        {"factor": 4, "size": 32, "quant_step": 0.3},
        {"factor": 4, "size": 10, "margin": 4, "bands": (3,)},
        {"factor": 1, "size": 13},
    ],
    ids=str,
)
def test_the_kernel_gives_the_bytes_and_counts_of_numpy(options: dict[str, Any]) -> None:
    plan = SplitConfig(**options).resolved()
    compiled, portable = Compiled(plan), Portable(plan)
    side = plan.size + plan.margin
    shape = (len(plan.bands), 3, plan.geometry.plane**2)
    for seed in range(3):
        noise = np.random.default_rng(seed).integers(0, 256, (side, side, 4), np.uint8)
        noise[..., :3] = picture(seed, side, side) if seed else (noise[..., :3] > 127) * 255
        # one value more on each side: nothing may be written there
        outs = [np.full((shape[0], 3 * shape[2] + 2), 99, np.int8) for _ in range(2)]
        for split, out in zip((compiled, portable), outs, strict=True):
            split(noise, out[:, 1:-1].reshape(shape))
        assert np.array_equal(*outs)
        assert (outs[0][:, 1:-1] != 99).any()
        assert (outs[0][:, [0, -1]] == 99).all()
    assert np.array_equal(compiled.counts, portable.counts)
    assert compiled.counts[0].any() == ("quant_step" in options)


@needs_kernel
def test_the_kernel_checks_what_it_is_given() -> None:
    from spectral_shards.preprocess.pipeline import _kernel

    plan = SplitConfig(factor=4, size=8).resolved()
    split = Compiled(plan)
    pixels, out = np.zeros((8, 8, 4), np.uint8), np.zeros((4, 3, 16), np.int8)
    good = [pixels, out, split._color, split._terms, split._places, split.counts, 2, split._sums, split._again]
    _kernel.split(*good)
    short = {0: pixels[:6, :6].copy(), 1: out[:, :, :15], 2: split._color[:2], 3: split._terms[:2]}
    bad = {**short, 4: split._places + 1, 5: split.counts[:2], 6: 3, 7: 5, 8: 3}
    for position, value in bad.items():
        with pytest.raises(ValueError, match=r"pixels|out|color|weights|place|counts|grid|sums|again"):
            _kernel.split(*good[:position], value, *good[position + 1 :])
    with pytest.raises((ValueError, BufferError)):
        _kernel.split(pixels, np.zeros((4, 3, 32), np.int8)[:, :, ::2], *good[2:])
    with pytest.raises((ValueError, BufferError)):
        _kernel.split(np.zeros((8, 16, 4), np.uint8)[:, ::2], *good[1:])


@pytest.mark.parametrize("dtype", ["int8", "float16"])
def test_moments_are_those_of_the_stored_values(dtype: str) -> None:
    plan, blocks = splitter(factor=16, size=40, dtype=dtype)
    kept = [coefficients(plan, blocks, picture(seed, 40, 40)) for seed in range(5)]
    stored = np.stack(kept, 1).astype(np.float64)
    for band in (0, 7):
        steps = plan.band_steps()[band]
        units = steps if dtype == "int8" else [1 / 16] * 3
        mean, std = moments(
            tuple(blocks.counts[1][band].tolist()), tuple(blocks.counts[2][band].tolist()), 5 * 10 * 10, tuple(units)
        )
        tolerance = 1e-12 if dtype == "int8" else 0.02
        assert np.allclose(mean, stored[band].mean(axis=(0, 2, 3)), atol=tolerance)
        assert np.allclose(std, stored[band].std(axis=(0, 2, 3)), atol=tolerance)


def test_moments_of_nothing_and_of_a_constant() -> None:
    assert moments((0, 0, 0), (0, 0, 0), 0, (1.0,) * 3) == ((0.0,) * 3, (1.0,) * 3)
    assert moments((10,), (100,), 1, (2.0,)) == ((20.0,), (1.0,))


def test_steps() -> None:
    chroma = 6 * 128 / 127
    assert band_steps(4.0, 9.0, "int8", "ycbcr", "dct", 36).tolist() == [[6.0, chroma, chroma], *[[4.0, 9, 9]] * 35]
    assert band_steps(4.0, 9.0, "int8", "rgb", "dct", 36).tolist() == [[6.0] * 3, *[[4.0] * 3] * 35]
    assert band_steps(8.0, 16.0, "int8", "ycbcr", "dct2", 4).tolist() == [[8.0] * 3, *[[8.0, 16, 16]] * 3]
    assert band_steps(0.5, 0.5, "int8", "rgb", "none", 4).tolist() == [[1.0] * 3] * 4
    assert band_steps(0.5, 0.5, "int8", "ycbcr", "none", 4).tolist() == [[1.0, 128 / 127, 128 / 127]] * 4
    assert band_steps(6.0, 9.0, "float16", "ycbcr", "dct", 4).tolist() == [[1.0] * 3] * 4
