"""Real clusters of worker processes on this machine: two of Dask, two of Ray."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

BIN = Path(sys.executable).parent


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "no success in time"
        time.sleep(0.05)


@contextmanager
def processes(*commands: list[str], log: Path, **environment: str) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Run commands until the end of the block, then end them and all that they started."""
    with log.open("wb") as output:
        started = [
            subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, **environment})
            for command in commands
        ]
        try:
            yield started
        finally:
            family = [p for one in started if psutil.pid_exists(one.pid) for p in _family(one.pid)]
            for process in family:
                process.terminate()
            _, alive = psutil.wait_procs(family, timeout=10)
            for process in alive:
                process.kill()
            for one in started:
                one.wait(10)


def _family(pid: int) -> list[psutil.Process]:
    parent = psutil.Process(pid)
    return [*parent.children(recursive=True), parent]


@contextmanager
def dask_cluster(folder: Path) -> Iterator[tuple[str, int]]:
    """The address of a scheduler with two worker processes, and the process that watches over them."""
    pytest.importorskip("distributed")
    shared = ["--scheduler-file", str(folder / "scheduler.json"), "--no-dashboard"]
    scheduler = [str(BIN / "dask"), "scheduler", "--host", "127.0.0.1", "--port", "0", *shared]
    worker = [str(BIN / "dask"), "worker", "--host", "127.0.0.1", "--nworkers", "2", "--nthreads", "1", *shared]
    worker += ["--local-directory", str(folder)]
    with processes(scheduler, worker, log=folder / "log") as (_, watcher):
        written = folder / "scheduler.json"
        wait_for(lambda: written.exists() and written.read_text().rstrip().endswith("}"))  # not while it is written
        yield json.loads(written.read_text())["address"], watcher.pid


@contextmanager
def ray_cluster(folder: Path) -> Iterator[tuple[str, int]]:
    """The address of a Ray head with two slots, and its process."""
    pytest.importorskip("ray")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    head = [str(BIN / "ray"), "start", "--head", "--block", f"--port={port}", "--node-ip-address=127.0.0.1"]
    head += ["--num-cpus=2", "--include-dashboard=false", "--disable-usage-stats", "--object-store-memory=80000000"]
    niceness = {"RAY_worker_niceness": "0"}  # by default 15: beside other tests its workers would wait
    with processes(head, log=folder / "log", RAY_AUTH_MODE="disabled", **niceness) as (process,):
        address = f"127.0.0.1:{port}"
        wait_for(lambda: b"Ray runtime started" in (folder / "log").read_bytes())
        yield address, process.pid
