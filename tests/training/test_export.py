"""Exported ensembles against their separate parts, in processes that have nothing of this package."""

import json
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from spectral_shards.shards_manifest.dataset import open_band
from spectral_shards.shards_manifest.shard.reader import BlockReader
from spectral_shards.train import recipes
from spectral_shards.train.augment.planes import BandAugmentation
from spectral_shards.train.config import ReadOptions, TrainPlan
from spectral_shards.train.engine.trainer import train_network
from spectral_shards.train.ensemble.export import (
    EnsembleMember,
    EnsembleModel,
    ImageToBands,
    MemberInfo,
    ModelInfo,
    export,
)
from spectral_shards.train.ensemble.members import find_runs
from spectral_shards.train.ensemble.rules import LOG, PROBABILITY, Space
from spectral_shards.train.ensemble.scoring import score_ensemble
from spectral_shards.train.networks import NetworkOptions
from spectral_shards.train.runs import checkpoint
from support.pictures import encode, picture
from support.programs import fails, program
from support.splits import SUB4, make_split

CLASSIFY = Path(__file__).parents[2] / "examples" / "classify.py"
ALONE = """
import sys, json, runpy, numpy as np
load = runpy.run_path(sys.argv[1])["load"]
model, about = load(sys.argv[2])
out = np.concatenate([model(np.load(path))[0] for path in sys.argv[4:]])
np.save(sys.argv[3], out)
strangers = {"spectral_shards", "torchvision"} & set(sys.modules)
assert not strangers, strangers
assert not (sys.argv[2].endswith("onnx") and "torch" in sys.modules)
"""
SIDE = 24


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of PNGs of the very size that is split: what is decoded and resized is then no question."""
    root = tmp_path_factory.mktemp("pictures")
    for number, name in enumerate(("ant", "bee")):
        (root / name).mkdir()
        for i in range(20):
            pixels = picture(100 * number + i, SIDE, SIDE)
            pixels[:, :, number] //= 2
            (root / name / f"{i:02d}.png").write_bytes(encode(pixels, "PNG"))
    return root


def trained(pictures: Path, folder: Path, **options: object) -> Path:
    """A split of the pictures and a run of each of its bands."""
    split = make_split(pictures, folder / "sub", **{**SUB4, "size": SIDE, **options})
    recipe = recipes.load("quick", epochs=1, batch_size=8, ema=0.5)
    for band in sorted(split.glob("[0-9]*")):
        train_network(
            str(band),
            folder / "runs" / band.name,
            TrainPlan(NetworkOptions("cnn"), recipe, reading=ReadOptions(workers=0)),
            quiet=True,
        )
    return folder / "runs"


@pytest.fixture(scope="module")
def runs(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(pictures, tmp_path_factory.mktemp("sub4"))


def stored_val(split: Path, band: int) -> torch.Tensor:
    """The planes of one band as they are stored: (samples, 3, P, P)."""
    store, manifest = open_band(split / f"{band:02d}")
    val = BlockReader(store, manifest, "val")
    return torch.from_numpy(np.concatenate([val.read(block)[0] for block in range(len(val.samples))]))


def separately(runs: Path, space: str, rule: str) -> NDArray[np.float64]:
    """The fused log-probabilities of val from the stored bands, network by network."""
    scores = score_ensemble(find_runs(runs)).rules
    score = next(each for each in scores if (each.rule, each.space) == (rule, space))
    parts = []
    for run in find_runs(runs):
        stored = torch.stack([stored_val(runs.parent / "sub", band) for band in run.bands], 1)
        manifests = [open_band(runs.parent / "sub" / f"{band:02d}").manifest for band in run.bands]
        with torch.inference_mode():
            inputs = BandAugmentation(manifests, inputs=run.options.network.inputs).eval()(stored)
            logits = checkpoint.load_network(run.path / "checkpoint.pt")(inputs)
            parts.append(logits.double().log_softmax(1).numpy())
    each = np.stack(parts)
    weights = np.array(score.weights)
    if space == "log":
        fused = np.einsum("k,knc->nc", weights, each)
        return np.asarray(fused - np.log(np.exp(fused).sum(1, keepdims=True)))
    return np.asarray(np.log(np.einsum("k,knc->nc", weights / weights.sum(), np.exp(each))))


def chosen(runs: Path, rule: str) -> list[str]:
    """The names of the members that a rule gives a weight."""
    report = score_ensemble(find_runs(runs))
    weights = next(each.weights for each in report.rules if each.rule == rule)
    return [member.name for member, weight in zip(report.members, weights, strict=True) if weight]


def val_pixels(pictures: Path, runs: Path) -> list[NDArray[np.uint8]]:
    """The images of val in stored order: uint8 (1, 3, H, W)."""
    import gzip

    table = gzip.decompress((runs.parent / "sub" / "samples-val.tsv.gz").read_bytes()).decode()
    keys = [line.split("\t")[0] for line in table.splitlines()]
    keys = [key for key in keys if "/" in key]
    return [np.asarray(Image.open(pictures / key)).transpose(2, 0, 1)[None] for key in keys]


def alone(model: Path, folder: Path, images: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """What a plain Python process gets from an exported model."""
    paths = []
    for number, image in enumerate(images):
        paths.append(folder / f"image-{number}.npy")
        np.save(paths[-1], np.ascontiguousarray(image))
    out = folder / "out.npy"
    command = [sys.executable, "-c", ALONE, str(CLASSIFY), str(model), str(out), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=120)
    assert done.returncode == 0, done.stderr
    return np.asarray(np.load(out))


@pytest.mark.slow
@pytest.mark.parametrize(("suffix", "rule"), [("pt2", ""), ("onnx", ""), ("pt2", "geometric")])
def test_an_exported_ensemble_is_its_parts(suffix: str, rule: str, runs: Path, pictures: Path, tmp_path: Path) -> None:
    model = tmp_path / f"whole.{suffix}"
    done = program("spectral-ensemble", runs, "--export", model, *(["--rule", rule] if rule else []))
    assert done.returncode == 0, done.stderr
    rule, names = rule or "selected", chosen(runs, rule or "selected")
    assert f"{model}: {len(names)} members ({', '.join(names)}), {rule} weights, " in done.stdout
    wanted = separately(runs, "log", rule)
    found = alone(model, tmp_path, val_pixels(pictures, runs))
    assert found.shape == wanted.shape == (10, 2)
    assert np.abs(found - wanted).max() < 1e-4
    together = alone(model, tmp_path, [np.concatenate(val_pixels(pictures, runs))])
    assert np.abs(together - wanted).max() < 1e-4


@pytest.fixture(scope="module")
def mixed(runs: Path) -> list[EnsembleMember]:
    """A network of two bands, one of one of them, and a copy of that with other means, as from another training."""

    def member(bands: tuple[int, ...], weight: float, shift: float = 0.0) -> EnsembleMember:
        torch.manual_seed(len(bands))
        network = nn.Sequential(nn.Conv2d(3 * len(bands), 4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2))
        network(torch.zeros(1, 3 * len(bands), SIDE // 2, SIDE // 2))
        data = [open_band(runs.parent / "sub" / f"{band:02d}").manifest for band in bands]
        shifted = tuple(replace(each, mean=tuple(value + shift for value in each.mean)) for each in data)
        return EnsembleMember(network.eval(), shifted, weight)

    return [member((2, 1), 0.9), member((1,), 0.4), member((1,), 0.2, shift=3.0)]


@pytest.mark.slow
@pytest.mark.parametrize("space", [LOG, PROBABILITY])
@pytest.mark.parametrize("suffix", ["pt2", "onnx"])
def test_members_of_several_bands_and_of_the_same(
    suffix: str, space: Space, mixed: list[EnsembleMember], runs: Path, pictures: Path, tmp_path: Path
) -> None:
    fused = torch.zeros(10, 2, dtype=torch.float64)
    for member in mixed:
        planes = []
        for band in member.bands:
            step, mean, divisor = (torch.tensor(each).view(3, 1, 1) for each in (band.step, band.mean, band.divisor))
            planes.append((stored_val(runs.parent / "sub", band.band).float() * step - mean) / divisor)
        with torch.inference_mode():
            outputs = member.network(torch.cat(planes, 1)).double().log_softmax(1)
        fused += member.weight * (outputs if space is LOG else outputs.exp())
    wanted = fused.log_softmax(1) if space is LOG else (fused / sum(member.weight for member in mixed)).log()

    model = EnsembleModel(open_band(runs.parent / "sub" / "00").manifest.geometry, mixed, space).eval()
    assert model.to_bands.weights.shape[1] == 2  # each band once
    info = ModelInfo("pictures", ["ant", "bee"], [MemberInfo("02+01", [2, 1], 0.9)], space.title)
    assert export(model, info, tmp_path / f"mixed.{suffix}") == (tmp_path / f"mixed.{suffix}").stat().st_size
    found = alone(tmp_path / f"mixed.{suffix}", tmp_path, val_pixels(pictures, runs))
    assert np.abs(found - wanted.numpy()).max() < 1e-4


@pytest.mark.slow
def test_runs_of_several_bands_are_exported(runs: Path, pictures: Path, tmp_path: Path) -> None:
    """Runs of two bands, as planes and as an image, and of one of them, twice: the export has the chosen ones."""
    (tmp_path / "sub").symlink_to(runs.parent / "sub")
    recipe = recipes.load("quick", epochs=1, batch_size=8)
    for name, inputs in (("00+01", "planes"), ("00+01x2", "image")):
        plan = TrainPlan(NetworkOptions("cnn", inputs=inputs), recipe, reading=ReadOptions(workers=0))
        train_network(str(runs.parent / "sub"), tmp_path / "runs" / name, plan, (0, 1), quiet=True)
    for name in ("00", "00x2"):
        shutil.copytree(runs / "00", tmp_path / "runs" / name)
    model = tmp_path / "whole.pt2"
    for rule in ("mean", "selected"):
        done = program("spectral-ensemble", tmp_path / "runs", "--export", model, "--rule", rule)
        assert done.returncode == 0, done.stderr
        assert "Missing bands: 2, 3." in done.stdout
        found = alone(model, tmp_path, val_pixels(pictures, runs))
        assert np.abs(found - separately(tmp_path / "runs", "log", rule)).max() < 1e-4
        with zipfile.ZipFile(model) as file:
            about = json.loads(file.read(next(name for name in file.namelist() if name.endswith("spectral.json"))))
        bands = {"00": [0], "00x2": [0], "00+01": [0, 1], "00+01x2": [0, 1]}
        names = chosen(tmp_path / "runs", rule)
        assert [(each["name"], each["bands"]) for each in about["members"]] == [(name, bands[name]) for name in names]
        assert all(each["weight"] for each in about["members"])
        assert len(names) == 4 or rule == "selected"


def test_a_band_is_computed_again_for_another_step(mixed: list[EnsembleMember], runs: Path) -> None:
    geometry = open_band(runs.parent / "sub" / "00").manifest.geometry
    finer = replace(mixed[1], bands=(replace(mixed[1].bands[0], step=(0.5, 0.5, 0.5)),))
    model = EnsembleModel(geometry, [*mixed, finer], LOG).eval()
    assert model.to_bands.weights.shape[1] == 3
    image = torch.from_numpy(picture(1, SIDE, SIDE)).permute(2, 0, 1)[None]
    alike = EnsembleModel(geometry, [finer], LOG).eval()
    with torch.inference_mode():
        crop = model.to_bands(image)
        assert torch.equal(model.members[3](crop), alike.members[0](alike.to_bands(image)))


@pytest.mark.slow
def test_other_sizes_are_resized_inside(runs: Path, pictures: Path, tmp_path: Path) -> None:
    model = tmp_path / "whole.pt2"
    assert program("spectral-ensemble", runs, "--export", model).returncode == 0
    image = val_pixels(pictures, runs)[0]
    larger = image.repeat(3, axis=2).repeat(2, axis=3)  # by whole numbers: reduced, they are close to what they were
    found = alone(model, tmp_path, [image, larger])
    assert np.abs(found[0] - found[1]).max() < 0.2
    path = tmp_path / "photo.jpg"
    path.write_bytes(encode(picture(3, 90, 120)))
    done = subprocess.run([sys.executable, str(CLASSIFY), str(model), str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{path}  ")
    assert {"ant", "bee"} == set(done.stdout.split()[1::2])


def test_the_example_reads_16_bits_as_a_split_does() -> None:
    import io
    import runpy

    from spectral_shards.preprocess.pipeline import pil_decode

    read = runpy.run_path(str(CLASSIFY))["read"]
    ramp = np.arange(0, 65536, 1024, dtype=np.uint16).reshape(8, 8)
    for kind in ("PNG", "TIFF"):
        buffer = io.BytesIO()
        Image.fromarray(ramp).save(buffer, kind)
        stored = np.asarray(pil_decode.read(buffer.getvalue())[0])
        with Image.open(buffer) as image:
            assert image.mode.startswith("I")
            assert np.array_equal(read(image), stored)
        assert np.array_equal(stored[..., 0], ramp >> 8)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"factor": 16, "transform": "dct", "bands": (1, 5)},
        {"factor": 4, "size": 16, "margin": 8},
        {"fit": "crop", "color": "rgb", "transform": "none", "dtype": "float16", "bands": (0,)},
        {"factor": 1, "transform": "dct"},
    ],
)
def test_every_kind_of_split_can_be_exported(options: dict[str, object], pictures: Path, tmp_path: Path) -> None:
    runs = trained(pictures, tmp_path, **options)
    model = tmp_path / "whole.pt2"
    done = program("spectral-ensemble", runs, "--export", model)
    assert done.returncode == 0, done.stderr
    found = alone(model, tmp_path, val_pixels(pictures, runs))
    assert np.abs(found - separately(runs, "log", "selected")).max() < 1e-4
    wide = np.zeros((1, 3, 40, 61), np.uint8)
    assert alone(model, tmp_path, [wide]).shape == (1, 2)


@pytest.mark.parametrize("factor", [1, 4, 16, 36])
@pytest.mark.parametrize("transform", ["dct", "dct2", "none"])
def test_the_same_integers_as_a_split(factor: int, transform: str) -> None:
    """All coefficients of a noisy image are those that the splitter stores, to the last one."""
    from spectral_shards.preprocess.config import SplitConfig
    from spectral_shards.preprocess.pipeline.coefficients import coefficients

    plan = SplitConfig(factor=factor, size=72, transform=transform, val_per_class=0).resolved()
    pixels = np.random.default_rng(factor).integers(0, 256, (72, 72, 4), dtype=np.uint8)
    side = 72 // plan.geometry.grid
    stored = np.empty((factor, 3, side * side), np.int8)
    coefficients(plan)(pixels, stored)
    model = ImageToBands(plan.geometry, plan.bands, plan.band_steps().tolist())
    found = model(torch.from_numpy(np.ascontiguousarray(pixels[None, :, :, :3].transpose(0, 3, 1, 2))))
    assert np.array_equal(found.numpy().reshape(factor, 3, -1), stored)


def test_what_cannot_be_exported_is_one_sentence(runs: Path, tmp_path: Path) -> None:
    assert "write a name that ends with .pt2 or .onnx" in fails(
        "spectral-ensemble", runs, "--export", tmp_path / "m.pt"
    )
    sentence = fails("spectral-ensemble", runs, "--export", tmp_path / "m.pt2", "--rule", "best")
    assert (
        sentence == "Error: Invalid value for '--rule': 'best' is not one of 'mean', 'geometric', 'fitted', 'selected'."
    )
    unfit = ("--rank-on", "train", "--export", tmp_path / "m.pt2", "--rule", "fitted")
    assert fails("spectral-ensemble", runs, *unfit) == "Error: --rule fitted: choose mean, geometric"
    assert program("spectral-ensemble", runs, "--rule", "mean").returncode == 2
    assert json.loads((runs / "ensemble.json").read_text())["factor"] == 4
