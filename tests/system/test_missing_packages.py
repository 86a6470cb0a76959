"""The programs where packages of the extra `train` are not installed, as after `pip install .` alone."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BLOCKED = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {packages!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocked())
from spectral_shards.train.{module} import main
main()
"""


def run_without(packages: set[str], module: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a program in a process that cannot import some packages."""
    code = BLOCKED.format(packages=packages, module=module)
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


SENTENCE = "Error: the package {} is not installed: pip install 'spectral-shards[train]'\n"


@pytest.mark.parametrize(("module", "arguments"), [("cli", ("--shards", "sub4/00")), ("ensemble_cli", ("runs/sub4",))])
def test_without_torch_a_command_is_one_sentence(module: str, arguments: tuple[str, ...]) -> None:
    done = run_without({"torch", "torchvision", "matplotlib"}, module, *arguments)
    assert done.returncode == 2
    assert (done.stdout, done.stderr) == ("", SENTENCE.format("torch"))


def test_packages_that_are_needed_later(runs: Path, sub4: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(runs, tmp_path / "runs"))
    for package, module, arguments in (
        ("torchvision", "cli", ("--shards", sub4 / "00", "--describe")),
        ("matplotlib", "ensemble_cli", (copy,)),
    ):
        done = run_without({package}, module, *arguments)
        assert done.returncode == 2
        assert done.stderr == SENTENCE.format(package)


def test_any_other_missing_module_is_a_fault_of_ours() -> None:
    done = run_without({"tqdm"}, "cli", "--shards", "sub4/00")
    assert done.returncode == 1
    assert done.stderr.endswith("ModuleNotFoundError: No module named 'tqdm'\n")


@pytest.mark.parametrize("module", ["cli", "ensemble_cli"])
def test_help_needs_none_of_them(module: str) -> None:
    done = run_without({"torch", "torchvision", "matplotlib", "tomli", "tomllib"}, module, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Usage: ")
