"""Bands as channels: one network that reads several bands, and what of it has to be as for one band."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from spectral_shards.shards_manifest.dataset import open_band, open_bands, open_split
from spectral_shards.shards_manifest.errors import FormatError, ShardError
from spectral_shards.shards_manifest.spectral.transform import band_matrix, forward
from spectral_shards.train.augment.planes import BandAugmentation
from spectral_shards.train.band_sets import BandSet
from spectral_shards.train.data.block_cache import BlockCache
from spectral_shards.train.data.loader import BandLoader, LoaderOptions
from spectral_shards.train.engine.evaluate import evaluate_checkpoint
from spectral_shards.train.engine.trainer import train_network
from spectral_shards.train.errors import TrainError
from spectral_shards.train.networks import INPUTS, NetworkOptions
from spectral_shards.train.runs.checkpoint import load_checkpoint
from spectral_shards.train.runs.run_record import read_run
from support.buckets import BUCKET, Server, environment
from support.pictures import encode, picture
from support.programs import fails, program
from support.slow_runs import close, killed, train
from support.splits import SUB4, make_split
from support.trainings import QUICK, quick

Batches = list[tuple[torch.Tensor, torch.Tensor]]


def stacked(split: Path, bands: tuple[int, ...], *args: object, **options: object) -> Batches:
    """The batches of single bands, side by side."""
    each = [list(BandLoader(split / f"{band:02d}", *args, **options)) for band in bands]  # type: ignore[arg-type]
    for batches in zip(*each, strict=True):
        assert all(torch.equal(y, batches[0][1]) for _, y in batches)
    return [(torch.stack([x for x, _ in batches], 1), batches[0][1]) for batches in zip(*each, strict=True)]


def same(one: Batches, other: Batches) -> bool:
    return all(torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(one, other, strict=True))


@pytest.mark.parametrize("bands", [(0, 1, 3), (2, 0), (1,), ()], ids=str)
@pytest.mark.parametrize("part", ["train", "val"])
def test_the_bands_of_a_batch_are_those_of_single_bands(
    part: str, bands: tuple[int, ...], sub4: Path, tmp_path: Path
) -> None:
    """For any ranks, workers and position to go on from."""
    wanted_bands = bands or (0, 1, 2, 3)
    for world_size, workers in ((1, 0), (1, 3), (3, 2)):
        for rank in range(world_size):
            options = {"rank": rank, "world_size": world_size, "workers": workers, "seed": 5}
            loader = BandLoader(open_bands(sub4, bands), part, 10, **options)
            assert [band.band for band in loader.bands] == list(wanted_bands)
            wanted = stacked(sub4, wanted_bands, part, 10, **options)
            first = iter(loader)
            got = [batch for batch in [next(first, None)] if batch is not None]
            other = BandLoader(open_bands(sub4, bands), part, 10, **{**options, "workers": 1})
            other.load_state_dict(loader.state_dict())
            got += list(other)
            assert same(got, wanted)
            assert all(x.shape[1:] == (len(wanted_bands), 3, 12, 12) for x, _ in got)
            loader.close()


def test_bands_that_cannot_be_read_together(sub4: Path, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="has no band 4: choose from 0, 1, 2, 3"):
        open_bands(sub4, (0, 4))
    with pytest.raises(FormatError, match=r"is named twice in 1\+1"):
        open_bands(sub4, (1, 1))
    with pytest.raises(FormatError, match="is one band: name the folder of the whole split"):
        open_bands(sub4 / "00", (0,))
    with pytest.raises(FormatError, match="is one band"):
        open_bands(open_band(sub4 / "00"), (0,))


def test_what_is_lost_of_val_is_left_out_in_all_bands(sub4: Path, tmp_path: Path) -> None:
    whole = Path(shutil.copytree(sub4, tmp_path / "whole"))
    (whole / "01" / "val-000000.tar").unlink()
    with pytest.raises(ShardError, match=r"01/val-000000\.tar is missing"):
        list(BandLoader(whole, "val", 4))
    skipping = LoaderOptions(skip_bad_shards=True)
    loader = BandLoader(whole, "val", 4, options=skipping)
    got = list(loader)
    samples = open_band(sub4 / "01").manifest.parts["val"].shards[0].samples
    assert loader.lost == samples
    assert sum(len(y) for _, y in got) == loader.samples - samples
    for band in ("00", "02", "03"):
        (whole / band / "val-000000.tar").unlink()
    assert same(got, stacked(whole, (0, 1, 2, 3), "val", 4, options=skipping))


def test_inputs_that_there_are_not(sub4: Path, mirrored: tuple[Path, Path], tmp_path: Path) -> None:
    bands = open_bands(sub4).each
    with pytest.raises(TrainError, match="--inputs images: choose planes, image"):
        BandAugmentation(bands, inputs="images")
    with pytest.raises(TrainError, match="--inputs images: choose planes, image"):
        NetworkOptions("cnn", inputs="images").shape(bands)
    split = make_split(mirrored[0], tmp_path / "none", factor=4, size=48, transform="none", val_per_class=0)
    command = ("spectral-train", "--shards", split, *QUICK, "--inputs", "image", "--out", tmp_path / "runs")
    said = fails(*command, "--bands", "0+1", "--describe")
    why = "all 4 bands where there is no transform, and here are 2"
    assert said == f"Error: --inputs image needs {why}: name all of them if the split has them, or leave it out"
    assert "here are 2: name all of them" in fails(*command, "--bands", "0+1")
    moved = replace(quick(random_shift=12), network=NetworkOptions("cnn", inputs="image"))
    with pytest.raises(TrainError, match="--random-shift 12 moves planes of 12x12 out of sight"):
        train_network(str(sub4), tmp_path / "far", moved, quiet=True)


@pytest.mark.slow
def test_from_a_bucket_and_its_cache(
    server: Server, sub4: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment(server.port).items():
        monkeypatch.setenv(name, value)
    server.put(sub4, "channels/sub4")
    wanted = stacked(sub4, (3, 0, 2), "train", 9)
    cache = LoaderOptions(cache=BlockCache(tmp_path, 10**9), epochs=1)
    for options in (LoaderOptions(epochs=1), cache, cache):
        bands = open_bands(open_split(f"s3://{BUCKET}/channels/sub4"), (3, 0, 2))
        assert same(list(BandLoader(bands, "train", 9, workers=2, options=options)), wanted)


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Pictures of the size of the splits, and their mirror images."""
    root = tmp_path_factory.mktemp("mirrored")
    for number in range(12):
        pixels = picture(number, 48, 48)
        for folder, image in (("plain", pixels), ("mirrored", pixels[:, ::-1])):
            path = root / folder / "ab"[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode(image, "PNG"))
    return root / "plain", root / "mirrored"


