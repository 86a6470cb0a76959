"""All bands of a split as one experiment: in turn, at once, on clusters; bands that fail, runs that are interrupted."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from spectral_shards.shards_manifest.storage.local import LocalStore
from spectral_shards.train.launch import progress
from spectral_shards.train.launch.launcher import INTERRUPTED, TrainJob, train_isolated, train_one
from spectral_shards.train.networks import NetworkOptions
from spectral_shards.train.runs import checkpoint
from spectral_shards.train.shutdown import StopRequest
from support.band_runs import BANDS, fails_alone, results
from support.buckets import wait_for
from support.programs import fails, program
from support.splits import tree
from support.trainings import quick

OPTIONS = ("--network", "cnn", "--recipe", "quick", "--batch-size", "16", "--workers", "0")
EACH = ("--bands", "all")
QUICK = (*OPTIONS, "--epochs", "2")
LONG = (*OPTIONS, "--epochs", "400", "--save-every", "60")  # much longer than a test looks at it


@pytest.fixture(scope="module")
def wanted(sub4: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What the bands give when they are trained in turn."""
    runs = tmp_path_factory.mktemp("in-turn") / "runs"
    done = program("spectral-train", "--shards", sub4, *EACH, *QUICK, "--out", runs)
    assert done.returncode == 0, done.stderr
    assert sorted(results(runs)) == BANDS
    return results(runs)


