"""The study: its list can be read, and the tables in the documents are those of its records."""

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest

from spectral_shards.shards_manifest.dataset import open_bands
from spectral_shards.train.launch.budget import Cost, two_kinds
from spectral_shards.train.recipes import load
from support.splits import ROOT

sys.path.insert(0, str(ROOT / "benchmarks" / "study"))

import render
from experiments import TIMES, load_study
from times import kinds

STUDY = ROOT / "benchmarks" / "study"


def test_the_tables_are_those_of_the_records() -> None:
    done = subprocess.run([sys.executable, str(STUDY / "render.py"), "--check"], capture_output=True, text=True)
    assert done.returncode == 0, f"run benchmarks/study/render.py: {done.stderr}"


def test_every_record_belongs_to_an_experiment() -> None:
    study = load_study()
    names = {
        f"{data.name}-{experiment.name}-{seed}.json"
        for experiment in study.experiments
        for data in study.data.values()
        for seed in study.seeds(experiment, data)
    }
    assert {path.name for path in (STUDY / "records").glob("*")} <= names


def test_every_kind_of_network_is_timed() -> None:
    study, timed = load_study(), json.loads(TIMES.read_text())["ratios"]
    wanted = {data.name: set(kinds(study, data)) for data in study.data.values()}
    assert {name: set(ratios) for name, ratios in timed.items()} == wanted


def test_a_network_that_is_not_timed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "times.json"
    path.write_text('{"ratios": {"cifar10": {"whole 00 --random-shift 2": [1.0]}}}')
    monkeypatch.setattr(render, "TIMES", path)
    study = load_study()
    with pytest.raises(click.ClickException, match=r"no time of sub4 .* on cifar10: run benchmarks/study/times.py"):
        render.rows_of(study, study.data["cifar10"], "cost")


@pytest.mark.parametrize(("name", "budget"), [("channels-x2-image-half-x2", 1.0), ("quarter-pair", 0.25)])
def test_what_a_budget_suggests_is_what_was_measured(name: str, budget: float, sub4: Path) -> None:
    experiment = next(each for each in load_study().experiments if each.name == name)
    measured = [" ".join(("--bands", group.bands, *group.train)) for group in experiment.groups]
    cost = Cost("cnn", load("quick"), 0.95)
    assert [each.command_options for each in two_kinds(open_bands(sub4).each, cost, budget)] == measured


def test_a_list_that_contradicts_itself(tmp_path: Path) -> None:
    text = (STUDY / "experiments.toml").read_text()
    for before, after, why in (
        ('split = "sub16"', 'split = "sub9"', "names unknown splits: sub9"),
        ('name = "published"', 'name = "channels"', "names channels twice"),
        ('only = ["baseline"', 'only = ["basis"', "tiny-all names unknown experiments: basis"),
    ):
        path = tmp_path / "experiments.toml"
        path.write_text(text.replace(before, after))
        with pytest.raises(ValueError, match=why):
            load_study(path)
