"""Runs that are killed and go on, in one process and in several that torchrun starts."""

import json
import shutil
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from spectral_shards.shards_manifest.dataset import open_band
from spectral_shards.shards_manifest.shard.reader import BlockReader
from spectral_shards.train import recipes
from spectral_shards.train.augment.planes import BandAugmentation
from spectral_shards.train.config import TrainPlan
from spectral_shards.train.data.sampler import EpochSampler
from spectral_shards.train.engine.trainer import check_fits
from spectral_shards.train.errors import TrainError
from spectral_shards.train.networks import NetworkOptions
from spectral_shards.train.runs import checkpoint
from support.buckets import BUCKET, Server, SlowProxy, environment
from support.programs import fails, program
from support.slow_runs import OPTIONS, close, command, killed, lines, train
from support.splits import SUB4, make_split

EVERYTHING = ("--ema", "0.9", "--mixup", "0.2", "--cutmix", "1", "--precision", "bfloat16", "--clip-grad", "1")
EVERYTHING += ("--grad-accum-steps", "2", "--batch-size", "4", "--schedule", "onecycle", "--warmup", "1")


def test_killed_three_times_as_if_nothing_had_happened(sub4: Path, uninterrupted: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    for workers, steps in ((0, 1), (2, 2), (1, 1)):
        killed(sub4 / "01", run, 1, steps, workers)
    assert "going on after" in train(sub4 / "01", run, 1)
    assert len(lines(uninterrupted, "steps.jsonl")) == 6
    close(run, uninterrupted, exactly=True)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_killed_with_everything_on(ranks: int, sub4: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Averaged weights, mixup and cutmix, clipping, parts of batches, bfloat16: to the bit, and in two ranks too.

    In one process dropout as well: what is dropped is each rank's own.
    """
    if ranks == 1:
        monkeypatch.setenv("DROPOUT", "1")
    train(sub4 / "01", tmp_path / "uninterrupted", 1, more=EVERYTHING)
    killed(sub4 / "01", tmp_path / "run", ranks, 2, more=EVERYTHING)
    assert "going on after" in train(sub4 / "01", tmp_path / "run", ranks, more=EVERYTHING)
    close(tmp_path / "run", tmp_path / "uninterrupted", exactly=ranks == 1)
    averages = [
        checkpoint.load_checkpoint(tmp_path / name / "checkpoint.pt").state["ema"] for name in ("run", "uninterrupted")
    ]
    for name, tensor in averages[0].items():
        if ranks == 1:
            assert torch.equal(tensor, averages[1][name]), name
        else:
            assert torch.allclose(tensor, averages[1][name], rtol=1e-2, atol=2e-3), name


@pytest.mark.slow
def test_two_ranks_train_as_one(sub4: Path, uninterrupted: Path, tmp_path: Path) -> None:
    """The same batches, augmentation and mean gradients; val is evaluated once in all."""
    train(sub4 / "01", tmp_path / "run", 2, workers=1)
    close(tmp_path / "run", uninterrupted, exactly=False)


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_going_on_with_another_number_of_ranks(
    before: int, after: int, sub4: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    killed(sub4 / "01", tmp_path / "run", before, 3)
    assert "going on after" in train(sub4 / "01", tmp_path / "run", after)
    close(tmp_path / "run", uninterrupted, exactly=False)


@pytest.mark.slow
def test_two_ranks_read_three_shards_from_a_slow_server(
    server: Server, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three shards for two ranks, and one of val: no one waits for ever, and the curve is that of one local process."""
    split = make_split(photos, tmp_path / "sub4", **{**SUB4, "samples_per_shard": 32, "bands": (3,)})
    assert len(list((split / "03").glob("train-*.tar"))) == 3
    assert len(list((split / "03").glob("val-*.tar"))) == 1
    server.put(split / "03", "ranks/03")
    train(split / "03", tmp_path / "local", 1)
    slow = SlowProxy(server.port, 0.02)
    try:
        for name, value in environment(slow.port).items():
            monkeypatch.setenv(name, value)
        train(f"s3://{BUCKET}/ranks/03", tmp_path / "remote", 2, workers=1)
    finally:
        slow.close()
    close(tmp_path / "remote", tmp_path / "local", exactly=False)


@pytest.mark.slow
def test_a_bad_block_in_one_rank_ends_all_with_its_sentence(sub4: Path, tmp_path: Path) -> None:
    band = tmp_path / "01"
    shutil.copytree(sub4 / "01", band)
    store, manifest = open_band(band)
    index = BlockReader(store, manifest, "train").index
    name, start, size = index.place(1)
    data = bytearray((band / name).read_bytes())
    data[start + size // 2] ^= 255
    (band / name).write_bytes(data)
    done = subprocess.run(command(band, tmp_path / "run", 2), capture_output=True, text=True, timeout=120)
    assert done.returncode == 1  # torchrun's
    own = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert sum(f"{band}/{name} was altered" in line for line in own) == 1
    assert all(name in line or "because another has: see what that one says" in line for line in own)
    assert "gloo" not in done.stderr


@pytest.mark.slow
def test_what_ranks_evaluate_is_what_they_keep(sub4: Path, tmp_path: Path) -> None:
    """Batch norm's statistics differ between ranks: those of the checkpoint count."""
    run = tmp_path / "run"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
    train_it = [str(Path(sys.executable).with_name("spectral-train")), "--shards", str(sub4 / "01"), "--out", str(run)]
    options = ["--network", "cnn", "--recipe", "quick", "--epochs", "1", "--batch-size", "8", "--workers", "0"]
    done = subprocess.run([*launcher, *train_it, *options], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    store, manifest = open_band(str(sub4 / "01"))
    val = BlockReader(store, manifest, "val")
    x = torch.from_numpy(np.concatenate([val.read(block)[0] for block in range(len(val.samples))]))
    with torch.inference_mode():
        logits = checkpoint.load_network(run / "checkpoint.pt")(BandAugmentation(manifest).eval()(x)).numpy()
    assert np.allclose(np.load(run / "val-logits.npy").astype(np.float32), logits, rtol=2e-3, atol=5e-3)


@pytest.mark.parametrize(
    ("network", "side", "batch_size", "ranks", "good"),
    [
        ("cnn", 8, 3, 2, True),
        ("cnn", 4, 3, 2, False),  # the last map of one pixel has a single value a channel
        ("cnn", 4, 4, 2, True),
        ("resnet18", 8, 3, 2, False),
        ("alexnet", 8, 3, 2, True),  # without batch norm
        ("alexnet", 8, 2, 3, False),
    ],
)
def test_batches_are_large_enough_for_the_ranks(
    network: str, side: int, batch_size: int, ranks: int, good: bool, sub4: Path
) -> None:
    _, manifest = open_band(str(sub4 / "01"))
    manifest = replace(manifest, geometry=replace(manifest.geometry, size=2 * side, margin=0))
    plan = TrainPlan(NetworkOptions(network), recipes.load("quick"))
    with nullcontext() if good else pytest.raises(TrainError, match=f"{batch_size} samples a step .* are too few for"):
        check_fits([manifest], plan, batch_size, ranks)


def test_a_position_is_of_its_own_batches(sub4: Path) -> None:
    store, manifest = open_band(str(sub4 / "00"))
    samples = BlockReader(store, manifest, "train").samples
    plan = EpochSampler.of(samples, 20, 100, seed=3)
    assert plan.position(plan.state_dict(2, 3)) == (2, 3)
    assert plan.position(plan.state_dict(2, plan.batches)) == (2, plan.batches)
    assert EpochSampler.of(samples, 10, 100, seed=3).position(plan.state_dict(2, 3)) == (2, 6)
    for other in (EpochSampler.of(samples, 20, 100, seed=4), EpochSampler.of(samples, 8, 100, seed=3)):
        with pytest.raises(TrainError, match="cannot go on after"):
            other.position(plan.state_dict(2, 3))


def test_an_unfinished_run_of_another_kind_is_not_overwritten(sub4: Path, uninterrupted: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "checkpoint.pt").write_bytes((uninterrupted / "checkpoint.pt").read_bytes())
    train_it = ("spectral-train", "--shards", sub4 / "01", "--out", run, *OPTIONS)
    assert "holds an unfinished run of another kind (seed 0 there, 1 here)" in fails(*train_it, "--seed", "1")
    (run / "checkpoint.pt").write_bytes(b"junk")
    assert "checkpoint.pt is not a checkpoint, or damaged" in fails(*train_it)


def test_a_run_killed_before_its_last_file_only_writes_that(sub4: Path, uninterrupted: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for name in ("checkpoint.pt", "steps.jsonl", "metrics.jsonl"):
        (run / name).write_bytes((uninterrupted / name).read_bytes())
    with (run / "steps.jsonl").open("a") as file:
        file.write('{"samples": 3')  # half a line, as a kill leaves it
    train(sub4 / "01", run, 1)
    close(run, uninterrupted, exactly=True)
    first, again = (json.loads((each / "run.json").read_text())["result"] for each in (uninterrupted, run))
    assert first == again


def test_sentences_for_what_torchrun_says(sub4: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RANK", "one")
    monkeypatch.setenv("WORLD_SIZE", "2")
    done = program("spectral-train", "--shards", sub4 / "01", "--out", tmp_path / "run", *OPTIONS)
    assert done.returncode == 2
    assert "RANK, WORLD_SIZE and LOCAL_RANK are not numbers" in done.stderr
