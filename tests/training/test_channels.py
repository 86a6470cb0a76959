"""Bands as channels: one network that reads several bands, and what of it has to be as for one band."""

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from spectral_shards.shards_manifest.dataset import open_band, open_bands, open_split
from spectral_shards.shards_manifest.errors import FormatError, ShardError
from spectral_shards.shards_manifest.spectral.transform import band_matrix, forward
from spectral_shards.train.augment.planes import BandAugmentation
from spectral_shards.train.band_sets import BandSet, parse_band_sets
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
    why = "all 4 bands where there is no transform, and here are 2: name them all, or leave it out"
    assert said == f"Error: --inputs image needs {why}"
    assert "here are 2: name them all" in fails(*command, "--bands", "0+1")
    moved = replace(quick(random_shift=12), network=NetworkOptions("cnn", inputs="image"))
    with pytest.raises(TrainError, match="--random-shift 12 moves planes of 12x12 out of sight"):
        train_network(str(sub4), tmp_path / "far", moved, quiet=True)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.stop()


@pytest.mark.slow
def test_from_a_bucket_and_its_cache(
    server: Server, sub4: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment(server.port).items():
        monkeypatch.setenv(name, value)
    server.put(sub4, "sub4")
    wanted = stacked(sub4, (3, 0, 2), "train", 9)
    cache = LoaderOptions(cache=BlockCache(tmp_path, 10**9), epochs=1)
    for options in (LoaderOptions(epochs=1), cache, cache):
        bands = open_bands(open_split(f"s3://{BUCKET}/sub4"), (3, 0, 2))
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


def test_what_band_sets_mean() -> None:
    def parse(text: str) -> list[tuple[tuple[int, ...], int]]:
        return [(each.bands, each.repeat) for each in parse_band_sets(text, range(16))]

    assert parse("stackx2") == [(tuple(range(16)), 0), (tuple(range(16)), 1)]
    assert parse("all") == [((band,), 0) for band in range(16)]
    assert parse("0+1+6,0+2+12") == [((0, 1, 6), 0), ((0, 2, 12), 0)]
    assert parse("0-3, 7") == [((band,), 0) for band in (0, 1, 2, 3, 7)]
    assert parse("6+1,0..3,1+4..6x2") == [((1, 6), 0), ((0, 1, 2, 3), 0), ((1, 4, 5, 6), 0), ((1, 4, 5, 6), 1)]
    names = [each.name for each in parse_band_sets("0+1+6x3,7,11", range(16))]
    assert names == ["00+01+06", "00+01+06x2", "00+01+06x3", "07", "11"]
    for text, why in {
        "": "'' is not understood: write as in 0-3,7",
        "3-1": "'3-1' is not understood",
        "0+0": "'0+0' is not understood",
        "1..0": "'1..0' is not understood",
        "0x0": "'0x0' is not understood",
        "0-3x2": "'0-3x2' is not understood",
        "0,,1": "'' is not understood",
        "0+16": "there is no band 16: choose from 0, 1, 2",
        "1,0-3": "names 01 twice: write 01x2 for two",
        "0+1,1+0": "names 00+01 twice",
    }.items():
        with pytest.raises(TrainError, match=re.escape(why)):
            parse(text)


@given(st.lists(st.sets(st.integers(0, 35), min_size=1), min_size=1, max_size=5, unique_by=frozenset), st.data())
def test_band_sets_are_read_as_they_are_written(sets: list[set[int]], data: st.DataObject) -> None:
    repeats = [data.draw(st.integers(1, 3)) for _ in sets]
    written = ",".join(f"{'+'.join(map(str, each))}x{n}" for each, n in zip(sets, repeats, strict=True))
    wanted = [BandSet(tuple(sorted(e)), i) for e, n in zip(sets, repeats, strict=True) for i in range(n)]
    found = parse_band_sets(written, range(36))
    assert found == wanted
    assert len({each.name for each in found}) == len(found)


def test_the_command_line(sub4: Path, tmp_path: Path) -> None:
    command = ("spectral-train", "--shards", sub4, *QUICK, "--out", tmp_path / "runs")
    done = program(*command, "--bands", "0+3,2x2,0..2")
    assert done.returncode == 0, done.stderr
    names = ["00+01+02", "00+03", "02", "02x2"]
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == names
    assert f"{sub4}, bands 0+3: cnn on 6x12x12, 3 classes, 81 samples" in done.stdout
    assert "all 4 networks are in" in done.stdout
    records = [read_run(tmp_path / "runs" / name) for name in names]
    assert [record.identity.data.bands for record in records] == [(0, 1, 2), (0, 3), (2,), (2,)]
    assert [record.identity.options.seed for record in records] == [0, 0, 0, 1]
    logits = [(tmp_path / "runs" / name / "val-logits.npy").read_bytes() for name in names]
    assert len(set(logits)) == 4
    again = program(*command, "--bands", "0..2,2x2,1+3x2", "--jobs", "2")
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("is finished: top-1") == 3
    assert "5 of 5 networks done" in again.stderr
    alone = program(*command[:3], *QUICK, "--out", tmp_path / "alone", "--bands", "1+3x2")
    assert alone.returncode == 0, alone.stderr
    for name in ("01+03", "01+03x2"):
        logits = [(tmp_path / folder / name / "val-logits.npy").read_bytes() for folder in ("runs", "alone")]
        assert logits[0] == logits[1]

    checkpoint = tmp_path / "runs" / "00+03" / "checkpoint.pt"
    evaluated = program("spectral-train", "--shards", sub4, "--evaluate", checkpoint)
    assert evaluated.returncode == 0, evaluated.stderr
    assert f"top-1 {records[1].result.top1:.2%}" in evaluated.stdout
    assert "band 0+3 there, 0 here" in fails("spectral-train", "--shards", sub4 / "00", "--evaluate", checkpoint)
    assert load_checkpoint(checkpoint).network().eval()(torch.zeros(1, 6, 12, 12)).shape == (1, 3)

    other = fails(*command[:3], *QUICK, "--bands", "0+2", "--out", tmp_path / "runs", "--lr", "-1")
    assert "--lr -1" in other
    said = fails("spectral-train", "--shards", sub4 / "00", "--bands", "0")
    assert said.startswith("Error: --bands 0: ")
    assert "is one band: name the folder of the whole split" in said
    assert "there is no band 4" in fails(*command, "--bands", "0+4")


def test_the_default_is_what_the_study_recommends(sub4: Path, tmp_path: Path) -> None:
    command = ("spectral-train", "--shards", sub4, *QUICK)
    done = program(*command, "--out", tmp_path / "runs")
    assert done.returncode == 0, done.stderr
    said = "by default --bands stackx2, and --bands stackx2 --inputs image --width 0.5: 0.97 times the multiply-adds"
    assert done.stdout.startswith(said)
    every = "00+01+02+03"
    names = [every, f"{every}-image", f"{every}-imagex2", f"{every}x2"]
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == names
    kinds = [read_run(tmp_path / "runs" / name).identity.options for name in names]
    planes, image = NetworkOptions("cnn"), NetworkOptions("cnn", width=0.5, inputs="image")
    assert [kind.network for kind in kinds] == [planes, image, image, planes]
    assert [kind.seed for kind in kinds] == [0, 0, 1, 1]
    for options in ((), ("--inputs", "image", "--width", "0.5")):  # the same, asked for in two commands
        again = program(*command, "--out", tmp_path / "runs", "--bands", "stackx2", *options)
        assert again.stdout.count("is finished: top-1") == 2
    both = program(*command, "--out", tmp_path / "both", "--jobs", "2")
    assert both.returncode == 0, both.stderr
    for name in names:
        logits = [(tmp_path / folder / name / "val-logits.npy").read_bytes() for folder in ("runs", "both")]
        assert logits[0] == logits[1]


def test_the_default_gives_way(sub4: Path, photos: Path, tmp_path: Path) -> None:
    command = ("spectral-train", "--describe", "--shards")
    one_size = "vgg16 has one size, so by default each band gets a network (--bands all)"
    assert one_size in program(*command, sub4, "--network", "vgg16").stdout
    for option in (("--bands", "all"), ("--inputs", "planes"), ("--width", "1"), ("--stem-stride", "2")):
        done = program(*command, sub4, "--network", "resnet18", *option)
        assert "4 such networks" in done.stdout
        assert "resnet18" in done.stdout.splitlines()[0]
    some = make_split(photos, tmp_path / "some", factor=4, size=16, bands=(0, 2))
    assert "2 such networks" in program(*command, some, "--network", "cnn").stdout
    for where in (some, sub4 / "01"):
        assert "by default" not in program(*command, where, "--network", "cnn").stdout


def test_what_several_networks_cost(sub4: Path) -> None:
    done = program("spectral-train", "--shards", sub4, "--network", "cnn", "--describe", "--bands", "0..3x2,1")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("cnn on")] == [
        "cnn on 12x12x12, 3 classes",
        "cnn on 3x12x12, 3 classes",
    ]
    assert "2 such networks" in lines
    assert lines[-1].startswith("3 networks: 0.")


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
    path = tmp_path / "runs" / "01+02" / "checkpoint.pt"
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
    pixels = got * augmentation.std + augmentation.mean + 128
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
    whole = images.eval()(x) * images.std + images.mean
    for row, column in ((0, 0), (grid, grid), (1, 2 * grid), (2 * grid, grid - 1)):
        place = (torch.tensor([0.0, row, column]) + 0.5) / (2 * grid + 1)
        got = augmentation.train()(x, place[:, None].expand(3, 12))
        padded = nn.functional.pad(whole, (grid,) * 4)[:, :, row : row + 48, column : column + 48]
        wanted = forward(padded.numpy(), band_matrix(transform, factor))  # (N, 3, bands, P, P)
        assert np.allclose(got.unflatten(1, (factor, 3)).numpy(), wanted.swapaxes(1, 2), atol=0.05)
    assert torch.allclose(augmentation.eval()(x), x.flatten(1, 2).float() * augmentation.step)


def test_a_network_on_the_image_of_its_bands(sub4: Path, tmp_path: Path) -> None:
    command = ("spectral-train", "--shards", sub4, *QUICK, "--inputs", "image", "--out", tmp_path / "runs")
    done = program(*command, "--bands", "0..3,0")
    assert done.returncode == 0, done.stderr
    assert "cnn on 3x24x24, 3 classes" in done.stdout
    checkpoint = tmp_path / "runs" / "00+01+02+03" / "checkpoint.pt"
    evaluated = program("spectral-train", "--shards", sub4, "--evaluate", checkpoint)
    assert f"top-1 {read_run(checkpoint.parent).result.top1:.2%}" in evaluated.stdout
    assert load_checkpoint(checkpoint).network().eval()(torch.zeros(1, 3, 24, 24)).shape == (1, 3)
    described = program(*command, "--bands", "0..3", "--describe").stdout
    assert described.startswith("cnn on 3x24x24, 3 classes\n")
