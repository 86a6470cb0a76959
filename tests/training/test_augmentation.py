from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from spectral_shards.shards_manifest.manifest import MANIFEST, BandManifest, load_band
from spectral_shards.shards_manifest.spectral.transform import band_frequency, band_matrix, forward
from spectral_shards.train.augment.planes import BandAugmentation, draws
from spectral_shards.train.errors import TrainError
from support.pictures import picture


@pytest.fixture
def manifest(sub4: Path) -> BandManifest:
    return load_band((sub4 / "01" / MANIFEST).read_bytes(), "m")


def stored(count: int = 6, side: int = 12) -> torch.Tensor:
    return torch.randint(
        -128, 128, (count, 3, side, side), dtype=torch.int8, generator=torch.Generator().manual_seed(1)
    )


def test_dequantised_and_normalised(manifest: BandManifest) -> None:
    x = stored()
    wanted = x.double() * torch.tensor(manifest.step).view(3, 1, 1) - torch.tensor(manifest.mean).view(3, 1, 1)
    wanted /= torch.tensor(manifest.std).clamp(min=torch.tensor(manifest.step) / 2).view(3, 1, 1)
    got = BandAugmentation(manifest).eval()(x)
    assert got.dtype == torch.float32
    assert torch.allclose(got.double(), wanted, atol=1e-5)


def test_one_level_of_a_nearly_empty_channel_is_two_at_most(manifest: BandManifest) -> None:
    """Divided by its standard deviation alone it would be 48.75, and what is rare would drown what is not."""
    empty = replace(manifest, step=(3.25, 9.75, 9.75), mean=(0.0,) * 3, std=(21.4, 0.2, 6.0))
    assert empty.divisor == (21.4, 4.875, 6.0)
    levels = torch.ones(1, 3, 12, 12, dtype=torch.int8)
    for inputs in (BandAugmentation(empty).eval()(levels), BandAugmentation(empty, flip=True).train()(levels)):
        assert torch.allclose(inputs.abs().amax((0, 2, 3)), torch.tensor([3.25 / 21.4, 2.0, 9.75 / 6]))


@pytest.mark.parametrize("step", [1.0, 3.25])
def test_an_image_of_an_empty_channel_is_divided_by_what_half_steps_give(step: float, sub4: Path) -> None:
    """Divided by its standard deviation, a colour in val where train is grey would be millions of deviations away."""
    bands = [
        replace(load_band((sub4 / f"{band:02d}" / MANIFEST).read_bytes(), "m"), step=(step,) * 3) for band in range(4)
    ]
    grey = [replace(band, mean=(band.mean[0], 0, 0), std=(band.std[0], 1, 1)) for band in bands]  # 1: all are equal
    levels = torch.zeros(2, 4, 3, 12, 12, dtype=torch.int8)
    levels[1, :, 1:] = 1
    for random_shift in (0, 1):
        augmentation = BandAugmentation(grey, random_shift=random_shift, inputs="image")
        for inputs in (augmentation.eval()(levels), augmentation.train()(levels)):
            assert inputs[0, 1:].abs().max() == 0
            assert 0 < inputs[1, 1:].abs().max() <= 4  # one level in each of four bands
    blue = [
        replace(band, mean=(*band.mean[:2], -128.0 * (n == 0)), std=(*band.std[:2], 1)) for n, band in enumerate(bands)
    ]
    shifted = BandAugmentation(blue, random_shift=1, inputs="image").train()(levels)
    assert shifted.abs().max() <= 2 * 128 / step + 4


@pytest.mark.parametrize("inputs", ["planes", "image"])
def test_bands_of_other_steps_are_inputs_as_the_network_has_learned_them(inputs: str, sub4: Path) -> None:
    """The same coefficients, in coarser steps, with other moments and nearly empty channels: the same inputs."""
    learned = [
        replace(load_band((sub4 / f"{band:02d}" / MANIFEST).read_bytes(), "m"), step=(2.0,) * 3, std=(40.0, 0.3, 1.5))
        for band in range(4)
    ]
    here = [replace(each, step=(8.0,) * 3, mean=(9.0,) * 3, std=(50.0, 9.0, 0.1)) for each in learned]
    fine, coarse = stored(24).view(6, 4, 3, 12, 12) // 8 * 4, stored(24).view(6, 4, 3, 12, 12) // 8
    wanted = BandAugmentation(learned, inputs=inputs).eval()(fine)
    got = BandAugmentation(here, inputs=inputs, learned=learned).eval()(coarse)
    assert torch.allclose(got, wanted, atol=1e-5)
    assert not torch.allclose(BandAugmentation(here, inputs=inputs).eval()(coarse), wanted, atol=1e-2)


