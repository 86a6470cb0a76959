"""What is imported by what: light where it has to be, and in one direction."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import spectral_shards

PREPARING = ("commands", "inspection.info", "inspection.preview", "inspection.verify", "split.estimate", "split.job")
HEAVY = {"torch", "torchvision", "webdataset", "matplotlib", "pyarrow", "scipy"}
OURS = "spectral_shards"


def loaded(code: str) -> set[str]:
    """Top-level packages, and our own as PACKAGE.FOLDER, that a fresh interpreter has after running `code`."""
    show = f"{code}\nimport sys\nprint(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True)
    names = done.stdout.splitlines()[-1].split()
    return {".".join(name.split(".")[: 2 if name.startswith(f"{OURS}.") else 1]) for name in names}


@pytest.mark.parametrize("module", PREPARING)
def test_preparing_never_loads_torch_or_training(module: str) -> None:
    found = loaded(f"import {OURS}.preprocess.{module}")
    assert f"{OURS}.preprocess" in found
    assert not found & {*HEAVY, f"{OURS}.train"}


def test_the_contract_loads_neither_program_nor_clients() -> None:
    found = loaded(
        f"from {OURS}.shards_manifest import dataset, tables\n"
        f"from {OURS}.shards_manifest.runtime import cli_runner, executors"
    )
    assert not found & {*HEAVY, f"{OURS}.preprocess", f"{OURS}.train", "PIL", "joblib", "obstore"}


def test_training_never_loads_preparing() -> None:
    found = loaded(f"from {OURS}.train import cli, ensemble_cli\nfrom {OURS}.train.engine import trainer")
    assert "torch" in found
    assert not found & {f"{OURS}.preprocess", "simplejpeg", "joblib"}
    found = loaded(f"import {OURS}.train.commands")
    assert "torch" in found
    assert not found & {f"{OURS}.preprocess", "simplejpeg", "matplotlib"}


@pytest.mark.parametrize("module", ["preprocess.cli", "train.cli", "train.ensemble_cli"])
def test_help_is_light(module: str) -> None:
    code = (
        f"from click.testing import CliRunner\nfrom {OURS}.{module} import cli\n"
        "assert CliRunner().invoke(cli, ['--help']).exit_code == 0"
    )
    assert not loaded(code) & {*HEAVY, "joblib", "PIL", "simplejpeg", "obstore"}


def test_the_public_surface_is_sorted_typed_and_there() -> None:
    names = spectral_shards.__all__
    assert names == sorted(names)
    assert set(names) == set(spectral_shards._HOME)
    assert set(names) <= set(dir(spectral_shards))
    for name in names:
        module = f"{OURS}.{spectral_shards._HOME[name]}"
        assert getattr(spectral_shards, name).__module__ == module  # its home, and no way through others
    with pytest.raises(AttributeError, match="has no attribute 'open_bucket'"):
        spectral_shards.open_bucket  # noqa: B018
    source = ast.parse(Path(spectral_shards.__file__ or "").read_text())
    typed = {
        alias.name: f"{node.module}"
        for block in source.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert typed == spectral_shards._HOME


def test_the_public_surface_is_loaded_when_it_is_used() -> None:
    assert loaded(f"import {OURS}") & {*HEAVY, "numpy", f"{OURS}.train"} == set()
    assert not loaded(f"from {OURS} import open_split, reconstruct_images") & {*HEAVY, f"{OURS}.train"}
