"""Runs that are killed and go on, in one process and in several that torchrun starts."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from buckets import BUCKET, Server, SlowProxy, WebServer, environment
from conftest import SUB4, fails, make_split, program

from shards_manifest import open_band
from shards_manifest.store import TEMPORARY
from train import checkpoint, recipes
from train.blocks import PartBlocks
from train.errors import TrainError
from train.inputs import Inputs
from train.loop import _check
from train.order import Epochs
from train.plan import TrainPlan

WITHOUT_NORM = str(Path(__file__).with_name("without_norm.py"))
OPTIONS = ("--network", "cnn", "--recipe", "quick", "--epochs", "3", "--batch-size", "2", "--lr", "0.01")
OPTIONS += ("--save-every", "0", "--shift", "1")
EVERYTHING = ("--ema", "0.9", "--mixup", "0.2", "--cutmix", "1", "--precision", "bfloat16", "--clip", "1")
EVERYTHING += ("--accumulate", "2", "--batch-size", "4", "--schedule", "onecycle", "--warmup", "1")


def lines(run: Path, name: str) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / name).read_text().splitlines()] if (run / name).exists() else []


def command(shards: Path | str, out: Path, ranks: int, workers: int = 0, more: tuple[str, ...] = ()) -> list[str]:
    launcher = [sys.executable]
    if ranks > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    options = (*OPTIONS, "--workers", str(workers), *more)
    return [*launcher, WITHOUT_NORM, "--shards", str(shards), "--out", str(out), *options]


def train(shards: Path | str, out: Path, ranks: int, workers: int = 0, more: tuple[str, ...] = ()) -> str:
    done = subprocess.run(command(shards, out, ranks, workers, more), capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout


def killed(shards: Path, out: Path, ranks: int, steps: int, workers: int = 0, more: tuple[str, ...] = ()) -> None:
    """Run until so many lines of the loss have been added, then SIGKILL every process of it."""
    had = len(lines_so_far(out))
    process = subprocess.Popen(
        command(shards, out, ranks, workers, more),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "SLOW_STEPS": "1"},
    )
    try:
        deadline = time.monotonic() + 120
        while len(lines_so_far(out)) < had + steps and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.002)
        assert process.poll() is None, "the run ended before it could be killed"
    finally:
        for each in (*psutil.Process(process.pid).children(recursive=True), process):
            each.kill()
        process.wait()
    assert not (out / "run.json").exists()


def shared() -> set[str]:
    """What is in shared memory, but for what other tests may have there meanwhile."""
    return {name for name in os.listdir("/dev/shm") if "loky" not in name and "joblib" not in name}


def lines_so_far(run: Path) -> list[str]:
    path = run / "steps.jsonl"
    return path.read_text().splitlines() if path.exists() else []


@contextmanager
def under_way(
    shards: Path | str, out: Path, workers: int, *more: str, ranks: int = 1
) -> Iterator[subprocess.Popen[str]]:
    """A slow run of a process group of its own that has made some steps."""
    environment = {**os.environ, "SLOW_STEPS": "1"}
    process = subprocess.Popen(
        command(shards, out, ranks, workers, more),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=environment,
    )
    try:
        deadline = time.monotonic() + 120
        while not lines_so_far(out) and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.01)
        assert process.poll() is None
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.fixture(scope="module")
def whole(sub4: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run in one process. Not to be changed."""
    out = tmp_path_factory.mktemp("whole") / "run"
    train(sub4 / "01", out, 1)
    return out


CURVES = {"metrics.jsonl": ("train_loss", "train_top1", "val_loss"), "steps.jsonl": ("loss", "lr")}


def close(run: Path, other: Path, exactly: bool, curves: tuple[str, ...] = tuple(CURVES)) -> None:
    """The curves and the weights are the same, exactly or to rounding."""
    for name in curves:
        keys = CURVES[name]
        one, two = lines(run, name), lines(other, name)
        assert [line["samples"] for line in one] == [line["samples"] for line in two]
        for key in keys:
            values = np.array([[line[key] for line in each] for each in (one, two)])
            assert np.array_equal(*values) if exactly else np.allclose(*values, rtol=2e-3, atol=1e-5), (key, values)
    weights = [checkpoint.load(each / "checkpoint.pt")["network"] for each in (run, other)]
    for name, tensor in weights[0].items():
        same = torch.equal if exactly else lambda a, b: torch.allclose(a, b, rtol=1e-2, atol=1e-3)
        assert same(tensor, weights[1][name]), name
    logits = [np.load(each / "val-logits.npy").astype(np.float32) for each in (run, other)]
    assert np.array_equal(*logits) if exactly else np.allclose(*logits, atol=2e-2)


