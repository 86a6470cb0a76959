import subprocess
import sys

import pytest

import shards_manifest

HEAVY = {"torch", "torchvision", "webdataset", "matplotlib", "train", "pyarrow", "scipy"}


def loaded(code: str) -> set[str]:
    """Top-level packages that a fresh interpreter has after running `code`."""
    show = f"{code}\nimport sys\nprint(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.splitlines()[-1].split()}


@pytest.mark.parametrize("module", ["blocks", "cli", "estimate", "info", "preview", "run", "verify"])
def test_preparing_never_loads_torch_or_training(module: str) -> None:
    assert not loaded(f"import preprocess.{module}") & HEAVY


def test_the_contract_loads_neither_program() -> None:
    found = loaded("import shards_manifest, shards_manifest.console, shards_manifest.tables")
    assert not found & (HEAVY | {"preprocess", "PIL", "joblib"})


def test_training_never_loads_preparing() -> None:
    found = loaded("import train.loop, train.ensemble, train.report, train.cli, train.ensemble_cli")
    assert not found & {"preprocess", "PIL.JpegImagePlugin", "simplejpeg", "joblib"}


@pytest.mark.parametrize("module", ["preprocess.cli", "train.cli", "train.ensemble_cli"])
def test_help_is_light(module: str) -> None:
    code = (
        f"from click.testing import CliRunner\nfrom {module} import cli\n"
        "assert CliRunner().invoke(cli, ['--help']).exit_code == 0"
    )
    assert not loaded(code) & (HEAVY - {"train"} | {"joblib", "PIL", "simplejpeg"})


def test_the_public_surface_is_sorted_and_there() -> None:
    names = shards_manifest.__all__
    assert names == sorted(names, key=lambda name: (not name.isupper(), not name[0].isupper(), name))
    assert all(hasattr(shards_manifest, name) for name in names)
