"""The study: its list can be read, and the tables in the documents are those of its records."""

import subprocess
import sys
from pathlib import Path

import pytest

from support.splits import ROOT

sys.path.insert(0, str(ROOT / "benchmarks" / "study"))

from experiments import load_study

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
