"""Training and fusing with the real programs, on a few small images."""

import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SUB4, fails, make_split, program
from PIL import Image

from shards_manifest import MANIFEST, SpectralError, load_band
from train import checkpoint, networks, recipes
from train.ensemble import ensemble
from train.errors import EnsembleError, TrainError
from train.loop import train_band
from train.plan import Reading, TrainPlan
from train.schedule import learning_rate

QUICK = ("--network", "cnn", "--recipe", "quick", "--epochs", "2", "--batch-size", "16", "--workers", "0")


def quick(**fields: object) -> TrainPlan:
    recipe = recipes.load("quick", **{"epochs": 2, "batch_size": 16, **fields})
    return TrainPlan("cnn", recipe, reading=Reading(workers=0))


@pytest.fixture(scope="module")
def runs(sub4: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All four bands trained by the program. Not to be changed."""
    root = tmp_path_factory.mktemp("trained")
    done = program("spectral-train", "--shards", sub4, *QUICK, cwd=root)
    assert done.returncode == 0, done.stderr
    assert "all 4 bands are in runs/sub4: fuse them with spectral-ensemble runs/sub4" in done.stdout
    return root / "runs" / "sub4"


def test_what_a_run_leaves(runs: Path, sub4: Path) -> None:
    for band in range(4):
        folder = runs / f"{band:02d}"
        assert sorted(p.name for p in folder.iterdir()) == [
            "best.pt",
            "checkpoint.pt",
            "metrics.jsonl",
            "recipe.toml",
            "run.json",
            "steps.jsonl",
            "val-labels.npy",
            "val-logits.npy",
        ]
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert [line["epoch"] for line in lines] == [1, 2]
        assert lines[1]["samples"] == 160
        assert 0 <= lines[1]["waited"] <= 1
        logits, labels = np.load(folder / "val-logits.npy"), np.load(folder / "val-labels.npy")
        assert (logits.shape, logits.dtype, len(labels)) == ((15, 3), np.float16, 15)
        result = json.loads((folder / "run.json").read_text())["result"]
        assert math.isclose(result["top1"], (logits.argmax(1) == labels).mean())
        assert result["top5"] == 1.0
        assert result["parameter_bytes"] == networks.parameter_bytes(networks.build("cnn", 12, 3))


def test_a_checkpoint_is_enough_to_evaluate(runs: Path, sub4: Path) -> None:
    from shards_manifest import open_band
    from train.blocks import PartBlocks
    from train.inputs import Inputs

    network = checkpoint.load_network(runs / "02" / "checkpoint.pt")
    store, manifest = open_band(str(sub4 / "02"))
    with torch.inference_mode():
        val = PartBlocks(store, manifest, "val")
        x = np.concatenate([val.read(block)[0] for block in range(len(val.samples))])
        logits = network(Inputs(manifest).eval()(torch.from_numpy(x)))
    assert np.allclose(logits.numpy(), np.load(runs / "02" / "val-logits.npy"), atol=0.05)


def test_a_checkpoint_is_evaluated(runs: Path, sub4: Path, photos: Path, tmp_path: Path) -> None:
    path = runs / "02" / "checkpoint.pt"
    result = json.loads((runs / "02" / "run.json").read_text())["result"]
    done = program("spectral-train", "--shards", sub4 / "02", "--evaluate", path)
    assert done.returncode == 0, done.stderr
    said = f"{path}: top-1 {result['top1']:.2%}, top-5 {result['top5']:.2%}, loss {result['loss']:.3f}, centre crop"
    assert done.stdout.strip() == said
    evaluate = ("spectral-train", "--evaluate", path, "--shards")
    assert "was trained on another band than that of" in fails(*evaluate, sub4 / "01")
    assert "is a whole split, not one band" in fails(*evaluate, sub4)
    assert "--ten-crop needs planes with a margin" in fails(*evaluate, sub4 / "02", "--ten-crop")
    done = program("spectral-train", "--shards", sub4 / "02", "--ten-crop")
    assert done.returncode == 2
    assert "--ten-crop belongs to --evaluate" in done.stderr
    without = make_split(photos, tmp_path / "sub4", **{**SUB4, "val_per_class": 0, "bands": (2,)})
    assert "has no val part: there is nothing to evaluate" in fails(*evaluate, without / "02")


def test_ten_crops_are_evaluated(photos: Path, tmp_path: Path) -> None:
    split = make_split(photos, tmp_path / "sub4", **{**SUB4, "size": 16, "margin": 8, "bands": (1,)})
    assert train_band(str(split / "01"), tmp_path / "run", quick(), quiet=True).top1 is not None
    command = ("spectral-train", "--shards", split / "01", "--evaluate", tmp_path / "run" / "checkpoint.pt")
    centre, ten = program(*command), program(*command, "--ten-crop")
    assert centre.stdout.strip().endswith("centre crop"), centre.stderr
    assert ten.stdout.strip().endswith("ten crops"), ten.stderr
    losses = [float(done.stdout.partition("loss ")[2].partition(",")[0]) for done in (centre, ten)]
    assert losses[0] != losses[1]
    assert abs(losses[0] - losses[1]) < 1


def test_foreign_and_damaged_checkpoints(runs: Path, tmp_path: Path) -> None:
    good = (runs / "00" / "checkpoint.pt").read_bytes()
    path = tmp_path / "c.pt"
    for data in (b"", b"junk", good[:1000], good[:-5000]):
        path.write_bytes(data)
        with pytest.raises(TrainError, match=r"c\.pt is not a checkpoint, or damaged"):
            checkpoint.load(path)
    for place in (2000, len(good) // 2, len(good) - 30_000):
        path.write_bytes(good[:place] + bytes([good[place] ^ 16]) + good[place + 1 :])
        with pytest.raises(TrainError, match=r"c\.pt was altered|c\.pt is not a checkpoint, or damaged"):
            checkpoint.load(path)
    torch.save({"model": torch.zeros(3)}, path)
    with pytest.raises(TrainError, match="not a checkpoint of Spectral Shards"):
        checkpoint.load(path)
    torch.save(Path("code"), path)  # a pickle of something that weights_only must not build
    with pytest.raises(TrainError, match="not a checkpoint, or damaged"):
        checkpoint.load(path)
    with pytest.raises(TrainError, match="not a checkpoint, or damaged"):
        checkpoint.load(tmp_path)
    with pytest.raises(TrainError, match="does not exist"):
        checkpoint.load(tmp_path / "none.pt")


def test_finished_bands_are_skipped_and_unfinished_ones_done(runs: Path, sub4: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(runs, tmp_path / "runs"))
    stamp = (copy / "01" / "checkpoint.pt").stat().st_mtime_ns
    (copy / "03" / "run.json").unlink()
    done = program("spectral-train", "--shards", sub4, *QUICK, "--out", copy)
    assert done.returncode == 0, done.stderr
    assert f"{copy}/01 is finished: top-1 " in done.stdout
    assert (copy / "01" / "checkpoint.pt").stat().st_mtime_ns == stamp
    first, again = (json.loads((root / "03" / "metrics.jsonl").read_text().splitlines()[-1]) for root in (runs, copy))
    assert first["train_loss"] == again["train_loss"]  # same seed, same loss
    assert first["val_loss"] == again["val_loss"]
    sentence = fails("spectral-train", "--shards", sub4 / "01", *QUICK, "--lr", "0.05", "--out", copy / "01")
    assert "holds a finished run of another kind (recipe lr 0.1 there, 0.05 here)" in sentence


def test_other_pixels_are_another_run(photos: Path, runs: Path, tmp_path: Path) -> None:
    """The same images split with another step have the same order, but are not the data that was trained on."""
    other = make_split(
        photos,
        tmp_path / "sub4",
        **{**SUB4, "step": 9.0},
    )
    sentence = fails("spectral-train", "--shards", other / "00", *QUICK, "--out", runs / "00")
    assert "holds a finished run of another kind (data " in sentence


def test_loss_falls_and_bands_can_be_told_apart(sub4: Path, tmp_path: Path) -> None:
    result = train_band(str(sub4 / "00"), tmp_path / "run", quick(epochs=8), quiet=True)
    losses = [json.loads(line)["train_loss"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert losses[-1] < 0.7 * losses[0]
    assert result.top1 is not None
    assert result.top1 > 0.6  # three classes


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
@pytest.mark.parametrize("network", sorted(networks.NETWORKS))
def test_every_network_takes_a_step(network: str, precision: str, sub4: Path) -> None:
    from train.reader import Batch
    from train.session import Session

    manifest = load_band((sub4 / "00" / MANIFEST).read_bytes(), "m")
    session = Session(manifest, TrainPlan(network, recipes.load("imagenet1k"), precision=precision))
    before = [p.detach().clone() for p in session.network.parameters()]
    batch = Batch(torch.randint(-50, 50, (8, 3, 12, 12), dtype=torch.int8), torch.randint(0, 3, (8,)))
    loss, correct = session.step(batch, 0, 0.1)
    assert torch.isfinite(loss)
    assert 0 <= int(correct) <= 8
    assert all((a != b).any() for a, b in zip(before, session.network.parameters(), strict=True))


def test_without_val_nothing_is_evaluated(photos: Path, tmp_path: Path) -> None:
    out = make_split(photos, tmp_path / "sub4", factor=4, size=16, val_per_class=0, bands=(1,))
    done = program("spectral-train", "--shards", out / "01", *QUICK, "--out", tmp_path / "runs" / "01")
    assert done.returncode == 0, done.stderr
    assert "No val part: nothing is evaluated, and the run cannot be fused" in done.stdout
    assert "not evaluated" in done.stdout
    assert "trained without a val part" in fails("spectral-ensemble", tmp_path / "runs")


def test_one_sentence_for_what_cannot_be_trained(sub4: Path, tmp_path: Path) -> None:
    train = ("spectral-train", "--out", tmp_path / "run", "--shards")
    assert "has no manifest.json" in fails(*train, tmp_path)
    assert "choose a local path or s3://" in fails(*train, "ftp://host/sub4/00")
    band = sub4 / "00"
    networks_named = "alexnet, cnn, resnet18, resnet34, resnet50, vgg16"
    assert fails(*train, band, "--network", "vgg") == f"Error: --network vgg: choose {networks_named}"
    recipes_named = "cifar10, imagenet1k, imagenet1k-strong, imagenet21k, quick, or a file that ends with .toml"
    assert fails(*train, band, "--recipe", "none") == f"Error: --recipe none: choose {recipes_named}"
    assert fails(*train, band, "--lr", "0") == "Error: --lr 0.0 is out of range"
    assert (
        "--device cuda: this machine has 0 CUDA devices" in fails(*train, band, "--device", "cuda")
        or torch.cuda.is_available()
    )
    assert "choose auto, float32, bfloat16, float16" in fails(*train, band, "--precision", "int8")
    assert "the loss became nan" in fails(*train, band, *QUICK, "--lr", "1e30")
    assert not (tmp_path / "run" / "run.json").exists()
    assert "write auto, cpu, cuda or cuda:N" in fails(*train, band, "--device", "meta")
    (tmp_path / "file").touch()
    assert "cannot write to" in fails("spectral-train", "--shards", band, *QUICK, "--out", tmp_path / "file")
    damaged = Path(shutil.copytree(band, tmp_path / "00"))
    data = bytearray((damaged / "train-000001.tar").read_bytes())
    data[700] ^= 4
    (damaged / "train-000001.tar").write_bytes(data)
    sentence = fails("spectral-train", "--shards", damaged, *QUICK[:-2], "--workers", "1", "--out", tmp_path / "r2")
    assert sentence.startswith(f"Error: {damaged}/train-000001.tar was altered")


def test_the_ensemble(runs: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(runs, tmp_path / "runs"))
    done = program("spectral-ensemble", copy)
    assert done.returncode == 0, done.stderr
    report = json.loads((copy / "ensemble.json").read_text())
    labels = np.load(copy / "00" / "val-labels.npy")
    logits = np.stack([np.load(copy / f"{b:02d}" / "val-logits.npy").astype(np.float64) for b in range(4)])
    logp = logits - np.log(np.exp(logits).sum(2, keepdims=True))
    rules = {(rule["weights"], rule["space"]): rule for rule in report["rules"]}
    assert set(rules) == {
        ("mean", "log"),
        ("mean", "probability"),
        ("geometric", "log"),
        ("geometric", "probability"),
        ("fitted", "log"),
    }
    assert math.isclose(rules["mean", "log"]["top1"], (logp.sum(0).argmax(1) == labels).mean())
    assert math.isclose(rules["mean", "probability"]["top1"], (np.exp(logp).sum(0).argmax(1) == labels).mean())
    hits = logits.argmax(2) == labels
    right = 0
    for scored, chosen in ((slice(0, None, 2), slice(1, None, 2)), (slice(1, None, 2), slice(0, None, 2))):
        order = np.argsort(-hits[:, chosen].mean(1), kind="stable")
        fused = sum(0.3 * 0.7**rank * logp[band] for rank, band in enumerate(order))
        right += (fused[scored].argmax(1) == labels[scored]).sum()  # type: ignore[index]
    assert math.isclose(rules["geometric", "log"]["top1"], right / len(labels))
    assert [band[0] for band in report["bands"]] == [0, 1, 2, 3]
    assert np.allclose([band[1] for band in report["bands"]], hits.mean(1))
    assert len(rules["mean", "log"]["curve"]) == 4
    text = (copy / "ensemble.md").read_text()
    assert "| geometric, p = 0.3 (default) | log-probabilities |" in text
    assert "ranks and fitted weights come from the other half of val" in text
    with Image.open(copy / "ensemble.png") as plot:
        assert plot.width > 800


@pytest.mark.parametrize("rank_on", ["train", "val"])
def test_other_ranking_data(runs: Path, rank_on: str) -> None:
    report = ensemble(runs, rank_on)
    assert report.rank_on == rank_on
    by = {band: (train if rank_on == "train" else top1) for band, top1, _, train in report.bands}
    assert list(report.order) == sorted(by, key=lambda band: -by[band])
    assert any(rule.weights == "fitted" for rule in report.rules) == (rank_on == "val")


def test_missing_bands_are_named(runs: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(runs, tmp_path / "runs"))
    shutil.rmtree(copy / "01")
    (copy / "03" / "run.json").unlink()
    done = program("spectral-ensemble", copy)
    assert done.returncode == 0
    assert "Missing bands: 1, 3." in done.stdout


def test_runs_that_do_not_belong_together(runs: Path, tmp_path: Path) -> None:
    def changed(edit: object) -> str:
        copy = Path(shutil.copytree(runs, tmp_path / "runs", dirs_exist_ok=True))
        edit(copy)  # type: ignore[operator]
        sentence = fails("spectral-ensemble", copy)
        shutil.rmtree(copy)
        return sentence

    def another_order(copy: Path) -> None:
        raw = json.loads((copy / "02" / "run.json").read_text())
        raw["band"]["order"]["val"] = "0" * 64
        (copy / "02" / "run.json").write_text(json.dumps(raw))

    assert "runs/02 and " in changed(another_order)
    assert "differ in their sample order" in changed(another_order)
    assert "holds two runs of band 0" in changed(lambda copy: shutil.copytree(copy / "00", copy / "07"))
    assert "has no readable val-logits.npy" in changed(lambda copy: (copy / "01" / "val-logits.npy").unlink())
    assert "has no readable" in changed(lambda copy: (copy / "01" / "val-logits.npy").write_bytes(b"junk"))
    assert "run.json is damaged" in changed(lambda copy: (copy / "01" / "run.json").write_text("{}"))
    with pytest.raises(EnsembleError, match="is not a folder"):
        ensemble(tmp_path / "nowhere")
    with pytest.raises(EnsembleError, match="holds no finished runs"):
        ensemble(tmp_path)
    with pytest.raises(EnsembleError, match="--rank-on test: choose"):
        ensemble(runs, "test")


def test_published_sizes_and_stems() -> None:
    """ResNet-34 is 83.15 MiB with 1,000 classes (../docs/results.md); small planes keep their resolution."""
    network = networks.build("resnet34", 224, 1000)
    assert round(networks.parameter_bytes(network) / 2**20, 2) == 83.15
    small = networks.build("resnet34", 56, 1000)
    assert small.conv1.kernel_size == (3, 3)
    assert small.conv1.stride == (1, 1)
    x = small.conv1(torch.zeros(1, 3, 56, 56))
    assert small.maxpool(x).shape == (1, 64, 56, 56)
    for plane in (8, 16, 32):
        assert networks.build("cnn", plane, 10).eval()(torch.zeros(2, 3, plane, plane)).shape == (2, 10)


def test_schedules() -> None:
    published = recipes.load("imagenet1k")
    assert (published.epochs, published.batch_size, published.lr, published.momentum, published.weight_decay) == (
        100,
        256,
        0.01,
        0.9,
        1e-4,
    )
    rates = [learning_rate(step, 10, published) for step in range(1001)]
    assert rates[0] == 0.01
    assert math.isclose(rates[500], (0.01 + 1e-4) / 2)
    assert math.isclose(rates[1000], 1e-4)
    assert rates == sorted(rates, reverse=True)
    warm = recipes.load("quick", warmup=2.0)
    assert [learning_rate(step, 10, warm) for step in (0, 9, 19)] == pytest.approx([0.005, 0.05, 0.1])
    steps = recipes.load("imagenet1k", schedule="step", lr=1.0, lr_min=0.0)
    assert [learning_rate(epoch * 10, 10, steps) for epoch in (0, 29, 30, 60, 99)] == pytest.approx(
        [1, 1, 0.1, 0.01, 0.001]
    )


def test_one_cycle_rises_and_falls() -> None:
    recipe = recipes.load("cifar10", epochs=10, warmup=2.0, lr=1.0)
    rates = [learning_rate(step, 10, recipe) for step in range(101)]
    assert math.isclose(rates[0], 1 / 25)
    assert math.isclose(rates[10], (1 / 25 + 1) / 2)
    assert math.isclose(rates[20], 1)
    assert rates[:21] == sorted(rates[:21])
    assert rates[20:] == sorted(rates[20:], reverse=True)
    assert rates[100] < 1e-12


def test_the_published_recipe_of_21k() -> None:
    published = recipes.load("imagenet21k")
    assert (published.epochs, published.batch_size, published.lr, published.momentum) == (100, 512, 0.001, 0.9)
    assert [learning_rate(epoch * 10, 10, published) for epoch in (0, 30, 99)] == pytest.approx([1e-3, 1e-4, 1e-6])


@pytest.mark.parametrize(
    ("dataset", "recipe"),
    [
        ("imagenet21k", "imagenet21k"),
        ("ImageNet-21K-P", "imagenet21k"),
        ("fall11_whole", "imagenet21k"),
        ("winter21_whole", "imagenet21k"),
        ("cifar10", "cifar10"),
        ("imagenet", "imagenet1k"),
        ("photos", "imagenet1k"),
    ],
)
def test_the_recipe_of_a_data_set(dataset: str, recipe: str) -> None:
    assert recipes.of_dataset(dataset) == recipe
    assert recipe in recipes.names()


@pytest.mark.parametrize(
    "field",
    [
        "accumulate",
        "clip",
        "ema",
        "mixup",
        "cutmix",
        "epochs",
        "batch_size",
        "lr_min",
        "momentum",
        "label_smoothing",
        "shift",
    ],
)
def test_recipes_are_checked(field: str) -> None:
    with pytest.raises(SpectralError, match=f"--{field.replace('_', '-')} -1"):
        recipes.load("quick", **{field: -1})


def test_the_best_epoch_is_kept(sub4: Path, tmp_path: Path) -> None:
    result = train_band(str(sub4 / "00"), tmp_path / "run", quick(epochs=5, lr=0.02), quiet=True)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    accuracy = [line["val_top1"] for line in lines]
    assert result.best_epoch == 1 + accuracy.index(max(accuracy))
    progress = checkpoint.load(tmp_path / "run" / "best.pt")["progress"]
    assert progress["reader"] == {"seed": 0, "epoch": result.best_epoch, "samples": 0}
    assert progress["best"] == max(accuracy)


def test_the_resolved_recipe_runs_it_again(sub4: Path, tmp_path: Path) -> None:
    command = ("spectral-train", "--shards", sub4 / "00", "--network", "cnn", "--workers", "0", "--out")
    changes = ("--epochs", "1", "--batch-size", "16", "--no-flip", "--ema", "0.5", "--weight-decay", "1e-5")
    first = program(*command, tmp_path / "a", "--recipe", "quick", *changes)
    assert first.returncode == 0, first.stderr
    assert " ".join(first.stdout.split()).startswith("recipe quick: epochs 1, batch-size 16, optimizer sgd, lr 0.1,")
    recipe = tmp_path / "a" / "recipe.toml"
    again = program(*command, tmp_path / "b", "--recipe", recipe)
    assert again.returncode == 0, again.stderr
    assert recipes.load(str(recipe)) == recipes.load(
        "quick", epochs=1, batch_size=16, flip=False, ema=0.5, weight_decay=1e-5
    )
    assert len({(tmp_path / name / "val-logits.npy").read_bytes() for name in "ab"}) == 1
    for text, said in (
        ("epochs = 1.5", "epochs = 1.5 is not a whole number"),
        ("flip = 1", "flip = 1 is not true or false"),
        ("epoch = 1", "has the unknown field epoch: choose name, epochs,"),
        ("lr = ", "is not valid TOML"),
        ("lr = -1", "--lr -1.0 is out of range"),
    ):
        recipe.write_text(text)
        with pytest.raises(TrainError, match=re.escape(said)):
            recipes.load(str(recipe))
    assert "cannot be read: No such file" in fails(*command, tmp_path / "c", "--recipe", "no.toml")


def test_a_run_is_begun_anew_on_demand(runs: Path, sub4: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(runs, tmp_path / "runs"))
    command = ("spectral-train", "--shards", sub4 / "02", *QUICK, "--lr", "0.05", "--out", copy / "02")
    assert "holds a finished run of another kind" in fails(*command)
    done = program(*command, "--no-resume")
    assert done.returncode == 0, done.stderr
    assert json.loads((copy / "02" / "run.json").read_text())["options"]["recipe"]["lr"] == 0.05
    assert len((copy / "02" / "metrics.jsonl").read_text().splitlines()) == 2


def test_tensorboard_has_the_same_numbers_along_samples(sub4: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    done = program("spectral-train", "--shards", sub4 / "00", *QUICK, "--out", tmp_path / "run", "--tensorboard")
    assert done.returncode == 0, done.stderr
    code = (
        "import sys, json\n"
        "from tensorboard.backend.event_processing.event_accumulator import EventAccumulator\n"
        "events = EventAccumulator(sys.argv[1]); events.Reload()\n"
        "print(json.dumps({tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()['scalars']}))"
    )
    read = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, tmp_path / "run"], capture_output=True, text=True
    )
    assert read.returncode == 0, read.stderr
    found = json.loads(read.stdout.splitlines()[-1])
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    for name in ("train_loss", "val_top1", "waited"):
        assert np.allclose(found[f"epoch/{name}"], [(line["samples"], line[name]) for line in lines])
    steps = [json.loads(line) for line in (tmp_path / "run" / "steps.jsonl").read_text().splitlines()]
    assert np.allclose(found["steps/loss"], [(line["samples"], line["loss"]) for line in steps])


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough tiny images that some of train can be held out."""
    root = tmp_path_factory.mktemp("many")
    random = np.random.default_rng(0)
    for number, name in enumerate(("ant", "bee")):
        (root / name).mkdir()
        for i in range(620):
            pixels = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            pixels[:, :, number] //= 2
            Image.fromarray(pixels).save(root / name / f"{i:03d}.png")
    return root


@pytest.fixture(scope="module")
def held(many: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A split of `many`, and runs of its bands that held some of train out."""
    root = tmp_path_factory.mktemp("held")
    make_split(many, root / "sub4", factor=4, size=8, samples_per_block=8, val_per_class=50)
    for band in range(4):
        train_band(str(root / "sub4" / f"{band:02d}"), root / "runs" / f"{band:02d}", quick(epochs=1), quiet=True)
    return root


def test_bands_are_ranked_and_weighted_on_what_is_held_out(held: Path) -> None:
    from shards_manifest import open_band
    from train.blocks import PartBlocks

    store, manifest = open_band(str(held / "sub4" / "02"))
    part = PartBlocks(store, manifest, "train")
    labels = np.concatenate([part.read(block)[1] for block in range(len(part.samples))])
    run = held / "runs" / "02"
    kept = np.load(run / "held-labels.npy")
    assert len(labels) == 1140
    assert 50 <= len(kept) <= 57
    assert np.array_equal(kept, labels[-len(kept) :])
    line = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert line["samples"] == (1140 - len(kept)) // 16 * 16
    logits = np.load(run / "held-logits.npy")
    result = json.loads((run / "run.json").read_text())["result"]
    assert math.isclose(result["held_top1"], (logits.argmax(1) == kept).mean())
    assert line["held_top1"] == result["held_top1"]

    report = ensemble(held / "runs")
    assert report.rank_on == "held"
    each = np.stack([np.load(held / "runs" / f"{b:02d}" / "held-logits.npy").astype(np.float64) for b in range(4)])
    order = np.argsort(-(each.argmax(2) == kept).mean(1), kind="stable")
    assert list(report.order) == order.tolist()
    vals = np.stack([np.load(held / "runs" / f"{b:02d}" / "val-logits.npy").astype(np.float64) for b in range(4)])
    truth = np.load(run / "val-labels.npy")
    logp = vals - np.log(np.exp(vals).sum(2, keepdims=True))
    fused = sum(0.3 * 0.7**rank * logp[band] for rank, band in enumerate(order))
    rules = {(rule.weights, rule.space): rule for rule in report.rules}
    assert math.isclose(rules["geometric", "log"].top1, (fused.argmax(1) == truth).mean())  # type: ignore[attr-defined]
    fitted = rules["fitted", "log"]
    weighted = np.einsum("k,knc->nc", np.array(fitted.shares), logp)
    assert math.isclose(fitted.top1, (weighted.argmax(1) == truth).mean())


def test_without_held_out_samples_halves_of_val_serve(held: Path, runs: Path) -> None:
    assert ensemble(runs).rank_on == "halves"
    with pytest.raises(EnsembleError, match="held nothing out of train"):
        ensemble(runs, "held")
    assert ensemble(held / "runs", "halves").rank_on == "halves"


def test_costs_and_classes_beside_a_baseline(many: Path, held: Path, tmp_path: Path, photos: Path) -> None:
    make_split(many, tmp_path / "sub1", factor=1, size=8, samples_per_block=8, val_per_class=50)
    train_band(str(tmp_path / "sub1" / "00"), tmp_path / "base", quick(epochs=1), quiet=True)
    done = program("spectral-ensemble", held / "runs", "--baseline", tmp_path / "base")
    assert done.returncode == 0, done.stderr
    report = json.loads((held / "runs" / "ensemble.json").read_text())
    baseline, best, whole = report["costs"]
    one = json.loads((held / "runs" / "00" / "run.json").read_text())["result"]
    assert baseline["name"] == "baseline"
    assert whole["parameter_bytes"] == 4 * one["parameter_bytes"]
    assert whole["multiply_adds"] == 4 * one["multiply_adds"]
    assert baseline["multiply_adds"] > 3 * best["multiply_adds"]
    assert [entry["samples"] for entry in report["classes"]] == [50, 50]
    fused = np.mean([entry["fused"] for entry in report["classes"]])
    assert math.isclose(fused, next(r["top1"] for r in report["rules"] if r["weights"] == "geometric"))
    text = (held / "runs" / "ensemble.md").read_text()
    assert "| baseline | " in text
    assert "| ant | 50 | " in text
    other = make_split(photos, tmp_path / "other", factor=1, size=24)
    train_band(str(other / "00"), tmp_path / "wrong", quick(epochs=1), quiet=True)
    sentence = fails("spectral-ensemble", held / "runs", "--baseline", tmp_path / "wrong")
    assert "was evaluated on other images" in sentence
