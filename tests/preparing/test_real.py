"""The promises of docs/results.md on real photographs; skipped where they are not there."""

from pathlib import Path

import pytest

from spectral_shards.preprocess.inspection.fidelity import fidelity
from spectral_shards.preprocess.inspection.verify import verify
from support.programs import program
from support.splits import make_split

LIMITS = {
    (36, "dct"): 0.80,
    (36, "dct2"): 0.70,
    (16, "dct"): 0.45,
    (16, "dct2"): 0.45,
    (4, "dct"): 0.45,
    (4, "dct2"): 0.45,
}


@pytest.mark.slow
@pytest.mark.parametrize(("factor", "transform"), LIMITS)
def test_size_and_fidelity(factor: int, transform: str, shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "imagenet-sample"
    out = make_split(source, tmp_path / "out", jobs=2, factor=factor, transform=transform, val_per_class=0)
    assert verify(str(out), 2).bad == []
    stored = sum(path.stat().st_size for path in out.rglob("*.tar"))
    original = sum(path.stat().st_size for path in source.rglob("*.JPEG"))
    assert stored / original <= LIMITS[factor, transform]
    found = fidelity(out, source, 40)
    assert found.psnr.mean() >= 41
    assert not found.bad


@pytest.mark.slow
def test_tars_of_tiny_imagenet(shared_data: Path, tmp_path: Path) -> None:
    done = program(
        "spectral-prep",
        "split",
        "--factor",
        "4",
        "--size",
        "32",
        "--limit",
        "3000",
        shared_data / "tiny-imagenet-50",
        "--out",
        tmp_path / "sub4",
    )
    assert done.returncode == 0, done.stderr
    assert "4 bands of 3000 train, 2500 val samples" in done.stdout
    assert verify(str(tmp_path / "sub4"), 2).bad == []