@contextmanager
def under_way(shards: Path, runs: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Two bands at once, in a process group of its own, once both have made steps."""
    command = [
        str(Path(sys.executable).with_name("spectral-train")),
        "--shards",
        str(shards),
        "--bands",
        "all",
        "--out",
        str(runs),
    ]
    process = subprocess.Popen(
        [*command, *options, "--jobs", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 120
        steps = [runs / band / "steps.jsonl" for band in ("00", "01")]
        while time.monotonic() < deadline and process.poll() is None:
            if all(path.exists() and path.stat().st_size for path in steps):
                break
            time.sleep(0.05)
        assert process.poll() is None
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def trainers(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The processes that train."""
    found = psutil.Process(process.pid).children(recursive=True)
    return [child for child in found if "popen_loky" in " ".join(child.cmdline())]


@pytest.mark.slow
def test_bands_at_once_are_what_they_are_in_turn(sub4: Path, wanted: dict[str, bytes], tmp_path: Path) -> None:
    readers = ("--workers", "1")  # processes of the processes that train
    done = program(
        "spectral-train",
        "--shards",
        sub4,
        "--bands",
        "all",
        *QUICK,
        "--out",
        tmp_path / "runs",
        "--jobs",
        "2",
        *readers,
    )
    assert done.returncode == 0, done.stderr
    assert results(tmp_path / "runs") == wanted
    table = done.stderr.splitlines()
    assert table[0].split() == ["bands", "epoch", "loss", "train", "val", "data_wait", "state"]
    assert [line.split()[0] for line in table[1:5]] == BANDS
    assert all(line.split()[1] == "2/2" and line.endswith("done") for line in table[1:5])
    assert table[5] == "4 of 4 networks done"
    command = ("spectral-train", "--shards", sub4, *EACH, *QUICK, "--out", tmp_path / "runs", "--jobs", "2")
    again = program(*command)
    assert again.stdout.count("is finished: top-1 ") == 4
    assert f"{sub4}/00 and 3 more: cnn on 3x12x12" in again.stdout
    restart = program(*command, "--no-resume")
    assert restart.stdout.count(" s: top-1 ") == 4, restart.stdout
    assert results(tmp_path / "runs") == wanted


@pytest.mark.parametrize("backend", ["ray", "dask"])
def test_a_run_to_restart_stays_until_a_worker_takes_it(backend: str, runs: Path, sub4: Path, tmp_path: Path) -> None:
    pytest.importorskip({"dask": "distributed"}.get(backend, backend))
    copy = Path(shutil.copytree(runs, tmp_path / "runs"))
    where = ("--backend", backend, "--address", "127.0.0.1:1")
    command = ("spectral-train", "--shards", sub4, *EACH, *QUICK, "--out", copy, "--no-resume", *where)
    assert "cannot reach the " in fails(*command)
    assert tree(copy) == tree(runs)


@pytest.mark.slow
def test_a_busy_band_is_not_restarted(sub4: Path, wanted: dict[str, bytes], tmp_path: Path) -> None:
    command = (
        "spectral-train",
        "--shards",
        sub4,
        "--bands",
        "all",
        *QUICK,
        "--out",
        tmp_path,
        "--no-resume",
        "--jobs",
        "2",
    )
    assert program(*command).returncode == 0
    before = tree(tmp_path / "02")
    with LocalStore(tmp_path / "02").locked("", exclusive=True):
        done = program(*command)
    assert done.returncode == 2
    assert f"{tmp_path}/02 failed: {tmp_path}/02 is being trained by another process" in done.stderr
    assert done.stderr.strip().endswith("run the same command again, without --no-resume, to train what is missing")
    assert done.stdout.count(" s: top-1 ") == 3
    assert tree(tmp_path / "02") == before
    assert results(tmp_path) == wanted


def test_a_band_is_restarted_once_for_a_command(runs: Path, sub4: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(runs / "02", tmp_path / "02"))
    job = TrainJob("02", str(sub4 / "02"), out, replace(quick(), restart="one"))
    assert [train_one(job).earlier for _ in range(2)] == [False, True]  # the second finds what the first did
    assert not train_one(replace(job, plan=replace(quick(), restart="another"))).earlier


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--jobs", "2")])
def test_a_band_that_fails_does_not_stop_the_others(
    options: tuple[str, ...], sub4: Path, wanted: dict[str, bytes], tmp_path: Path
) -> None:
    found = fails_alone(sub4, tmp_path, *options)
    assert found == {band: wanted[band] for band in found}


def test_a_damaged_band_does_not_stop_the_others(sub4: Path, wanted: dict[str, bytes], tmp_path: Path) -> None:
    split = Path(shutil.copytree(sub4, tmp_path / "sub4"))
    (split / "03" / "manifest.json").write_text("{")
    done = program("spectral-train", "--shards", split, "--bands", "3,1", *QUICK, "--out", tmp_path / "runs")
    assert done.returncode == 2
    assert f"{tmp_path}/runs/03 failed: " in done.stderr
    assert "1 of 2 networks failed (03): mend what is said above" in done.stderr
    assert (tmp_path / "runs" / "01" / "val-logits.npy").read_bytes() == wanted["01"]


def test_bands_share_the_gpus_evenly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from spectral_shards.train import recipes
    from spectral_shards.train.config import TrainPlan
    from spectral_shards.train.launch import launcher as bands

    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    job = bands.TrainJob(
        "00", "sub4/00", tmp_path / "00", TrainPlan(NetworkOptions("cnn"), recipes.load("quick")), gpu_locks=tmp_path
    )
    first, second, third, fourth = (bands._on_free_gpu(job) for _ in range(4))
    with first as one, third as two:
        assert (one.plan.device, two.plan.device) == ("cuda:0", "cuda:1")
        with second as three:
            assert three.plan.device == "cuda:0"
    with fourth as four:  # all have ended
        assert four.plan.device == "cuda:0"


def test_a_fault_of_the_program_is_one_bands_affair(
    sub4: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from spectral_shards.train import recipes
    from spectral_shards.train.config import TrainPlan
    from spectral_shards.train.launch import launcher as bands

    def broken(*_: object) -> None:
        raise RuntimeError("CUDA error: the device is on fire\nand more")

    monkeypatch.setattr(bands, "train_network", broken)
    job = bands.TrainJob(
        "00", str(sub4 / "00"), tmp_path / "00", TrainPlan(NetworkOptions("cnn"), recipes.load("quick"))
    )
    outcome = bands.train_one(job)
    log = tmp_path / "00" / "error.log"
    assert outcome.failure == f"RuntimeError: CUDA error: the device is on fire (all of it is in {log})"
    assert "and more" in log.read_text()


@pytest.mark.slow
def test_a_process_that_is_killed_costs_nothing(sub4: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    options = (*OPTIONS, "--epochs", "30", "--save-every", "0")
    first = program("spectral-train", "--shards", sub4 / "03", *options, "--out", runs / "03")
    assert first.returncode == 0, first.stderr
    with under_way(sub4, runs, *options) as process:
        trainers(process)[0].kill()
        said, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
    assert sorted(results(runs)) == BANDS
    assert "all 4 networks are in" in said
    for band in BANDS:
        lines = [json.loads(line) for line in (runs / band / "metrics.jsonl").read_text().splitlines()]
        assert [line["epoch"] for line in lines] == list(range(1, 31))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_all_bands_after_a_checkpoint(number: signal.Signals, sub4: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    with under_way(sub4, runs, *LONG) as process:
        children = psutil.Process(process.pid).children(recursive=True)
        if number == signal.SIGINT:
            os.killpg(process.pid, number)  # as a terminal does
        else:
            process.send_signal(number)  # as a batch system does
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 128 + number
        assert errors.splitlines()[-1] == "Interrupted: run the same command again to go on"
        assert "Traceback" not in errors
        _, alive = psutil.wait_procs(children, timeout=20)
        assert not alive
    assert {"00", "01"} <= {path.name for path in runs.iterdir()} <= set(BANDS)
    for run in (runs / "00", runs / "01"):
        reached = json.loads((run / "steps.jsonl").read_text().splitlines()[-1])["samples"]
        assert checkpoint.load_checkpoint(run / "checkpoint.pt").progress.loader["epoch"] * 80 >= reached - 160


@pytest.mark.slow
def test_bands_end_with_the_process_that_was_killed(sub4: Path, tmp_path: Path) -> None:
    with under_way(sub4, tmp_path / "runs", *LONG) as process:
        children = trainers(process)
        assert len(children) == 2
        process.kill()
        _, alive = psutil.wait_procs(children, timeout=30)
        assert not alive


@pytest.mark.slow
def test_a_run_has_one_process(sub4: Path, tmp_path: Path) -> None:
    with under_way(sub4, tmp_path / "runs", *LONG):
        sentence = fails("spectral-train", "--shards", sub4 / "00", *LONG, "--out", tmp_path / "runs" / "00")
        assert f"{tmp_path}/runs/00 is being trained by another process" in sentence


def test_what_cannot_be_begun_is_one_sentence(sub4: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    train = ("spectral-train", "--shards", sub4, *EACH, *QUICK, "--out", tmp_path / "file" / "runs")
    assert "cannot write to" in fails(*train, "--jobs", "2")
    assert "--address names a cluster" in fails(*train, "--address", "tcp://127.0.0.1:9")


def test_a_process_for_bands_leaves_ctrl_c_to_its_parent(tmp_path: Path) -> None:
    (tmp_path / "stop").touch()
    before = signal.getsignal(signal.SIGINT)
    try:
        job = TrainJob("00", "none", tmp_path / "00", quick(), stop_file=tmp_path / "stop", parent=os.getppid())
        assert train_isolated(job).failure == INTERRUPTED
        os.kill(os.getpid(), signal.SIGINT)  # between two bands: no one would catch it
        assert train_isolated(replace(job, parent=0)).failure == INTERRUPTED
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("bands", [["00"], BANDS])
def test_a_reader_that_ends_ends_the_command(bands: list[str], sub4: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    shards = (sub4 / "00",) if bands == ["00"] else (sub4, "--bands", "all")
    command = [str(Path(sys.executable).with_name("spectral-train")), "--shards", *map(str, shards), *QUICK]
    process = subprocess.Popen(
        [*command, "--out", str(out)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8"
    )
    assert process.stdout is not None
    assert process.stderr is not None
    while not process.stdout.readline().startswith("epoch   1/2"):
        assert process.poll() is None
    process.stdout.close()  # as head does
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(60) == 1
    run = out if bands == ["00"] else out / "00"
    assert checkpoint.load_checkpoint(run / "checkpoint.pt").progress.loader["epoch"] == 2  # saved before it is printed
    assert run == out or [path.name for path in out.iterdir()] == ["00"]


def test_the_table_is_shown_while_bands_are_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    monkeypatch.setattr(progress, "LOG_REFRESH", 0.3)
    run = tmp_path / "00"
    with progress.ProgressBoard({"00": run, "01": tmp_path / "01"}, 4, StopRequest(), tmp_path / "stop"):
        run.mkdir()
        for loss in (2.5, 1.5):  # shown again when it has changed
            (run / "steps.jsonl").write_text(f'{{"loss": {loss}}}\n')
            row = f"  00        0/4    {loss:.3f}"
            wait_for(lambda row=row: row in out.getvalue())
    assert out.getvalue().count("training") == 2
    assert out.getvalue().splitlines()[-1] == "0 of 2 networks done"


def test_a_table_that_cannot_be_shown_hides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(text: str) -> int:
        raise OSError(5, "Input/output error")

    out = io.StringIO()
    monkeypatch.setattr(out, "write", gone)
    monkeypatch.setattr(sys, "stderr", out)
    with (
        pytest.raises(KeyboardInterrupt),
        progress.ProgressBoard({"00": tmp_path / "00"}, 4, StopRequest(), tmp_path / "stop"),
    ):
        raise KeyboardInterrupt
