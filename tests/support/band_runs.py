"""Runs of several bands, and what they leave."""

import shutil
from pathlib import Path

import numpy as np

from support.programs import program
from support.trainings import QUICK

BANDS = ["00", "01", "02", "03"]


def results(runs: Path) -> dict[str, bytes]:
    """The outputs on val of every finished band."""
    return {run.parent.name: run.with_name("val-logits.npy").read_bytes() for run in sorted(runs.glob("*/run.json"))}


def fails_alone(sub4: Path, folder: Path, *options: str) -> dict[str, bytes]:
    """Train a split one of whose bands lacks a shard, then mend it and train the rest; the first outputs."""
    split = Path(shutil.copytree(sub4, folder / "sub4"))
    (split / "01" / "train-000002.tar").rename(folder / "away")
    command = ("spectral-train", "--shards", split, "--bands", "all", *QUICK, "--out", folder / "runs", *options)
    done = program(*command)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert f"{folder}/runs/01 failed: {split}/01/train-000002.tar is missing: copy the band again" in done.stderr
    last = (
        "Error: 1 of 4 networks failed (01): mend what is said above, and run the same command again to train what is "
        "missing"
    )
    assert done.stderr.splitlines()[-1] == last
    assert "3 of 4 networks done, 1 failed" in done.stderr.splitlines()
    found = results(folder / "runs")
    assert sorted(found) == ["00", "02", "03"]

    (folder / "away").rename(split / "01" / "train-000002.tar")
    again = program(*command)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("is finished: top-1 ") == 3
    logits = [np.load(folder / "runs" / band / "val-logits.npy") for band in BANDS]
    assert all(each.shape == (15, 3) for each in logits)
    assert f"all 4 networks are in {folder}/runs" in again.stdout
    return found
