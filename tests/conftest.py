"""Images made by script, small splits of them, and the real data where it is there."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, settings

from support.buckets import Server
from support.clusters import dask_cluster, ray_cluster
from support.forms import OPTIONS, WNIDS
from support.pictures import class_folders
from support.programs import program
from support.splits import SHARED, SUB4, make_split, split_of

# a loaded machine is slow, which is no fault of what is tested
settings.register_profile("any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any-machine")

# tests compare exact values, which a GPU rounds in another way: whatever is here, they run on the CPU
os.environ["CUDA_VISIBLE_DEVICES"] = ""
# tests run side by side, so each of them, and each program that it starts, computes with one thread
os.environ["OMP_NUM_THREADS"] = "1"
# so that programs and workers that tests start find tests/support
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files with slow tests first: processes that share files out end together if the last ones are short."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session", autouse=True)
def temporary_files() -> Iterator[None]:
    """Programs that are killed leave files behind: all of them go into one folder. Sockets there need a short path."""
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        patch.setenv("TMPDIR", folder)
        patch.setattr(tempfile, "tempdir", folder)
        yield


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variables of object storage, no proxies, an empty home."""
    for name in os.environ:
        if name.startswith(("AWS_", "GOOGLE_", "AZURE_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SPECTRAL_RETRY_SECONDS", "2")


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of 40, 31 and 25 JPEGs."""
    root = class_folders(tmp_path_factory.mktemp("photos") / "photos", {"ant": 40, "bee": 31, "cat": 25})
    for path in (*root.rglob("*"), root):
        os.utime(path, (1_700_000_000, 1_700_000_000))  # what has just been changed is scanned in another way
    return root


@pytest.fixture(scope="session")
def sub4(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A split of `photos` into four bands of 12x12 planes, dct2, with a val part. Not to be changed."""
    return make_split(photos, tmp_path_factory.mktemp("splits") / "sub4", **SUB4)


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes by wnid, to be made into other forms of source. Not to be changed."""
    return class_folders(tmp_path_factory.mktemp("folders") / "set", dict(zip(WNIDS, (6, 7, 5), strict=True)))


@pytest.fixture(scope="session")
def wanted(folders: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What every form of `folders` has to be split to."""
    return split_of(make_split(folders, tmp_path_factory.mktemp("wanted") / "out", **OPTIONS))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real images beside the project."""
    if not SHARED.is_dir():
        pytest.skip("the real images (../shared/data) are not here")
    return SHARED


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real S3 server with an empty bucket."""
    folder = tmp_path_factory.mktemp("weed") / "data"
    folder.mkdir()
    server = Server(folder)
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="session")
def dask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """A Dask cluster of two workers: its address, and the process that watches over them."""
    with dask_cluster(tmp_path_factory.mktemp("dask")) as found:
        yield found


@pytest.fixture(scope="session")
def ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """A Ray cluster of two workers: its address, and the head's process."""
    with ray_cluster(tmp_path_factory.mktemp("ray")) as found:
        yield found


@pytest.fixture(scope="session")
def runs(sub4: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All four bands trained by the program. Not to be changed."""
    from support.trainings import QUICK  # needs torch

    root = tmp_path_factory.mktemp("trained")
    done = program("spectral-train", "--shards", sub4, "--bands", "all", *QUICK, cwd=root)
    assert done.returncode == 0, done.stderr
    assert "all 4 networks are in runs/sub4: fuse them with spectral ensemble runs/sub4" in done.stdout
    return root / "runs" / "sub4"


@pytest.fixture(scope="session")
def uninterrupted(sub4: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slow run of band 01 in one process. Not to be changed."""
    from support.slow_runs import train  # needs torch

    out = tmp_path_factory.mktemp("uninterrupted") / "run"
    train(sub4 / "01", out, 1)
    return out