@pytest.mark.parametrize(
    ("transform", "factor", "bands", "error"),
    [
        ("dct2", 4, (), 0.0),
        ("dct2", 16, (7, 2, 5), 0.0),
        ("dct2", 36, (), 0.0),
        ("none", 4, (), 0.0),
        ("none", 16, (4, 5, 6, 7), 0.0),  # a row of phases
        ("dct", 4, (), 1.0),  # of a quantising step, for each band that is mixed in: both splits are quantised
        ("dct", 16, (), 1.0),
    ],
)
def test_a_flip_of_all_bands_is_the_split_of_the_mirrored_image(
    transform: str, factor: int, bands: tuple[int, ...], error: float, mirrored: tuple[Path, Path], tmp_path: Path
) -> None:
    options = {"factor": factor, "size": 48, "transform": transform, "val_per_class": 0, "quant_step": 2.0}
    plain, flipped = (make_split(source, tmp_path / source.name, **options) for source in mirrored)
    loaders = [BandLoader(open_bands(split, bands), batch_size=12) for split in (plain, flipped)]
    (x, y), (wanted, labels) = (next(iter(loader)) for loader in loaders)
    assert torch.equal(y, labels)
    unit = [replace(band, mean=(0.0,) * 3, std=band.step) for band in loaders[0].bands]  # in quantising steps
    augmentation = BandAugmentation(unit, flip=True)
    mirror = augmentation.train()(x, torch.zeros(3, len(x)))
    still = augmentation.train()(x, torch.full((3, len(x)), 0.7))
    assert torch.equal(still, augmentation.eval()(x))
    assert still.shape == (12, 3 * len(unit), 48 // int(factor**0.5), 48 // int(factor**0.5))
    difference = (mirror - augmentation(wanted)).abs()
    if not error:
        assert difference.max() == 0
    else:
        assert difference.mean() < 0.5 * error
        assert difference.max() <= error * factor
    assert (still - augmentation(wanted)).abs().mean() > 10 * difference.mean()


def test_bands_that_do_not_make_up_the_mirrored_image_are_flipped_alone(
    mirrored: tuple[Path, Path], tmp_path: Path
) -> None:
    for transform, bands in (("dct", (0, 1)), ("none", (0, 2))):
        split = make_split(mirrored[0], tmp_path / transform, factor=4, size=48, transform=transform, val_per_class=0)
        loader = BandLoader(open_bands(split, bands), batch_size=12)
        x, _ = next(iter(loader))
        augmentation = BandAugmentation(loader.bands, flip=True)
        assert torch.equal(augmentation.train()(x, torch.zeros(3, 12)), augmentation.eval()(x).flip(-1))


@pytest.mark.slow
def test_killed_and_gone_on_with_in_two_ranks(sub4: Path, tmp_path: Path) -> None:
    bands = ("--bands", "0+1+2", "--epochs", "2")
    train(sub4, tmp_path / "whole", 1, more=bands)
    killed(sub4, tmp_path / "one", 1, 2, 2, bands, "00+01+02")
    assert "going on after" in train(sub4, tmp_path / "one", 1, more=bands)
    close(tmp_path / "one" / "00+01+02", tmp_path / "whole" / "00+01+02", exactly=True)
    killed(sub4, tmp_path / "two", 2, 2, 1, bands, "00+01+02")
    assert "going on after" in train(sub4, tmp_path / "two", 1, more=bands)
    close(tmp_path / "two" / "00+01+02", tmp_path / "whole" / "00+01+02", exactly=False)


@pytest.mark.parametrize("inputs", INPUTS)
def test_ten_crops_of_several_bands(inputs: str, photos: Path, tmp_path: Path) -> None:
    split = make_split(photos, tmp_path / "wide", **{**SUB4, "size": 16, "margin": 8})
    command = ("spectral-train", "--shards", split, *QUICK, "--out", tmp_path / "runs", "--bands", "1+2")
    command += ("--inputs", inputs)
    done = program(*command)
    assert done.returncode == 0, done.stderr
    path = tmp_path / "runs" / BandSet((1, 2), inputs=inputs).name / "checkpoint.pt"
    plain, crops = (evaluate_checkpoint(str(split), path, quick(), ten_crop) for ten_crop in (False, True))
    assert plain.top1 == json.loads((path.parent / "run.json").read_text())["result"]["top1"]
    assert plain.loss != crops.loss


@pytest.mark.parametrize(
    ("transform", "factor", "bands", "side"),
    [
        ("dct2", 4, (), 48),
        ("dct", 16, (), 48),
        ("none", 4, (), 48),
        ("dct2", 16, (0, 1, 4, 5), 24),
        ("dct2", 36, (0,), 8),
    ],
)
def test_the_image_that_bands_make_up(
    transform: str, factor: int, bands: tuple[int, ...], side: int, mirrored: tuple[Path, Path], tmp_path: Path
) -> None:
    """All bands give the image; those of the lowest frequencies a smaller one, whose pixels are means over it."""
    options = {"factor": factor, "size": 48, "transform": transform, "dtype": "float16", "color": "rgb"}
    split = make_split(mirrored[0], tmp_path / "split", val_per_class=0, **options)
    loader = BandLoader(open_bands(split, bands), batch_size=12)
    x, _ = next(iter(loader))
    augmentation = BandAugmentation(loader.bands, flip=True, random_shift=1, inputs="image")
    got = augmentation.eval()(x)
    assert got.shape == (12, 3, side, side)
    assert got.dtype == torch.float32
    assert got.mean((0, 2, 3)).abs().max() < 0.02
    assert (got.std((0, 2, 3)) - 1).abs().max() < 0.02
    pixels = (got - augmentation.offset) / augmentation.scale + 128
    sources = [np.asarray(Image.open(path)) for path in sorted(mirrored[0].rglob("*.png"))]
    whole = torch.from_numpy(np.stack(sources)).permute(0, 3, 1, 2).float()
    wanted = nn.functional.avg_pool2d(whole, 48 // side)
    for image in pixels:  # which one it is
        errors = (wanted - image).abs().mean((1, 2, 3))
        assert errors.min() < (1 if side in (8, 48) else 8)  # a DCT cut off is not quite a mean
        assert errors.median() > 20
    draw = torch.stack([torch.zeros(12), torch.full((12,), 0.5), torch.full((12,), 0.5)])
    assert torch.equal(augmentation.train()(x, draw), got.flip(-1))
    draw[1] = 0.0
    moved, pixels = augmentation.train()(x, draw), side // (48 // int(factor**0.5))  # of the image in one of a plane
    assert torch.equal(moved[:, :, pixels:], got.flip(-1)[:, :, :-pixels])


@pytest.mark.parametrize(("transform", "factor"), [("dct2", 4), ("dct", 16), ("none", 4)])
def test_all_bands_move_by_pixels_of_the_image(
    transform: str, factor: int, mirrored: tuple[Path, Path], tmp_path: Path
) -> None:
    """What is shifted and split again is the split of the shifted image."""
    grid = int(factor**0.5)
    options = {"factor": factor, "transform": transform, "dtype": "float16", "val_per_class": 0, "color": "rgb"}
    split = make_split(mirrored[0], tmp_path / "split", size=48, **options)
    loader = BandLoader(open_bands(split), batch_size=12)
    x, _ = next(iter(loader))
    augmentation = BandAugmentation([replace(band, mean=(0.0,) * 3, std=(1.0,) * 3) for band in loader.bands], False, 1)
    images = BandAugmentation(loader.bands, inputs="image")
    whole = (images.eval()(x) - images.offset) / images.scale
    for row, column in ((0, 0), (grid, grid), (1, 2 * grid), (2 * grid, grid - 1)):
        place = (torch.tensor([0.0, row, column]) + 0.5) / (2 * grid + 1)
        got = augmentation.train()(x, place[:, None].expand(3, 12))
        padded = nn.functional.pad(whole, (grid,) * 4)[:, :, row : row + 48, column : column + 48]
        wanted = forward(padded.numpy(), band_matrix(transform, factor))  # (N, 3, bands, P, P)
        assert np.allclose(got.unflatten(1, (factor, 3)).numpy(), wanted.swapaxes(1, 2), atol=0.05)
    assert torch.allclose(augmentation.eval()(x), x.flatten(1, 2).float() * augmentation.stored_scale)


def test_a_network_on_the_image_of_its_bands(sub4: Path, tmp_path: Path) -> None:
    command = ("spectral-train", "--shards", sub4, *QUICK, "--inputs", "image", "--out", tmp_path / "runs")
    done = program(*command, "--bands", "0..3,0")
    assert done.returncode == 0, done.stderr
    assert "cnn on 3x24x24, 3 classes" in done.stdout
    checkpoint = tmp_path / "runs" / "00+01+02+03-image" / "checkpoint.pt"
    evaluated = program("spectral-train", "--shards", sub4, "--evaluate", checkpoint)
    assert f"top-1 {read_run(checkpoint.parent).result.top1:.2%}" in evaluated.stdout
    assert load_checkpoint(checkpoint).network().eval()(torch.zeros(1, 3, 24, 24)).shape == (1, 3)
    described = program(*command, "--bands", "0..3", "--describe").stdout
    assert described.startswith("cnn on 3x24x24, 3 classes\n")
