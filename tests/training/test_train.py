"""Training with the real program, on a few small images."""

import json
import math
import shutil
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from spectral_shards.shards_manifest.manifest import MANIFEST, load_band
from spectral_shards.train import networks, recipes
from spectral_shards.train.config import TrainPlan
from spectral_shards.train.engine.evaluate import Evaluation
from spectral_shards.train.engine.trainer import Trainer, train_network
from spectral_shards.train.errors import TrainError
from spectral_shards.train.runs import checkpoint
from spectral_shards.train.runs.run_record import Result
from support.programs import fails, program
from support.splits import SUB4, make_split, tree
from support.trainings import QUICK, quick, train_step


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
        assert 0 <= lines[1]["data_wait"] <= 1
        logits, labels = np.load(folder / "val-logits.npy"), np.load(folder / "val-labels.npy")
        assert (logits.shape, logits.dtype, len(labels)) == ((15, 3), np.float16, 15)
        result = json.loads((folder / "run.json").read_text())["result"]
        assert math.isclose(result["top1"], (logits.argmax(1) == labels).mean())
        assert result["top5"] == 1.0
        assert result["parameter_bytes"] == networks.parameter_bytes(networks.build_network("cnn", 12, 3))


def test_a_checkpoint_is_enough_to_evaluate(runs: Path, sub4: Path) -> None:
    from spectral_shards.shards_manifest.dataset import open_band
    from spectral_shards.shards_manifest.shard.reader import BlockReader
    from spectral_shards.train.augment.planes import BandAugmentation

    network = checkpoint.load_network(runs / "02" / "checkpoint.pt")
    store, manifest = open_band(str(sub4 / "02"))
    with torch.inference_mode():
        val = BlockReader(store, manifest, "val")
        x = np.concatenate([val.read(block)[0] for block in range(len(val.samples))])
        logits = network(BandAugmentation(manifest).eval()(torch.from_numpy(x)))
    assert np.allclose(logits.numpy(), np.load(runs / "02" / "val-logits.npy"), atol=0.05)


def test_a_checkpoint_is_evaluated(runs: Path, sub4: Path, photos: Path, tmp_path: Path) -> None:
    path = runs / "02" / "checkpoint.pt"
    result = json.loads((runs / "02" / "run.json").read_text())["result"]
    done = program("spectral-train", "--shards", sub4 / "02", "--evaluate", path)
    assert done.returncode == 0, done.stderr
    said = f"{path}: top-1 {result['top1']:.2%}, top-5 {result['top5']:.2%}, loss {result['loss']:.3f}, centre crop"
    assert done.stdout.strip() == said
    evaluate = ("spectral-train", "--evaluate", path, "--shards")
    sentence = fails(*evaluate, sub4 / "01")
    assert sentence == (
        f"Error: {path} was trained on other data than {sub4 / '01'} (band 2 there, 1 here): "
        "name the bands that it was trained on"
    )
    assert program(*evaluate, sub4).stdout.strip() == said  # of a split its own bands are taken
    assert "--ten-crop needs planes with a margin" in fails(*evaluate, sub4 / "02", "--ten-crop")
    done = program("spectral-train", "--shards", sub4 / "02", "--ten-crop")
    assert done.returncode == 2
    assert "--ten-crop belongs to --evaluate" in done.stderr
    for option in (("--network", "vgg16"), ("--compile",), ("--lr", "0.1"), ("--jobs", "2"), ("--describe",)):
        done = program(*evaluate, sub4 / "02", *option)
        assert done.returncode == 2
        assert f"{option[0]} does not go with --evaluate" in done.stderr
    assert program(*evaluate, sub4 / "02", "--precision", "float32", "--workers", "0").stdout.strip() == said
    done = program(*evaluate, sub4 / "02", "--precision", "float16")  # of a run in another
    assert done.stdout.startswith(f"{path}: top-1 "), done.stderr
    without = make_split(photos, tmp_path / "sub4", **{**SUB4, "val_per_class": 0, "bands": (2,)})
    assert "has no val part: there is nothing to evaluate" in fails(*evaluate, without / "02")


