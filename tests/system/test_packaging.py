"""A wheel and a source distribution, installed in an environment that has nothing of the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.splits import ROOT

FOLDERS = ("preprocess", "report", "shards_manifest", "train")
BUILD = "import sys; from setuptools import build_meta as b; print(b.build_{}(sys.argv[1]))"


def run(*command: str | Path, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def sources() -> Iterator[str]:
    """What is installed of the checkout, by its path below the import name."""
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".css", ".js", ".py", ".pyi", ".toml"):
                yield f"spectral_shards/{path.relative_to(ROOT)}"
    yield "spectral_shards/__init__.py"
    yield "spectral_shards/__main__.py"
    yield "spectral_shards/cli.py"
    yield "spectral_shards/py.typed"


def files_of(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as file:
        return {name for name in file.namelist() if ".dist-info/" not in name}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files under version control, and no others: what is built leaves nothing in the tree."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in run("git", "ls-files", cwd=ROOT).splitlines():
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    return copy


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-c", BUILD.format("wheel"), out, cwd=checkout)
    return next(out.glob("*.whl"))


def environment(folder: Path, wheel: Path) -> Path:
    """An environment with the wheel, beside the libraries of this one: where its programs are."""
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
    packages = next(folder.glob("lib/python*/site-packages"))
    install = ("--python", folder / "bin" / "python", "install", "--quiet", "--no-deps", "--no-index", wheel)
    run(sys.executable, "-m", "pip", *install, cwd=folder.parent)
    libraries = next(Path(path) for path in sys.path if path.endswith("site-packages"))
    (packages / "libraries.pth").write_text(f"{libraries}\n")  # whose own .pth files, of the checkout, are not read
    found = run(folder / "bin" / "python", "-c", "import spectral_shards as s; print(s.__file__)", cwd=folder.parent)
    assert Path(found.strip()).is_relative_to(packages)
    return folder / "bin"


@pytest.mark.slow
def test_a_wheel_has_all_of_the_packages_and_nothing_else(wheel: Path) -> None:
    found = files_of(wheel)
    compiled = {name for name in found if name.endswith(".so")}
    assert {Path(name).name.partition(".")[0] for name in compiled} == {"_kernel", "_deflate", "_inflate"}
    assert found - compiled == set(sources())


@pytest.mark.slow
def test_a_source_distribution_makes_the_same_wheel(checkout: Path, wheel: Path, tmp_path: Path) -> None:
    run(sys.executable, "-c", BUILD.format("sdist"), tmp_path, cwd=checkout)
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as file:
        file.extractall(tmp_path / "unpacked", filter="data")
    unpacked = next((tmp_path / "unpacked").iterdir())
    run(sys.executable, "-c", BUILD.format("wheel"), tmp_path, cwd=unpacked)
    assert files_of(next(tmp_path.glob("*.whl"))) == files_of(wheel)


@pytest.mark.slow
def test_the_steps_of_the_demo_from_a_wheel(wheel: Path, photos: Path, tmp_path: Path) -> None:
    programs = environment(tmp_path / "env", wheel)
    run(programs / "spectral-prep", "split", "--factor", "4", "--size", "24", photos, "--out", "sub4", cwd=tmp_path)
    assert "all good" in run(programs / "spectral-prep", "verify", "sub4", cwd=tmp_path)
    train = ("--network", "cnn", "--recipe", "quick", "--epochs", "1", "--batch-size", "16")
    run(programs / "spectral-train", "--shards", "sub4", *train, cwd=tmp_path)
    assert " of 4 members: top-1 " in run(programs / "spectral-ensemble", "runs/sub4", cwd=tmp_path)
    script = "from spectral_shards import BandLoader; print(BandLoader('sub4', 'val').samples)"
    assert int(run(programs / "python", "-c", script, cwd=tmp_path)) > 0