@pytest.mark.parametrize("factor", [4, 16, 36])
def test_a_flip_is_the_flip_of_the_image_for_the_separable_dct(factor: int, manifest: BandManifest) -> None:
    """Splitting the mirrored image gives, band by band, what BandAugmentation makes of the bands of the image."""
    matrix = band_matrix("dct2", factor)
    image = picture(3, 48, 48).transpose(2, 0, 1).astype(np.float64) - 128
    bands, mirrored = forward(image, matrix), forward(image[:, :, ::-1], matrix)
    side = bands.shape[-1]
    for band in range(factor):
        geometry = replace(manifest.geometry, factor=factor, size=48, transform="dct2")
        one = replace(
            manifest, geometry=geometry, band=band, frequency=band_frequency("dct2", factor, band), step=(1.0,) * 3
        )
        inputs = BandAugmentation(one, flip=True).train()
        x = torch.from_numpy(bands[:, band]).expand(64, 3, side, side)
        plain = BandAugmentation(one).eval()(torch.from_numpy(bands[None, :, band]))[0]
        wanted = BandAugmentation(one).eval()(torch.from_numpy(mirrored[None, :, band]))[0]
        kinds = set()
        for got in inputs(x, draws(0, 0, 64)):
            same, flipped = torch.allclose(got, plain, atol=1e-4), torch.allclose(got, wanted, atol=1e-4)
            assert same or flipped
            kinds.add((same, flipped))
        assert len(kinds) == 2 or kinds == {(True, True)}


def test_crops(manifest: BandManifest) -> None:
    """A margin is cropped at random in training and centred otherwise; shift moves planes without one."""
    wide = replace(
        manifest,
        geometry=replace(manifest.geometry, size=16, margin=8),
        step=(1.0,) * 3,
        mean=(0.0,) * 3,
        std=(1.0,) * 3,
    )
    x = torch.arange(144, dtype=torch.float32).view(1, 1, 12, 12).expand(500, 3, 12, 12)
    centre = BandAugmentation(wide).eval()(x[:1])
    assert torch.equal(centre, x[:1, :, 2:10, 2:10])
    got = BandAugmentation(wide).train()(x, draws(0, 0, 500))
    corners = {(int(v) // 12, int(v) % 12) for v in got[:, 0, 0, 0]}
    assert corners == {(top, left) for top in range(5) for left in range(5)}
    for sample in got:
        top, left = divmod(int(sample[0, 0, 0]), 12)
        assert torch.equal(sample, x[0, :, top : top + 8, left : left + 8])
    narrow = replace(wide, geometry=replace(wide.geometry, size=24, margin=0))
    moved = BandAugmentation(narrow, random_shift=1).train()(x + 1, draws(0, 0, 500))
    assert moved.shape == x.shape
    assert {int(v) for v in moved[:, 0, 5, 5]} == {1 + (5 + i) * 12 + 5 + j for i in (-1, 0, 1) for j in (-1, 0, 1)}
    assert (moved == 0).any()


def test_ten_crops_are_the_corners_the_centre_and_their_mirror_images(manifest: BandManifest) -> None:
    geometry = replace(manifest.geometry, size=16, margin=8)
    wide = replace(manifest, geometry=geometry, step=(1.0,) * 3, mean=(0.0,) * 3, std=(1.0,) * 3)
    assert (geometry.transform, wide.frequency) == ("dct2", (0, 1))  # a mirror image changes the sign
    x = torch.arange(144, dtype=torch.float32).view(1, 1, 12, 12).expand(2, 3, 12, 12)
    inputs = BandAugmentation(wide).eval()
    crops = list(inputs.ten_crops(x))
    assert [int(crop[0, 0, 0, 0]) for crop in crops[::2]] == [0, 4, 48, 52, 26]
    assert torch.equal(crops[8], inputs(x))
    for plain, mirrored in zip(crops[::2], crops[1::2], strict=True):
        assert torch.equal(mirrored, -plain.flip(-1))
    with pytest.raises(TrainError, match="needs planes with a margin"):
        next(BandAugmentation(manifest).ten_crops(x))


def test_a_step_is_augmented_in_the_same_way_again(manifest: BandManifest) -> None:
    inputs = BandAugmentation(manifest, flip=True, random_shift=2).train()
    first, second = (inputs(stored(), draws(7, 30, 6)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, inputs(stored(), draws(8, 30, 6)))
    assert not torch.equal(first, inputs(stored(), draws(7, 31, 6)))
    assert torch.equal(first[2:5], inputs(stored()[2:5], draws(7, 30, 6)[:, 2:5]))  # the share of a rank


def test_draws_are_even() -> None:
    numbers = draws(3, 5, 30_000)
    assert (numbers.shape, numbers.dtype) == ((3, 30_000), torch.float32)
    assert 0 <= float(numbers.min()) < float(numbers.max()) < 1
    counts = torch.stack([torch.histc(row, 10, 0, 1) for row in numbers])
    assert ((counts - 3000).abs() < 5 * 3000**0.5).all()
    assert torch.corrcoef(numbers).fill_diagonal_(0).abs().max() < 0.03
