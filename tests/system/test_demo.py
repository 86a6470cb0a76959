import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.pictures import class_folders
from support.splits import ROOT

QUICK = ("--epochs", "1", "--size", "16")


def demo(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "examples" / "demo.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=2400)


@pytest.mark.slow
def test_the_ensemble_beats_its_best_member_and_one_network(tmp_path: Path) -> None:
    pytest.importorskip("skimage")
    done = demo("--out", tmp_path / "demo")
    assert done.returncode == 0, done.stdout + done.stderr
    *_, verdict, _, _, page = done.stdout.splitlines()
    fused, best, one = (float(text) for text in re.findall(r"([\d.]+)%", verdict))
    assert verdict.startswith(f"ensemble {fused}%, its best member {best}%, one network on whole images")
    assert fused > best > 70
    assert fused > one > 70
    assert page == f"{tmp_path}/demo/report.html"
    for name in ("preview.png", "report.html", "runs/ensemble.png", "runs/ensemble.md"):
        assert (tmp_path / "demo" / name).stat().st_size > 100


@pytest.mark.slow
def test_own_images(photos: Path, tmp_path: Path) -> None:
    done = demo(*QUICK, "--data", photos, "--out", tmp_path / "demo")
    assert done.returncode == 0, done.stdout + done.stderr
    assert " of 4 members: top-1 " in done.stdout
    few = class_folders(tmp_path / "few", {"a": 3, "b": 3})
    again = demo(*QUICK, "--data", few, "--out", tmp_path / "demo")
    assert "too few images a class" in again.stderr
    assert "was not made by this demo" in demo(*QUICK, "--data", few, "--out", few).stderr
