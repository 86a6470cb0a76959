"""Ctrl-C, SIGTERM and kills of the process that others belong to: what ends, when, and what it leaves."""

import itertools
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from spectral_shards.shards_manifest.storage.base import TEMPORARY
from spectral_shards.train.data.loader import BandLoader
from spectral_shards.train.data.stream import Batch
from spectral_shards.train.engine.trainer import train_network
from spectral_shards.train.runs import checkpoint
from spectral_shards.train.shutdown import StopRequest
from support.buckets import WebServer, wait_for
from support.slow_runs import alive, close, command, lines, train, under_way
from support.trainings import quick


def shared() -> set[str]:
    """What is in shared memory, but for what other tests may have there meanwhile."""
    return {name for name in os.listdir("/dev/shm") if "loky" not in name and "joblib" not in name}


@pytest.mark.parametrize(
    ("workers", "number", "code"), [(0, signal.SIGINT, 130), (2, signal.SIGINT, 130), (1, signal.SIGTERM, 143)]
)
def test_a_signal_ends_it_after_a_checkpoint_and_leaves_nothing(
    workers: int, number: signal.Signals, code: int, sub4: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    before = shared()
    restart = () if workers else ("--no-resume",)
    with under_way(sub4 / "01", tmp_path / "run", workers, "--save-every", "60", *restart) as process:
        if number == signal.SIGINT:
            os.killpg(process.pid, number)  # as a terminal does
        else:
            process.send_signal(number)  # as a batch system does
        _, said = process.communicate(timeout=60)  # two seconds on a machine that does nothing else
        assert process.returncode == code
        goes_on = "Interrupted: run the same command again to go on"
        assert said.splitlines()[-1] == goes_on + (", without --no-resume" if restart else "")
        assert "Traceback" not in said
        progress = checkpoint.load_checkpoint(tmp_path / "run" / "checkpoint.pt").progress
        assert progress.loader["samples"] > 0
        assert lines(tmp_path / "run", "steps.jsonl")[-1]["samples"] == progress.loader["samples"]
        wait_for(lambda: not alive(process.pid), 60)
    assert shared() <= before
    assert not [path.name for path in (tmp_path / "run").iterdir() if path.name.endswith(TEMPORARY)]
    assert "going on after" in train(sub4 / "01", tmp_path / "run", 1)
    weights = [
        checkpoint.load_checkpoint(run / "checkpoint.pt").state["network"] for run in (uninterrupted, tmp_path / "run")
    ]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())


def test_a_second_signal_ends_it_at_once_but_for_an_echo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = StopRequest(tmp_path / "stop")
    with found.catching_signals(), found.deferred():
        (tmp_path / "stop").touch()
        assert found.requested
        for _ in range(3):  # torchrun and `timeout` pass on what all of a group have had already
            os.kill(os.getpid(), signal.SIGTERM)
        monkeypatch.setattr("spectral_shards.train.shutdown.REPEAT_SECONDS", 0.0)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    outside = StopRequest()
    with outside.catching_signals(), pytest.raises(SystemExit, match="143"):
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.slow
def test_two_ranks_agree_on_where_to_stop(sub4: Path, uninterrupted: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with under_way(sub4 / "01", run, 0, "--save-every", "60", ranks=2) as process:
        process.terminate()  # torchrun hands it on
        process.communicate(timeout=60)
    assert checkpoint.load_checkpoint(run / "checkpoint.pt").progress.loader["samples"] > 0
    assert not (run / "run.json").exists()
    assert "going on after" in train(sub4 / "01", run, 2)
    close(run, uninterrupted, exactly=False, curves=("metrics.jsonl",))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_an_evaluation_costs_no_epoch(
    number: signal.Signals, sub4: Path, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLOW_VAL", "1")
    run = tmp_path / "run"
    whole_epoch = command(sub4 / "01", run, 1, 0, ("--save-every", "60"))
    process = subprocess.Popen(whole_epoch, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    while "evaluating" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert "Traceback" not in said
    assert checkpoint.load_checkpoint(run / "checkpoint.pt").progress.loader == {"seed": 0, "epoch": 0, "samples": 80}
    monkeypatch.delenv("SLOW_VAL")
    (run / "metrics.jsonl").write_text('{"epoch": 1, "samples": 80}\n')  # as a kill after the line leaves it
    train(sub4 / "01", run, 1)
    close(run, uninterrupted, exactly=True)
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
    options = ("--save-every", "60", "--resident", "off")
    with under_way(f"{web.url}/01", tmp_path / "run", workers, *options) as process:
        web.silent.set()
        time.sleep(3)  # what was fetched ahead is used up
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
        assert said.splitlines()[-1] == "Interrupted: run the same command again to go on"
        assert "Traceback" not in said
        assert checkpoint.load_checkpoint(tmp_path / "run" / "checkpoint.pt").progress.loader["samples"] > 0
        wait_for(lambda: not alive(process.pid), 60)


@pytest.mark.slow
def test_a_silent_server_is_left_when_it_is_first_asked_or_the_parent_is_killed(
    web: WebServer, tmp_path: Path, sub4: Path
) -> None:
    with under_way(f"{web.url}/01", tmp_path / "run", 1, "--resident", "off") as process:
        web.silent.set()
        time.sleep(3)
        process.kill()
        wait_for(lambda: not alive(process.pid), 60)
    process = subprocess.Popen(command(f"{web.url}/01", tmp_path / "other", 1), stderr=subprocess.PIPE, text=True)
    time.sleep(6)  # it has begun, and waits for its first shard
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Traceback" not in said


def test_a_signal_between_a_batch_and_its_step_loses_neither(
    sub4: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = train_network(str(sub4 / "01"), tmp_path / "whole", quick(), quiet=True)
    report, taken = BandLoader._report, itertools.count()

    def interrupted(loader: BandLoader, batch: Batch) -> None:
        report(loader, batch)
        if next(taken) == 2:  # the loader has counted the batch and what it lacks, and no step has had it yet
            loader.lost += 5
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(BandLoader, "_report", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_network(str(sub4 / "01"), tmp_path / "run", quick(), quiet=True)
    assert checkpoint.load_checkpoint(tmp_path / "run" / "checkpoint.pt").progress.loader["samples"] == 32
    monkeypatch.undo()
    found = train_network(str(sub4 / "01"), tmp_path / "run", quick(), quiet=True)
    assert (found.loss, found.train_top1) == (wanted.loss, wanted.train_top1)
    assert [line["lost"] for line in lines(tmp_path / "run", "metrics.jsonl")] == [0, 0]
    logits = [(tmp_path / name / "val-logits.npy").read_bytes() for name in ("whole", "run")]
    assert logits[0] == logits[1]
