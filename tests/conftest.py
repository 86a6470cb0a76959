"""Images made by script, small splits of them, and the real data where it is there."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from buckets import Server
from clusters import dask_cluster, ray_cluster
from forms import OPTIONS, WNIDS
from numpy.typing import NDArray
from PIL import Image

from preprocess.plan import SplitPlan
from preprocess.run import prepare, split
from shards_manifest.backend import Backend

ROOT = Path(__file__).parents[1]
SUB4 = {
    "factor": 4,
    "size": 24,
    "transform": "dct2",
    "samples_per_block": 8,
    "samples_per_shard": 24,
    "val_per_class": 5,
}
SHARED = ROOT.parent / "shared" / "data"


def picture(seed: int, height: int = 90, width: int = 120) -> NDArray[np.uint8]:
    """A smooth coloured picture with an edge and a little noise: uint8 (height, width, 3)."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / 40
    waves = [np.sin(x * random.uniform(0.5, 3) + y * random.uniform(0.5, 3) + random.uniform(0, 6)) for _ in range(3)]
    pixels = 128 + 80 * np.stack(waves, -1)
    pixels[:, width // 2 :] -= 30 * random.uniform(-1, 1)
    return np.clip(pixels + random.normal(0, 4, pixels.shape), 0, 255).astype(np.uint8)


def encode(pixels: NDArray[np.uint8], kind: str = "JPEG", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def class_folders(root: Path, counts: dict[str, int], seed: int = 0) -> Path:
    """An ImageFolder of JPEGs. Classes differ in their pictures' frequencies, so that they can be learned."""
    for number, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        for i in range(count):
            pixels = picture(seed + 1000 * number + i)
            pixels[::, :, number % 3] //= 2
            (root / name / f"{name}_{i:03d}.JPEG").write_bytes(encode(pixels, quality=90))
    return root


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by relative name."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def split_of(out: Path) -> dict[str, bytes]:
    """Shards, tables and rejects of a split: all but what says where it came from."""
    return {name: data for name, data in tree(out).items() if not name.endswith(("plan.json", "scan.bin", "t.json"))}


def make_split(source: Path | str, out: Path, jobs: int = 1, **options: object) -> Path:
    """Split through the library."""
    split(prepare(source, SplitPlan(**options)), out, Backend(jobs=jobs))  # type: ignore[arg-type]
    return out


def program(*arguments: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
    """Run an installed program as a user does."""
    name, *rest = map(str, arguments)
    path = Path(sys.executable).with_name(name)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        [str(path), *rest], capture_output=True, text=True, timeout=300, env=environment, **options
    )


def fails(*arguments: str | Path, **options: object) -> str:
    """Run a program that must refuse: exit code 2, one sentence, no traceback. Returns the sentence."""
    done = program(*arguments, **options)
    lines = [line for line in done.stderr.splitlines() if line and "|" not in line and not line.startswith("Usage")]
    assert done.returncode == 2, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    sentence = lines[-1]
    assert sentence.startswith("Error: ")
    return sentence


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


def splits(url: str, out: Path) -> dict[str, bytes]:
    """The split of what lies at a URL."""
    return split_of(make_split(url, out, **OPTIONS))


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
        server.stop()


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
    from trainings import QUICK  # needs torch

    root = tmp_path_factory.mktemp("trained")
    done = program("spectral-train", "--shards", sub4, *QUICK, cwd=root)
    assert done.returncode == 0, done.stderr
    assert "all 4 bands are in runs/sub4: fuse them with spectral-ensemble runs/sub4" in done.stdout
    return root / "runs" / "sub4"


@pytest.fixture(scope="session")
def uninterrupted(sub4: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slow run of band 01 in one process. Not to be changed."""
    from slow_runs import train  # needs torch

    out = tmp_path_factory.mktemp("uninterrupted") / "run"
    train(sub4 / "01", out, 1)
    return out
