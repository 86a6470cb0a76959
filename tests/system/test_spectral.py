"""The program `spectral`, and what all commands have in common: help, hints, --json, --quiet, completion."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from spectral_shards.cli import cli
from spectral_shards.preprocess.cli import cli as prepare
from spectral_shards.shards_manifest.runtime.cli_runner import EXAMPLES
from support.programs import fails, program

COMMANDS = ("split", "info", "verify", "preview", "train", "ensemble", "report")


def test_one_command_holds_all() -> None:
    assert {*COMMANDS, "completion"} == set(cli.commands)
    shown = program("spectral", "--help").stdout
    for name in COMMANDS:
        assert f"\n  {name} " in shown
        done = program("spectral", name, "--help")
        assert done.returncode == 0
        assert done.stdout.startswith(f"Usage: spectral {name} [OPTIONS]")
    assert set(prepare.commands) == {"split", "info", "verify", "preview"}


@pytest.mark.parametrize("command", [("split",), ("verify",), ("train",), ("ensemble",), ("report",), ()])
def test_help_fits_its_width_and_names_exit_codes(command: tuple[str, ...]) -> None:
    wide = program("spectral", *command, "--help", env={"COLUMNS": "200"}).stdout
    assert max(map(len, wide.splitlines())) <= 100
    if command not in (("split",), ("verify",)):  # the help of their program holds the codes
        assert "Exit codes: 0 done" in wide
    narrow = program("spectral", *command, "--help", env={"COLUMNS": "60"}).stdout
    texts = [line for line in narrow.splitlines() if line.startswith((10 * " ", "  -"))]
    assert max(len(line) for line in texts if "|" not in line) <= 60  # lists of choices are not broken


@pytest.mark.parametrize("command", [*COMMANDS, "completion"])
def test_what_is_missing_is_said_with_an_example(command: str) -> None:
    done = program("spectral", command)
    assert done.returncode == 2
    assert f". For example: spectral {command} {EXAMPLES[command]}" in done.stderr.splitlines()[-1]
    context = cli.commands[command].make_context(command, EXAMPLES[command].split())  # nothing is missing there
    assert context.params


def test_options_stand_in_groups() -> None:
    shown = program("spectral", "split", "--help").stdout
    titles = [line for line in shown.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert titles[:-1] == [
        "Bands:",
        "Images:",
        "Parts and classes:",
        "What is stored:",
        "The source:",
        "Where the work is done:",
        "Other options:",
    ]
    assert "Device:" in program("spectral", "train", "--help").stdout.splitlines()


@pytest.mark.parametrize(
    ("command", "hint"),
    [
        (("splt",), "Did you mean 'split'?"),
        (("split", "--facter", "4", "x"), "--factor"),
        (("split", "--factor", "4", "--color", "ycbrc", "x"), "; did you mean 'ycbcr'?"),
        (("train", "--shards", "x", "--network", "resnet43"), "; did you mean 'resnet34'?"),
    ],
)
def test_a_mistyped_word_is_asked_about(command: tuple[str, ...], hint: str) -> None:
    assert hint in fails("spectral", *command)


def test_a_mistyped_recipe_or_set_of_bands_is_asked_about(sub4: Path) -> None:
    train = ("spectral", "train", "--shards", sub4)
    assert fails(*train, "--recipe", "imagenet21").endswith("; did you mean 'imagenet21k'?")
    assert fails(*train, "--bands", "stak").endswith("; did you mean 'stack'?")
    assert "did you mean" not in fails(*train, "--bands", "9")


def test_json_for_scripts(sub4: Path, runs: Path, tmp_path: Path) -> None:
    def printed(*arguments: str | Path) -> dict[str, object]:
        done = program("spectral", *arguments, "--json")
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert isinstance(found, dict)
        return found

    assert printed("info", sub4) == json.loads((sub4 / "manifest.json").read_text())
    assert printed("info", sub4 / "02") == json.loads((sub4 / "02" / "manifest.json").read_text())
    checked = printed("verify", sub4)
    assert (checked["bad"], checked["compared"]) == ([], None)
    small = ("train", "--shards", sub4, "--network", "cnn", "--recipe", "quick")
    profile = printed(*small, "--bands", "0-1,stack", "--describe")
    assert [kind["networks"] for kind in profile["kinds"]] == [2, 1]  # type: ignore[attr-defined]
    total = sum(kind["networks"] * kind["multiply_adds"] for kind in profile["kinds"])  # type: ignore[attr-defined]
    assert profile["multiply_adds"] == total
    first = printed(*small, "--budget", "1")["ways"][0]  # type: ignore[index]
    assert [each["command"].split(" --bands ")[1] for each in first] == [
        "stackx2 --width 0.98 --recipe quick",
        "stackx2 --inputs image --width 0.49 --recipe quick",
    ]
    score = printed("train", "--shards", sub4, "--evaluate", runs / "00" / "checkpoint.pt")
    assert score["top1"] == json.loads((runs / "00" / "run.json").read_text())["result"]["top1"]
    report = printed("ensemble", runs, "--out", tmp_path)
    assert report == json.loads((tmp_path / "ensemble.json").read_text())
    assert "--json belongs to" in fails("spectral", *small, "--json")


def test_json_names_what_is_damaged(sub4: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(sub4, tmp_path / "sub4")
    (copy / "02" / "val-000000.tar").unlink()
    done = program("spectral", "verify", copy, "--json")
    assert done.returncode == 1
    assert any("val-000000.tar is missing" in sentence for sentence in json.loads(done.stdout)["bad"])


def test_quiet_leaves_the_result(photos: Path, runs: Path, tmp_path: Path) -> None:
    def lines(*arguments: str | Path) -> list[str]:
        done = program("spectral", *arguments, "--quiet", cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.splitlines()

    split = lines("split", photos, "--factor", "4", "--size", "16")
    assert len(split) == 1
    assert split[0].startswith("sub4: 4 bands of ")
    assert [line.endswith("all good") for line in lines("verify", "sub4")] == [True]
    small = ("--network", "cnn", "--recipe", "quick", "--epochs", "1", "--batch-size", "16", "--bands", "0,1")
    for jobs in ("1", "2"):
        trained = lines("train", "--shards", "sub4", *small, "--jobs", jobs, "--out", f"runs{jobs}")
        assert [line.split(":")[0].split(" took")[0] for line in sorted(trained)] == [
            f"runs{jobs}/00",
            f"runs{jobs}/01",
        ]
    fused = lines("ensemble", "runs1")
    assert [line.startswith("ensemble of ") for line in fused] == [True]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str) -> None:
    script = program("spectral", "completion", shell)
    assert script.returncode == 0
    assert "_SPECTRAL_COMPLETE" in script.stdout
    found = completed("spectral", "train", "--resi")
    assert found == ["--resident"]
    assert completed("spectral", "train", "--resident", "m") == ["memory"]
    assert completed("spectral", "s") == ["split"]


def completed(*words: str) -> list[str]:
    """Return what bash is offered for the last word."""
    environment = {
        **os.environ,
        "COMP_WORDS": " ".join(words),
        "COMP_CWORD": str(len(words) - 1),
        "_SPECTRAL_COMPLETE": "bash_complete",
    }
    done = subprocess.run(
        [str(Path(sys.executable).with_name("spectral"))], env=environment, capture_output=True, text=True, check=True
    )
    return [line.split(",")[1] for line in done.stdout.splitlines()]
