import shutil
from pathlib import Path

import pytest
from PIL import Image

from support.programs import fails, program


def test_info(sub4: Path) -> None:
    lines = program("spectral-prep", "info", sub4).stdout.splitlines()
    assert lines[0] == f"{sub4}: photos in 4 of 4 bands"
    assert lines[1] == "  planes 3x12x12 int8, ycbcr, from images of 24x24 (squash), transform dct2"
    assert lines[2].startswith("  3 classes, 0 rejects, ")
    assert lines[3].startswith("  train: 81 images of 3 classes, 4 shards a band, order ")
    assert lines[4].startswith("  val: 15 images of 3 classes, 1 shards a band, order ")
    band = program("spectral-prep", "info", sub4 / "02").stdout.splitlines()
    assert band[0] == f"{sub4}/02: band 2 (frequency 1,0) of photos, factor 4"
    assert band[-3].startswith("  Y: step 3.25, mean ")


def test_dry_run_writes_nothing_and_is_close(photos: Path, tmp_path: Path) -> None:
    command = ("spectral-prep", "split", "--factor", "4", "--size", "64", "--val-per-class", "3", photos)
    done = program(*command, "--dry-run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []
    lines = done.stdout.splitlines()
    assert lines[:5] == [
        "photos: class folders",
        "  train: 87 images of 3 classes",
        "  val: 9 images of 3 classes, taken from train",
        "sub4: 4 bands of 3x32x32 int8, nothing written yet",
        "  shards a band: 2 of train, 1 of val",
    ]
    said = float(lines[5].split("about ")[1].split(" kB")[0]) * 1000
    split = program(*command, cwd=tmp_path)
    assert split.returncode == 0
    assert split.stdout.splitlines()[:3] == lines[:3]
    written = sum(path.stat().st_size for path in (tmp_path / "sub4").rglob("*.tar"))
    assert 0.8 < said / written < 1.25


def test_defaults_go_to_the_current_folder(photos: Path, tmp_path: Path) -> None:
    done = program("spectral-prep", "split", "--factor", "4", "--size", "16", "--bands", "0,2", photos, cwd=tmp_path)
    assert done.returncode == 0
    assert sorted(p.name for p in (tmp_path / "sub4").iterdir() if p.is_dir()) == ["00", "02", "rows"]
    done = program("spectral-prep", "preview", "sub4", "--images", "2", cwd=tmp_path)
    assert "rebuilt without the bands 1, 3" in done.stdout
    with Image.open(tmp_path / "preview.png") as sheet:
        assert sheet.width > 600


def test_preview_shows_every_band(sub4: Path, tmp_path: Path) -> None:
    done = program("spectral-prep", "preview", sub4, "--out", tmp_path / "new" / "sheet.png", "--images", "3")
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "new" / "sheet.png") as sheet:
        assert len(sheet.convert("RGB").getcolors(1 << 24)) > 500
    assert "cannot write" in fails("spectral-prep", "preview", sub4, "--out", "/proc/x.png")
    assert "is one band" in fails("spectral-prep", "preview", sub4 / "01")


def test_clipping_is_said(photos: Path, tmp_path: Path) -> None:
    done = program(
        "spectral-prep", "split", "--factor", "36", "--size", "18", "--quant-step", "0.25", photos, cwd=tmp_path
    )
    assert "coefficients were cut to the range of int8: a larger --quant-step avoids it" in done.stdout


def test_a_missing_shard_is_one_sentence(sub4: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(sub4, tmp_path / "sub4")
    (copy / "02" / "val-000000.tar").unlink()
    sentence = fails("spectral-prep", "preview", copy, "--out", tmp_path / "x.png")
    assert sentence.endswith("val-000000.tar is missing: copy the band again")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--factor", "5"), "Error: Invalid value for '--factor': '5' is not one of '1', '4', '16', '36'."),
        (
            ("--factor", "4", "--fit", "bogus"),
            "Error: Invalid value for '--fit': 'bogus' is not one of 'squash', 'crop'.",
        ),
        (("--factor", "36", "--size", "100"), "Error: --size 100 does not divide by 6: take 102 for --factor 36"),
        (("--factor", "4", "--bands", "0-9"), "Error: --bands: choose from 0 to 3, each once"),
        (
            ("--factor", "4", "--val-per-class", "25"),
            "Error: --val-per-class 25 leaves nothing to train on in class cat, which has 25 images (1 such classes): "
            "choose fewer",
        ),
        (("--factor", "four"), "Error: Invalid value for '--factor': 'four' is not one of '1', '4', '16', '36'."),
        (
            ("--size", "8"),
            "Error: Missing option '--factor'. For example: spectral-prep split --factor 4 photos/. Choose 1, 4, 16, "
            "36.",
        ),
    ],
)
def test_one_sentence_for_each_wrong_option(
    arguments: tuple[str, ...], message: str, photos: Path, tmp_path: Path
) -> None:
    assert fails("spectral-prep", "split", *arguments, photos, cwd=tmp_path) == message
    assert list(tmp_path.iterdir()) == []


def test_one_sentence_for_each_wrong_source(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    split = ("spectral-prep", "split", "--factor", "4")
    sentence = fails(*split, "empty", cwd=tmp_path)
    assert sentence.startswith(
        f"Error: {tmp_path}/empty holds neither class folders nor class tars nor another known form, but nothing; "
        "what is known is folders: one folder of images a class (ImageFolder); tars: "
    )
    assert fails(*split, "nowhere", cwd=tmp_path) == "Error: nowhere does not exist"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty"]


@pytest.mark.parametrize(
    ("words", "where"),
    [
        (("spectral-train", "--shards", "sub4", "--bands", ""), " after --bands"),
        (("spectral", "split", "--factor=", "photos"), " after --factor"),
        (("spectral-ensemble", ""), ""),
        (("spectral", "report", "", "runs"), ""),
    ],
)
def test_an_empty_word_is_no_default(words: tuple[str, ...], where: str, tmp_path: Path) -> None:
    """As of a variable that is not set."""
    assert fails(*words, cwd=tmp_path) == f"Error: there is an empty word{where}: write a value, or leave it out"
    assert not list(tmp_path.iterdir())