def test_ten_crops_are_evaluated(photos: Path, tmp_path: Path) -> None:
    split = make_split(photos, tmp_path / "sub4", **{**SUB4, "size": 16, "margin": 8, "bands": (1,)})
    assert train_network(str(split / "01"), tmp_path / "run", quick(), quiet=True).top1 is not None
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
            checkpoint.load_checkpoint(path)
    for place in (2000, len(good) // 2, len(good) - 30_000):
        path.write_bytes(good[:place] + bytes([good[place] ^ 16]) + good[place + 1 :])
        with pytest.raises(TrainError, match=r"c\.pt was altered|c\.pt is not a checkpoint, or damaged"):
            checkpoint.load_checkpoint(path)
    for place in range(len(good) - 2000, len(good), 13):  # the archive's own tables
        path.write_bytes(good[:place] + bytes([good[place] ^ 129]) + good[place + 1 :])
        with suppress(TrainError):  # or it does not matter
            checkpoint.load_checkpoint(path)
    torch.save({"model": torch.zeros(3)}, path)
    with pytest.raises(TrainError, match="not a checkpoint of Spectral Shards"):
        checkpoint.load_checkpoint(path)
    torch.save(Path("code"), path)  # a pickle of something that weights_only must not build
    with pytest.raises(TrainError, match="not a checkpoint, or damaged"):
        checkpoint.load_checkpoint(path)
    with pytest.raises(TrainError, match="not a checkpoint, or damaged"):
        checkpoint.load_checkpoint(tmp_path)
    with pytest.raises(TrainError, match="does not exist"):
        checkpoint.load_checkpoint(tmp_path / "none.pt")


def test_finished_bands_are_skipped_and_unfinished_ones_done(runs: Path, sub4: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(runs, tmp_path / "runs"))
    stamp = (copy / "01" / "checkpoint.pt").stat().st_mtime_ns
    (copy / "03" / "run.json").unlink()
    done = program("spectral-train", "--shards", sub4, "--bands", "all", *QUICK, "--out", copy)
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
        **{**SUB4, "quant_step": 9.0},
    )
    sentence = fails("spectral-train", "--shards", other / "00", *QUICK, "--out", runs / "00")
    assert "holds a finished run of another kind (data " in sentence


