"""The members of an ensemble: runs of any folders."""

import json
import shutil
from pathlib import Path

import pytest

from spectral_shards.train.ensemble.members import find_runs
from spectral_shards.train.ensemble.report import markdown
from spectral_shards.train.ensemble.scoring import fuse_runs, score_ensemble
from spectral_shards.train.errors import EnsembleError
from support.programs import program


def test_runs_of_several_folders(runs: Path, tmp_path: Path) -> None:
    """Members of any mix: run folders, folders of runs; names differ by folder, and the report goes where it should."""
    other = Path(shutil.copytree(runs, tmp_path / "other"))
    everything = find_runs(runs, other)
    assert [run.name for run in everything][:2] == sorted([f"other/{run}" for run in ("00",)] + [f"{runs.name}/00"])
    assert len(everything) == 8
    assert [run.name for run in find_runs(runs / "02", other / "00")] == ["00", "02"]
    with pytest.raises(EnsembleError, match="00 is named twice: name each run once"):
        find_runs(runs, runs / "00")
    done = program("spectral-ensemble", runs / "01", other / "03", "--out", tmp_path / "report")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == [
        "ensemble.json",
        "ensemble.md",
        "ensemble.png",
    ]
    names = [member["name"] for member in json.loads((tmp_path / "report" / "ensemble.json").read_text())["members"]]
    assert names == ["01", "03"]
    assert fuse_runs(runs / "01", other / "03", rank_on="val").rank_on == "val"


def test_a_network_that_is_a_member_twice_is_named(runs: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(runs, tmp_path / "other"))
    report = score_ensemble(find_runs(runs, other / "02"), "val")
    assert report.repeated == {f"{runs.name}/02": "other/02"}
    again = f"{runs.name}/02 is other/02 again. It adds nothing."
    assert f"The same network, of the same data, options and seed: {again}\n" in markdown(report)
    assert score_ensemble(find_runs(runs), "val").repeated == {}
    record = json.loads((other / "02" / "run.json").read_text())
    record["data"]["sha256"] = "0" * 64  # of a split with other steps
    (other / "02" / "run.json").write_text(json.dumps(record))
    assert score_ensemble(find_runs(runs, other / "02"), "val").repeated == {}