def test_killed_three_times_as_if_nothing_had_happened(sub4: Path, whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    for workers, steps in ((0, 1), (2, 2), (1, 1)):
        killed(sub4 / "01", run, 1, steps, workers)
    assert "going on after" in train(sub4 / "01", run, 1)
    assert len(lines(whole, "steps.jsonl")) == 6
    close(run, whole, exactly=True)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_killed_with_everything_on(ranks: int, sub4: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Averaged weights, mixup and cutmix, clipping, parts of batches, bfloat16: to the bit, and in two ranks too.

    In one process dropout as well: what is dropped is each rank's own.
    """
    if ranks == 1:
        monkeypatch.setenv("DROPOUT", "1")
    train(sub4 / "01", tmp_path / "whole", 1, more=EVERYTHING)
    killed(sub4 / "01", tmp_path / "run", ranks, 2, more=EVERYTHING)
    assert "going on after" in train(sub4 / "01", tmp_path / "run", ranks, more=EVERYTHING)
    close(tmp_path / "run", tmp_path / "whole", exactly=ranks == 1)
    averages = [checkpoint.load(tmp_path / name / "checkpoint.pt")["average"] for name in ("run", "whole")]
    for name, tensor in averages[0].items():
        if ranks == 1:
            assert torch.equal(tensor, averages[1][name]), name
        else:
            assert torch.allclose(tensor, averages[1][name], rtol=1e-2, atol=2e-3), name


@pytest.mark.slow
def test_two_ranks_train_as_one(sub4: Path, whole: Path, tmp_path: Path) -> None:
    """The same batches, augmentation and mean gradients; val is evaluated once in all."""
    train(sub4 / "01", tmp_path / "run", 2, workers=1)
    close(tmp_path / "run", whole, exactly=False)


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_going_on_with_another_number_of_ranks(
    before: int, after: int, sub4: Path, whole: Path, tmp_path: Path
) -> None:
    killed(sub4 / "01", tmp_path / "run", before, 3)
    assert "going on after" in train(sub4 / "01", tmp_path / "run", after)
    close(tmp_path / "run", whole, exactly=False)


@pytest.mark.slow
def test_two_ranks_read_three_shards_from_a_slow_server(
    server: Server, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three shards for two ranks, and one of val: nobody waits for ever, and the curve is that of one local process."""
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
    index = PartBlocks(store, manifest, "train").index
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
    val = PartBlocks(store, manifest, "val")
    x = torch.from_numpy(np.concatenate([val.read(block)[0] for block in range(len(val.samples))]))
    with torch.inference_mode():
        logits = checkpoint.load_network(run / "checkpoint.pt")(Inputs(manifest).eval()(x)).numpy()
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
    plan = TrainPlan(network, recipes.load("quick"))
    with nullcontext() if good else pytest.raises(TrainError, match=f"batches of {batch_size} are too small for"):
        _check(manifest, plan, batch_size, ranks)


def test_a_position_is_of_its_own_batches(sub4: Path) -> None:
    store, manifest = open_band(str(sub4 / "00"))
    samples = PartBlocks(store, manifest, "train").samples
    plan = Epochs.of(samples, 20, 100, seed=3)
    assert plan.position(plan.state_dict(2, 3)) == (2, 3)
    assert plan.position(plan.state_dict(2, plan.batches)) == (2, plan.batches)
    assert Epochs.of(samples, 10, 100, seed=3).position(plan.state_dict(2, 3)) == (2, 6)
    for other in (Epochs.of(samples, 20, 100, seed=4), Epochs.of(samples, 8, 100, seed=3)):
        with pytest.raises(TrainError, match="cannot go on after"):
            other.position(plan.state_dict(2, 3))


def test_an_unfinished_run_of_another_kind_is_not_overwritten(sub4: Path, whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "checkpoint.pt").write_bytes((whole / "checkpoint.pt").read_bytes())
    train_it = ("spectral-train", "--shards", sub4 / "01", "--out", run, *OPTIONS)
    assert "holds an unfinished run of another kind (seed 0 there, 1 here)" in fails(*train_it, "--seed", "1")
    (run / "checkpoint.pt").write_bytes(b"junk")
    assert "checkpoint.pt is not a checkpoint, or damaged" in fails(*train_it)


def test_a_run_killed_before_its_last_file_only_writes_that(sub4: Path, whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for name in ("checkpoint.pt", "steps.jsonl", "metrics.jsonl"):
        (run / name).write_bytes((whole / name).read_bytes())
    with (run / "steps.jsonl").open("a") as file:
        file.write('{"samples": 3')  # half a line, as a kill leaves it
    train(sub4 / "01", run, 1)
    close(run, whole, exactly=True)
    first, again = (json.loads((each / "run.json").read_text())["result"] for each in (whole, run))
    assert first == again


def test_sentences_for_what_torchrun_says(sub4: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RANK", "one")
    monkeypatch.setenv("WORLD_SIZE", "2")
    done = program("spectral-train", "--shards", sub4 / "01", "--out", tmp_path / "run", *OPTIONS)
    assert done.returncode == 2
    assert "RANK, WORLD_SIZE and LOCAL_RANK are not numbers" in done.stderr


@pytest.mark.parametrize(
    ("workers", "number", "code"), [(0, signal.SIGINT, 130), (2, signal.SIGINT, 130), (1, signal.SIGTERM, 143)]
)
def test_a_signal_ends_it_after_a_checkpoint_and_leaves_nothing(
    workers: int, number: signal.Signals, code: int, sub4: Path, whole: Path, tmp_path: Path
) -> None:
    before = shared()
    anew = () if workers else ("--no-resume",)
    with under_way(sub4 / "01", tmp_path / "run", workers, "--save-every", "60", *anew) as process:
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) >= workers
        if number == signal.SIGINT:
            os.killpg(process.pid, number)  # as a terminal does, to workers too
        else:
            process.send_signal(number)  # as a batch system does
        _, said = process.communicate(timeout=20)  # two seconds on a machine that does nothing else
        assert process.returncode == code
        goes_on = "Interrupted: run the same command again to go on"
        assert said.splitlines()[-1] == goes_on + (", without --no-resume" if anew else "")
        assert "Traceback" not in said
        progress = checkpoint.load(tmp_path / "run" / "checkpoint.pt")["progress"]
        assert progress["reader"]["samples"] > 0
        assert lines(tmp_path / "run", "steps.jsonl")[-1]["samples"] == progress["reader"]["samples"]
        assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    assert shared() <= before
    assert not [path.name for path in (tmp_path / "run").iterdir() if path.name.endswith(TEMPORARY)]
    assert "going on after" in train(sub4 / "01", tmp_path / "run", 1)
    weights = [checkpoint.load(run / "checkpoint.pt")["network"] for run in (whole, tmp_path / "run")]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())


@pytest.mark.slow
def test_two_ranks_agree_on_where_to_stop(sub4: Path, whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with under_way(sub4 / "01", run, 0, "--save-every", "60", ranks=2) as process:
        process.terminate()  # torchrun hands it on
        process.communicate(timeout=60)
    assert checkpoint.load(run / "checkpoint.pt")["progress"]["reader"]["samples"] > 0
    assert not (run / "run.json").exists()
    assert "going on after" in train(sub4 / "01", run, 2)
    close(run, whole, exactly=False, curves=("metrics.jsonl",))


def test_workers_die_with_a_process_that_was_killed(sub4: Path, tmp_path: Path) -> None:
    before = shared()
    with under_way(sub4 / "01", tmp_path / "run", 2) as process:
        children = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait()
        _, alive = psutil.wait_procs(children, timeout=30)
        assert not alive
    assert shared() <= before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_an_evaluation_costs_no_epoch(
    number: signal.Signals, sub4: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLOW_VAL", "1")
    run = tmp_path / "run"
    whole_epoch = command(sub4 / "01", run, 1, 0, ("--save-every", "60"))
    process = subprocess.Popen(whole_epoch, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    while "evaluating" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(number)
    _, said = process.communicate(timeout=15)
    assert "Traceback" not in said
    assert checkpoint.load(run / "checkpoint.pt")["progress"]["reader"] == {"seed": 0, "epoch": 0, "samples": 80}
    monkeypatch.delenv("SLOW_VAL")
    (run / "metrics.jsonl").write_text('{"epoch": 1, "samples": 80}\n')  # as a kill after the line leaves it
    train(sub4 / "01", run, 1)
    close(run, whole, exactly=True)
    assert [line["epoch"] for line in lines(run, "metrics.jsonl")] == [1, 2, 3]


@pytest.fixture
def web(sub4: Path) -> Iterator[WebServer]:
    server = WebServer(sub4)
    yield server
    server.close()


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "number"), [(0, signal.SIGINT), (2, signal.SIGINT), (1, signal.SIGTERM)])
def test_a_silent_server_does_not_keep_a_run_alive(
    workers: int, number: signal.Signals, web: WebServer, tmp_path: Path
) -> None:
    with under_way(f"{web.url}/01", tmp_path / "run", workers, "--save-every", "60") as process:
        children = psutil.Process(process.pid).children(recursive=True)
        web.silent.set()
        time.sleep(3)  # what was fetched ahead is used up
        process.send_signal(number)
        _, said = process.communicate(timeout=10)
        assert said.splitlines()[-1] == "Interrupted: run the same command again to go on"
        assert "Traceback" not in said
        assert checkpoint.load(tmp_path / "run" / "checkpoint.pt")["progress"]["reader"]["samples"] > 0
        _, alive = psutil.wait_procs(children, timeout=5)
        assert not alive


@pytest.mark.slow
def test_a_silent_server_is_left_when_it_is_first_asked_or_the_parent_is_killed(
    web: WebServer, tmp_path: Path, sub4: Path
) -> None:
    with under_way(f"{web.url}/01", tmp_path / "run", 1) as process:
        children = psutil.Process(process.pid).children(recursive=True)
        web.silent.set()
        time.sleep(3)
        process.kill()
        _, alive = psutil.wait_procs(children, timeout=10)
        assert not alive
    process = subprocess.Popen(command(f"{web.url}/01", tmp_path / "other", 1), stderr=subprocess.PIPE, text=True)
    time.sleep(6)  # it has begun, and waits for its first shard
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=10)
    assert process.returncode == 130, said
    assert "Traceback" not in said