def test_loss_falls_and_bands_differ(sub4: Path, tmp_path: Path) -> None:
    result = train_network(str(sub4 / "00"), tmp_path / "run", quick(epochs=8), quiet=True)
    losses = [json.loads(line)["train_loss"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert losses[-1] < 0.7 * losses[0]
    assert result.top1 is not None
    assert result.top1 > 0.6  # three classes


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
@pytest.mark.parametrize("network", sorted(networks.NETWORKS))
def test_every_network_takes_a_step(network: str, precision: str, sub4: Path) -> None:
    manifest = load_band((sub4 / "00" / MANIFEST).read_bytes(), "m")
    step = train_step(
        manifest, TrainPlan(networks.NetworkOptions(network), recipes.load("imagenet1k"), precision=precision)
    )
    parameters = list(step.model.network.parameters())
    before = [p.detach().clone() for p in parameters]
    x, y = torch.randint(-50, 50, (8, 3, 12, 12), dtype=torch.int8), torch.randint(0, 3, (8,))
    loss, correct = step(x, y, 0, 0.1)
    assert torch.isfinite(loss)
    assert 0 <= int(correct) <= 8
    assert all((a != b).any() for a, b in zip(before, parameters, strict=True))


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
    named = ", ".join(map(repr, networks.NETWORKS))
    choices = f"Error: Invalid value for '--network': 'vgg' is not one of {named}"
    assert fails(*train, band, "--network", "vgg") == f"{choices}; did you mean 'vgg16'?"
    recipes_named = "cifar10, imagenet1k, imagenet1k-strong, imagenet21k, quick, or a file that ends with .toml"
    assert fails(*train, band, "--recipe", "none") == f"Error: --recipe none: choose {recipes_named}"
    assert fails(*train, band, "--lr", "0") == "Error: --lr 0 is out of range: choose more than 0"
    assert f"this machine has {torch.cuda.device_count()} CUDA devices" in fails(*train, band, "--device", "cuda:99")
    assert "is not one of 'auto', 'float32', 'bfloat16', 'float16'" in fails(*train, band, "--precision", "int8")
    assert "the loss became nan" in fails(*train, band, *QUICK, "--lr", "1e30")
    diverging = ("--lr", "1e5", "--epochs", "1", "--batch-size", "999")  # one step
    assert "the val loss became nan" in fails(*train, band, *QUICK, *diverging)
    assert "the val loss became nan" in fails(*train, band, *QUICK, *diverging)  # nothing of it was kept
    assert "--random-shift 12 moves planes of 12x12 out of sight" in fails(*train, band, *QUICK, "--random-shift", "12")
    assert "--save-every nan: write minutes" in fails(*train, band, *QUICK, "--save-every", "nan")
    assert "--mixup 1.5 is out of range: choose 0 to 1" in fails(*train, band, *QUICK, "--mixup", "1.5")
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


def test_the_best_epoch_is_kept(sub4: Path, tmp_path: Path) -> None:
    result = train_network(str(sub4 / "00"), tmp_path / "run", quick(epochs=5, lr=0.02), quiet=True)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    accuracy = [line["val_top1"] for line in lines]
    assert result.best_epoch == 1 + accuracy.index(max(accuracy))
    progress = checkpoint.load_checkpoint(tmp_path / "run" / "best.pt").progress
    assert progress.loader == {"seed": 0, "epoch": result.best_epoch, "samples": 0}
    assert progress.best_top1 == max(accuracy)


def test_a_run_restarts_on_demand(runs: Path, sub4: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(runs, tmp_path / "runs"))
    command = ("spectral-train", "--shards", sub4 / "02", *QUICK, "--lr", "0.05", "--out", copy / "02")
    assert "holds a finished run of another kind" in fails(*command)
    done = program(*command, "--no-resume")
    assert done.returncode == 0, done.stderr
    assert json.loads((copy / "02" / "run.json").read_text())["options"]["recipe"]["lr"] == 0.05
    assert len((copy / "02" / "metrics.jsonl").read_text().splitlines()) == 2


def scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows of a run: samples and values by name."""
    code = (
        "import sys, json\n"
        "from tensorboard.backend.event_processing.event_accumulator import EventAccumulator\n"
        "events = EventAccumulator(sys.argv[1]); events.Reload()\n"
        "print(json.dumps({tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()['scalars']}))"
    )
    read = subprocess.run([sys.executable, "-W", "ignore", "-c", code, run], capture_output=True, text=True)
    assert read.returncode == 0, read.stderr
    found: dict[str, list[tuple[int, float]]] = json.loads(read.stdout.splitlines()[-1])
    return found


def test_what_cannot_be_restarted_stays(
    runs: Path, sub4: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Path(shutil.copytree(runs / "02", tmp_path / "02"))
    broken = Path(shutil.copytree(sub4 / "02", tmp_path / "sub4"))
    (broken / "val.index").unlink()
    assert "val.index is missing" in fails("spectral-train", "--shards", broken, *QUICK, "--out", copy, "--no-resume")
    assert tree(copy) == tree(runs / "02")
    monkeypatch.setattr("spectral_shards.train.runs.tensorboard.find_spec", lambda _: None)
    with pytest.raises(TrainError, match="needs the package tensorboard"):
        train_network(str(sub4 / "02"), copy, replace(quick(), restart="again", tensorboard=True), quiet=True)
    assert tree(copy) == tree(runs / "02")


def test_tensorboard_has_the_same_numbers_along_samples(sub4: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    done = program("spectral-train", "--shards", sub4 / "00", *QUICK, "--out", tmp_path / "run", "--tensorboard")
    assert done.returncode == 0, done.stderr
    found = scalars(tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    for name in ("train_loss", "val_top1", "data_wait"):
        assert np.allclose(found[f"epoch/{name}"], [(line["samples"], line[name]) for line in lines])
    steps = [json.loads(line) for line in (tmp_path / "run" / "steps.jsonl").read_text().splitlines()]
    assert np.allclose(found["steps/loss"], [(line["samples"], line["loss"]) for line in steps])


def test_tensorboard_forgets_a_run_that_saved_nothing(sub4: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from spectral_shards.train.runs.tensorboard import EventFile

    (tmp_path / "run").mkdir()
    killed = EventFile(tmp_path / "run", 0)
    for samples in (320, 640):
        killed.add({"samples": samples, "lr": 1.0})
    done = program("spectral-train", "--shards", sub4 / "00", *QUICK, "--out", tmp_path / "run", "--tensorboard")
    assert done.returncode == 0, done.stderr
    steps = [json.loads(line) for line in (tmp_path / "run" / "steps.jsonl").read_text().splitlines()]
    assert np.allclose(scalars(tmp_path / "run")["steps/lr"], [(line["samples"], line["lr"]) for line in steps])


def test_event_files_of_one_second_are_read_in_their_order(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from spectral_shards.train.runs.tensorboard import EventFile

    for start in range(10):
        EventFile(tmp_path, 0).add({"samples": start + 1, "lr": 1.0})  # each begins the run again
    assert len(list(tmp_path.iterdir())) == 10
    assert scalars(tmp_path)["steps/lr"] == [[10, 1.0]]


def test_auto_goes_on_in_the_precision_that_a_run_has(
    sub4: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Trainer._epoch

    def one(trainer: Trainer) -> dict[str, Evaluation]:
        if trainer.state.epoch:
            raise KeyboardInterrupt
        return whole(trainer)

    def train(out: Path, **options: str) -> Result:
        return train_network(str(sub4 / "02"), out, replace(quick(), **options), quiet=True)  # type: ignore[arg-type]

    train(tmp_path / "at-once", precision="float32")
    monkeypatch.setattr(Trainer, "_epoch", one)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", precision="float32")
    monkeypatch.setattr(Trainer, "_epoch", whole)
    monkeypatch.setattr("spectral_shards.train.config._cpu_has_amx", lambda: True)
    assert str(quick().dtype(torch.device("cpu"))) == "torch.bfloat16"
    train(tmp_path / "run")
    train(tmp_path / "run")  # finished
    assert json.loads((tmp_path / "run" / "run.json").read_text())["options"]["precision"] == "float32"
    logits = [(tmp_path / name / "val-logits.npy").read_bytes() for name in ("run", "at-once")]
    assert logits[0] == logits[1]
    with pytest.raises(TrainError, match="precision float32 there, bfloat16 here"):
        train(tmp_path / "run", precision="bfloat16")
