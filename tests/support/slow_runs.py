"""Runs of spectral-train that take long enough to be killed or signalled, and what is compared afterwards."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import psutil
import torch

from spectral_shards.train.runs import checkpoint
from support import warm_start

WITHOUT_NORM = str(Path(__file__).with_name("without_norm.py"))
OPTIONS = ("--network", "cnn", "--recipe", "quick", "--epochs", "3", "--batch-size", "2", "--lr", "0.01")
OPTIONS += ("--save-every", "0", "--random-shift", "1")
OPTIONS += ("--resident", "off")  # what other tests have in memory would be shared, and hide what is damaged here


def lines(run: Path, name: str) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / name).read_text().splitlines()] if (run / name).exists() else []


def command(shards: Path | str, out: Path, ranks: int, workers: int = 0, more: tuple[str, ...] = ()) -> list[str]:
    launcher = [sys.executable]
    if ranks > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    return [*launcher, *script(shards, out, workers, more)]


def script(shards: Path | str, out: Path, workers: int, more: tuple[str, ...]) -> list[str]:
    """The script and its arguments."""
    options = (*OPTIONS, "--workers", str(workers), *more)
    return [WITHOUT_NORM, "--shards", str(shards), "--out", str(out), *options]


def train(shards: Path | str, out: Path, ranks: int, workers: int = 0, more: tuple[str, ...] = ()) -> str:
    if ranks == 1:
        done = warm_start.run(script(shards, out, workers, more), os.environ, None, 240)
    else:
        done = subprocess.run(command(shards, out, ranks, workers, more), capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout


def lines_so_far(run: Path) -> list[str]:
    path = run / "steps.jsonl"
    return path.read_text().splitlines() if path.exists() else []


def killed(
    shards: Path, out: Path, ranks: int, steps: int, workers: int = 0, more: tuple[str, ...] = (), name: str = ""
) -> None:
    """Run until so many lines of the loss have been added, then SIGKILL every process of it.

    name: of the run folder within `out`, where that is of several networks.
    """
    run = out / name
    had = len(lines_so_far(run))
    process = subprocess.Popen(
        command(shards, out, ranks, workers, more),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "SLOW_STEPS": "1"},
    )
    try:
        deadline = time.monotonic() + 120
        while len(lines_so_far(run)) < had + steps and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.002)
        assert process.poll() is None, "the run ended before it could be killed"
    finally:
        for each in (*psutil.Process(process.pid).children(recursive=True), process):
            each.kill()
        process.wait()
    assert not (run / "run.json").exists()


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


def alive(group: int) -> list[psutil.Process]:
    """The processes of a group that have not ended."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


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
    weights = [checkpoint.load_checkpoint(each / "checkpoint.pt").state["network"] for each in (run, other)]
    for name, tensor in weights[0].items():
        same = torch.equal if exactly else lambda a, b: torch.allclose(a, b, rtol=1e-2, atol=1e-3)
        assert same(tensor, weights[1][name]), name
    logits = [np.load(each / "val-logits.npy").astype(np.float32) for each in (run, other)]
    assert np.array_equal(*logits) if exactly else np.allclose(*logits, atol=2e-2)
