"""Splits by real clusters of worker processes, started here: the same bytes, also when a worker dies."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from spectral_shards.preprocess.config import SplitConfig
from spectral_shards.preprocess.split.job import prepare
from spectral_shards.preprocess.split.shard_row import write_row
from spectral_shards.shards_manifest.errors import BackendError
from spectral_shards.shards_manifest.runtime.executors import Backend
from spectral_shards.shards_manifest.storage.local import LocalStore
from support.band_runs import fails_alone, results
from support.clusters import BIN, wait_for
from support.programs import fails, program
from support.splits import make_split, tree
from support.trainings import QUICK

OPTIONS = {"factor": 4, "size": 48, "samples_per_shard": 2, "samples_per_block": 2}
ARGUMENTS = [text for name, value in OPTIONS.items() for text in (f"--{name.replace('_', '-')}", str(value))]


@pytest.fixture(scope="module")
def wanted(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The split that every cluster has to make."""
    return tree(make_split(photos, tmp_path_factory.mktemp("local") / "out", **OPTIONS))


def cluster_command(photos: Path, out: Path, backend: str, address: str) -> list[str]:
    return [
        "spectral-prep",
        "split",
        *ARGUMENTS,
        str(photos),
        "--out",
        str(out),
        "--backend",
        backend,
        "--address",
        address,
    ]


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["dask", "ray"])
def test_a_cluster_writes_the_same_bytes_also_when_a_worker_is_killed(
    backend: str,
    photos: Path,
    wanted: dict[str, bytes],
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    address, parent = request.getfixturevalue(backend)
    done = program(*cluster_command(photos, tmp_path / "whole", backend, address), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "whole") == wanted

    out = tmp_path / "killed"
    command = cluster_command(photos, out, backend, address)
    running = subprocess.Popen(
        [str(BIN / command[0]), *command[1:]], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    wait_for(lambda: list(out.glob("rows/train-*.json")) or running.poll() is not None)
    workers = [p for p in psutil.Process(parent).children(recursive=True) if _works(p, backend)]
    assert workers
    workers[0].send_signal(signal.SIGKILL)
    _, errors = running.communicate(timeout=120)
    if running.returncode:  # not survived: then in one sentence
        assert running.returncode == 2, errors
        assert errors.splitlines()[-1].startswith("Error: "), errors
        assert "Traceback" not in errors
        assert "run the same command again" in errors
    again = program(*command)
    assert again.returncode == 0, again.stderr
    assert tree(out) == wanted


def _works(process: psutil.Process, backend: str) -> bool:
    try:
        if backend == "ray":
            return "ray::PoolActor" in " ".join(process.cmdline())  # an agent would take the node with it
        return not process.children() and "resource_tracker" not in " ".join(process.cmdline())
    except psutil.Error:
        return False


@pytest.mark.slow
def test_spark_writes_the_same_bytes(photos: Path, wanted: dict[str, bytes], tmp_path: Path) -> None:
    pytest.importorskip("joblibspark", reason="needs Java and: pip install joblibspark packaging pyspark")
    command = cluster_command(photos, tmp_path / "out", "spark", "local-cluster[2,1,1024]")
    done = program(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "out") == wanted


@pytest.mark.slow
def test_an_error_of_a_cluster_worker_is_one_sentence(
    dask: tuple[str, int], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("precious")
    assert "is not empty" in fails(*cluster_command(photos, tmp_path / "full", "dask", dask[0]))
    job = prepare(photos, SplitConfig(**OPTIONS))  # type: ignore[arg-type]
    task = job.task(job.rows[0])
    task.tools["resizer"] = "Pillow 1.0"
    with pytest.raises(BackendError, match=r"a worker has .* where the run has Pillow 1.0"):
        write_row(task, LocalStore(tmp_path / "out"))


@pytest.mark.parametrize(("backend", "address"), [("dask", "tcp://127.0.0.1:9"), ("ray", "127.0.0.1:9")])
def test_a_cluster_that_is_not_there_is_one_sentence(backend: str, address: str, photos: Path, tmp_path: Path) -> None:
    pytest.importorskip({"dask": "distributed", "ray": "ray"}[backend])
    assert "cannot reach the" in fails(*cluster_command(photos, tmp_path / "out", backend, address))


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["dask", "ray"])
def test_a_cluster_trains_bands_and_one_that_fails_is_that_alone(
    backend: str, sub4: Path, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    cluster = ("--backend", backend, "--address", request.getfixturevalue(backend)[0])
    fails_alone(sub4, tmp_path, *cluster)
    command = ("spectral-train", "--shards", sub4, *QUICK, "--bands", "0+2x2,3", "--out")
    done = program(*command, tmp_path / "sets", *cluster)
    assert done.returncode == 0, done.stderr
    here = program(*command, tmp_path / "here")
    assert here.returncode == 0, here.stderr
    assert results(tmp_path / "sets") == results(tmp_path / "here")
    assert sorted(results(tmp_path / "here")) == ["00+02", "00+02x2", "03"]


@pytest.mark.slow
def test_dask_does_as_many_at_once_as_it_is_told(dask: tuple[str, int]) -> None:
    def span(number: int) -> tuple[int, float, float]:  # within the test: workers do not know this module
        begun = time.time()
        time.sleep(0.2)
        return number, begun, time.time()

    for jobs, together in ((1, False), (2, True)):
        calls = [(number,) for number in range(5)]
        spans = sorted(Backend("dask", dask[0], jobs, isolated=True).each(span, calls, 5), key=lambda one: one[1])
        assert sorted(number for number, *_ in spans) == [0, 1, 2, 3, 4]
        assert any(later[1] < earlier[2] for earlier, later in pairwise(spans)) == together


@pytest.mark.slow
def test_dask_with_one_slot_is_still_another_process() -> None:
    pytest.importorskip("distributed")
    found = list(Backend("dask", jobs=1, isolated=True).each(lambda _: os.getpid(), [(0,), (1,)], 2))
    assert len(found) == 2
    assert os.getpid() not in found


@pytest.mark.slow
def test_threads_of_one_dask_worker_do_not_train() -> None:
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(1, threads_per_worker=2, dashboard_address="127.0.0.1:0") as cluster:
        backend = Backend("dask", cluster.scheduler_address, isolated=True)
        with pytest.raises(BackendError, match="--nthreads 1"):
            list(backend.each(os.getpid, [()], 1))


def test_an_address_needs_a_cluster() -> None:
    with pytest.raises(BackendError, match="--address names a cluster"):
        Backend("loky", "tcp://127.0.0.1:9")
    with pytest.raises(BackendError, match="--backend flink: choose loky"):
        Backend("flink")
