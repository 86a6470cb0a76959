"""No room to write, wherever a program writes: one sentence, and the same command goes on."""

import json
import re
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from spectral_shards.shards_manifest.dataset import open_band
from spectral_shards.shards_manifest.errors import StoreError
from spectral_shards.shards_manifest.storage.local import LocalStore
from spectral_shards.train.engine.trainer import Trainer, train_network
from spectral_shards.train.runs import checkpoint
from spectral_shards.train.runs.metrics_log import STEPS, EpochLine, StepLine
from spectral_shards.train.runs.run_folder import RunFolder
from support.programs import fails, program
from support.splits import tree
from support.trainings import QUICK, quick


@contextmanager
def room(size: int) -> Iterator[None]:
    """Within this process, no file can grow beyond `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def limit(size: int) -> Callable[[], None]:
    """The same for a program that is about to start."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


AGAIN = "make room and run the same command again, which goes on from the last checkpoint"


def test_no_room_for_a_checkpoint(sub4: Path, tmp_path: Path) -> None:
    """The sentence says what and where, and the same command goes on to the same result."""
    out = tmp_path / "run"
    command = ("spectral-train", "--shards", sub4 / "00", *QUICK, "--out", out)
    assert fails(*command, preexec_fn=limit(20_000)) == (
        f"Error: no space left to write to {out}/best.pt (File too large): {AGAIN}"
    )
    assert not [name for name in tree(out) if name.endswith((".tmp", ".pt"))]
    sentence = fails(*command, "--no-resume", preexec_fn=limit(20_000))
    assert sentence.endswith(
        "make room and run the same command again, without --no-resume, which goes on from the last checkpoint"
    )
    done = program(*command)
    assert done.returncode == 0, done.stderr
    whole = program(*command[:3], *QUICK, "--out", tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    assert (out / "val-logits.npy").read_bytes() == (tmp_path / "whole" / "val-logits.npy").read_bytes()


@pytest.fixture(scope="module")
def uninterrupted_quick(sub4: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("quick") / "run"
    train_network(str(sub4 / "00"), out, quick(), quiet=True)
    return out


def test_the_last_checkpoint_survives(
    sub4: Path, tmp_path: Path, uninterrupted_quick: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, out = Trainer._epoch, tmp_path / "run"

    def full_after_the_first(trainer: Trainer) -> Any:
        if trainer.state.epoch == 0:
            return whole(trainer)
        with room(20_000):
            return whole(trainer)

    monkeypatch.setattr(Trainer, "_epoch", full_after_the_first)
    with pytest.raises(StoreError, match=re.escape(AGAIN)):
        train_network(str(sub4 / "00"), out, quick(), quiet=True)
    assert checkpoint.load_checkpoint(out / "checkpoint.pt").progress.loader["epoch"] == 1
    assert not list(out.glob("*.tmp"))
    monkeypatch.undo()
    train_network(str(sub4 / "00"), out, quick(), quiet=True)
    for name in ("val-logits.npy", "val-labels.npy"):
        assert (out / name).read_bytes() == (uninterrupted_quick / name).read_bytes()
    lines = (out / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2]


def test_no_room_for_any_other_file_of_a_run(sub4: Path, tmp_path: Path) -> None:
    _, manifest = open_band(str(sub4 / "00"))
    run = RunFolder(tmp_path / "run")
    with room(100), pytest.raises(StoreError, match=re.escape(f"{run.path}/recipe.toml (File too large): {AGAIN}")):
        run.begin(0, 0, quick())
    run.begin(0, 0, quick())
    for name in ("metrics.jsonl", "steps.jsonl"):
        with room(1000), pytest.raises(StoreError, match=re.escape(f"{run.path}/{name} (File too large): {AGAIN}")):
            log_many(run, name)
        assert (run.path / name).stat().st_size <= 1000
    with room(1000), pytest.raises(StoreError, match=re.escape(f"no space left to write to {run.path} (File too")):
        record_many(run)
    assert not list(run.path.glob("*.npy*"))
    with room(100), pytest.raises(StoreError, match=re.escape(f"{run.path}/run.json (File too large)")):
        run.finish([manifest], quick(), train_result())
    # lines of a run that could not be saved, and half a line, do not count
    again = RunFolder(tmp_path / "run")
    again.begin(3, 0, quick())
    assert len((run.path / "steps.jsonl").read_text().splitlines()) == 3


def log_many(run: RunFolder, name: str) -> None:
    for number in range(100):
        epoch = EpochLine(1, number + 1, 1.0, 0.5, 1.0, 0.0, 0, 0.1)
        run.log(StepLine(number + 1, 1.0, 0.1) if name == STEPS else epoch)


def record_many(run: RunFolder) -> None:
    with run.predictions("val", 1000, 10) as (logits, labels):
        logits.write(0, np.zeros((1000, 10), np.float16))
        labels.write(0, np.zeros(1000, np.int64))


def train_result() -> Any:
    from spectral_shards.train.runs.run_record import Result

    return Result(0.5, 0.9, 1.0, None, 0.5, 1, 1.0, 10, 10)


def test_no_room_for_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    run.begin(0, 0, replace(quick(), tensorboard=True))
    with room(3000), pytest.raises(StoreError, match=r"events.*\(File too large\)"):
        log_many(run, "steps.jsonl")  # an event is longer than a line
    assert (run.path / "steps.jsonl").stat().st_size < 3000
    with room(50), pytest.raises(StoreError, match=r"events.*\(File too large\)"):
        RunFolder(tmp_path / "run").begin(0, 0, replace(quick(), tensorboard=True))


def test_no_room_for_what_is_fused(runs: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(runs, tmp_path / "runs"))
    sentence = fails("spectral-ensemble", copy, preexec_fn=limit(9000))
    assert sentence == (
        f"Error: no space left to write to {copy}/ensemble.png (File too large): "
        "make room and run the same command again, what is finished is kept"
    )
    assert not list(copy.glob("*.tmp"))


@pytest.mark.parametrize("ending", ["pt2", "onnx"])
def test_no_room_for_an_export(ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from spectral_shards.train.ensemble import export

    program_of = torch.export.export(torch.nn.Linear(200, 200).eval(), (torch.zeros(2, 200),))
    monkeypatch.setattr(export, "_program", lambda _: program_of)
    target, info = tmp_path / f"model.{ending}", export.ModelInfo("photos", ["ant"], [], "probabilities")
    target.write_bytes(b"earlier")
    with room(50_000), pytest.raises(StoreError, match=re.escape(f"no space left to write to {target}")):
        export.export(None, info, target)  # type: ignore[arg-type]
    assert tree(tmp_path) == {target.name: b"earlier"}
    export.export(None, info, target)  # type: ignore[arg-type]
    assert target.stat().st_size > 50_000


def test_no_room_for_the_log_of_a_fault(sub4: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from spectral_shards.train.launch import launcher as bands

    def stumble(*_: object, **__: object) -> None:
        raise ArithmeticError("a fault\nof ours")

    monkeypatch.setattr(bands, "train_network", stumble)
    job = bands.TrainJob("00", str(sub4 / "00"), tmp_path / "00", quick())
    with room(10):
        outcome = bands.train_one(job)
    assert outcome.failure == f"ArithmeticError: a fault ({tmp_path}/00/error.log cannot be written: File too large)"
    assert bands.train_one(job).failure == f"ArithmeticError: a fault (all of it is in {tmp_path}/00/error.log)"


def test_a_real_full_disk(sub4: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(small)], capture_output=True).returncode:
        pytest.skip("mounting a small tmpfs needs root")
    try:
        sentence = fails("spectral-train", "--shards", sub4 / "00", *QUICK, "--out", small / "run")
        assert re.search(r"no space left to write to .*\.pt \(No space left on device\): make room", sentence)
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_the_words_for_a_full_disk_are_the_caller_s(tmp_path: Path) -> None:
    import pickle

    store = pickle.loads(pickle.dumps(LocalStore(tmp_path, "and so on")))
    with room(10), pytest.raises(StoreError, match=re.escape(f"{tmp_path}/a/b (File too large): make room and run")):
        store.write("a/b", bytes(100))
    with room(10), pytest.raises(StoreError, match=r"run the same command again, and so on$"):
        store.write("a/b", bytes(100))
    with room(10), suppress(StoreError), LocalStore(tmp_path).writing(["a", "b"]) as files:
        files[0].write(bytes(100))
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert list((tmp_path / "a").iterdir()) == []
