"""Names of classes: as labels, in lists, and in other forms of Unicode."""

from __future__ import annotations

import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from spectral_shards.preprocess.config import SplitConfig
from spectral_shards.preprocess.errors import RejectedImage, SourceError
from spectral_shards.preprocess.sources.class_names import display_name
from spectral_shards.preprocess.sources.labels import label_in_cls
from spectral_shards.preprocess.sources.text_files import text_lines
from spectral_shards.preprocess.split.class_filter import choose_classes, read_class_list
from spectral_shards.preprocess.split.job import prepare, split
from spectral_shards.shards_manifest.runtime.executors import Backend
from support import forms
from support.labels import COMMAND, NFC, NFD, OPTIONS, counts, named_shards, refusal, scan, shard, tables
from support.pictures import class_folders
from support.programs import fails, program
from support.splits import make_split


@pytest.fixture(scope="module")
def photos3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of few images, which are decoded."""
    return class_folders(tmp_path_factory.mktemp("folders") / "set", {"dog": 4, NFC: 3, "cat": 5})


@pytest.mark.parametrize("ending", ["cls", "json"])
def test_names_as_labels_are_the_classes_sorted(ending: str, photos3: Path, tmp_path: Path) -> None:
    wanted = tables(make_split(photos3, tmp_path / "wanted", **OPTIONS))
    source = named_shards(photos3, tmp_path / "set", ending)
    assert scan(source).classes == ("café", "cat", "dog")
    assert scan(source).notes == ("The classes are the 3 names that the labels are, sorted",)
    assert scan(source).digest() == scan(photos3).digest()
    assert tables(make_split(source, tmp_path / "out", **OPTIONS)) == wanted


def test_names_as_labels_in_two_parts(photos3: Path, tmp_path: Path) -> None:
    """val has fewer classes: they keep the numbers that train gives them."""
    few = shutil.copytree(photos3, tmp_path / "few")
    shutil.rmtree(few / "cat")
    named_shards(photos3, tmp_path / "set" / "train")
    named_shards(few, tmp_path / "set" / "val")
    found = scan(tmp_path / "set")
    assert counts(found, "val") == {**dict.fromkeys(found.classes, 0), "dog": 4, NFC: 3}
    shard(tmp_path / "set" / "val" / "x.tar", ["cow"])
    assert "has the class cow, which train does not have (1 such classes)" in refusal(tmp_path / "set")
    shutil.rmtree(tmp_path / "set" / "val")
    shard(tmp_path / "set" / "val" / "x.tar", [0, 1])
    assert "has numbers as labels and train names (" in refusal(tmp_path / "set")
    (tmp_path / "set" / "classes.txt").write_text(f"dog\n{NFC}\ncat\n")
    assert counts(scan(tmp_path / "set"), "val") == {"dog": 1, NFC: 1, "cat": 0}


def test_a_val_of_numbers_is_numbered_as_train_is(tmp_path: Path) -> None:
    """Indices into train's classes, whatever those are called; no other spelling of them."""
    class_folders(tmp_path / "set" / "train", {"ant": 2, NFC: 2, "dog": 2})
    shard(tmp_path / "set" / "val" / "s.tar", [2, 0, 2])
    found = scan(tmp_path / "set")
    assert counts(found, "val") == {"ant": 1, NFC: 0, "dog": 2}
    assert found.spelled == {}
    shard(tmp_path / "set" / "val" / "s.tar", [3])
    assert "has the label 3, but train only 3 classes" in refusal(tmp_path / "set")


@pytest.mark.parametrize("coding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-8"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\r\r\n"])
def test_lists_as_editors_save_them(coding: str, end: str, tmp_path: Path) -> None:
    data = f"cat{end}café{end}dog".encode(coding)
    if coding.endswith("e"):  # without a mark: with one is utf-16
        data = ("\ufeff" + f"cat{end}café{end}dog{end}").encode(coding)
    assert text_lines(data, "list") == ["cat", "café", "dog"]
    assert counts(scan(shard(tmp_path / "set" / "s.tar", [2, 1], data))) == {"cat": 0, "café": 1, "dog": 1}
    (tmp_path / "list").write_bytes(data)
    assert read_class_list(tmp_path / "list") == ("cat", "café", "dog")


@pytest.mark.parametrize("data", [b"\x89PNG\r\n\x1a\n\0\0", "cat\ndog\n".encode("utf-16-le"), b"\xff\xfea\0b", b"a\0b"])
def test_lists_that_are_no_text(data: bytes, tmp_path: Path) -> None:
    assert "classes.txt is no text: save it as UTF-8" in refusal(shard(tmp_path / "set" / "s.tar", [0], data))
    (tmp_path / "list").write_bytes(data)
    sentence = fails(*COMMAND, tmp_path / "set", "--classes", tmp_path / "list", "--out", tmp_path / "out")
    assert f"--classes {tmp_path / 'list'} is no text: save it as UTF-8" in sentence
    with pytest.raises(RejectedImage, match=r"its \.cls is no text"):
        label_in_cls(data)


def test_lists_with_holes_and_doubles(tmp_path: Path) -> None:
    assert "line 2 of " in refusal(shard(tmp_path / "a" / "s.tar", [0], "cat\n\ndog\n"))
    assert "must name each class once" in refusal(shard(tmp_path / "b" / "s.tar", [0], "cat\ncat\n"))
    assert "must name each class once" in refusal(shard(tmp_path / "c" / "s.tar", [0], "\n\n"))
    assert scan(shard(tmp_path / "d" / "s.tar", [1], "cat\ndog\n\n\n")).classes == ("cat", "dog")
    (tmp_path / "list").write_text(f"{NFC}\n{NFD}\n")
    with pytest.raises(SourceError, match=r"caf\\u00e9'\) and .*cafe\\u0301'\): rename one, or join them"):
        read_class_list(tmp_path / "list")


def both_parts(root: Path, train: dict[str, int], val: dict[str, int]) -> Path:
    class_folders(root / "train", train)
    class_folders(root / "val", val, seed=77)
    return root


PART_FORMS: dict[str, Callable[[Path, Path], Path]] = {
    "folders": lambda folders, out: Path(shutil.copytree(folders, out)),
    "tars": forms.class_tars,
    "tars-gz": forms.class_tars_gz,
    "names": named_shards,
}


@pytest.mark.parametrize("val", PART_FORMS)
@pytest.mark.parametrize("train", ["folders", "names"])
def test_class_names_of_another_normal_form(train: str, val: str, tmp_path: Path) -> None:
    """Stored as train spells them, read as val does; one name is half composed."""
    half, whole = "é" + unicodedata.normalize("NFD", "öü"), unicodedata.normalize("NFD", "éöü")
    made = both_parts(tmp_path / "made", {NFC: 3, "dog": 3, whole: 2}, {NFD: 2, "dog": 2, half: 2})
    PART_FORMS[train](made / "train", tmp_path / "set" / "train")
    PART_FORMS[val](made / "val", tmp_path / "set" / "val")
    same = both_parts(tmp_path / "same" / "set", {NFC: 3, "dog": 3, whole: 2}, {})
    for theirs, ours in {NFD: NFC, "dog": "dog", half: whole}.items():
        (same / "val" / ours).mkdir(parents=True)
        for path in (made / "val" / theirs).iterdir():
            shutil.copy(path, same / "val" / ours / path.name)
    options = {**OPTIONS, "val_per_class": -1}
    out = make_split(tmp_path / "set", tmp_path / "out", **options)
    assert tables(out) == tables(make_split(same, tmp_path / "wanted", **options))
    (out / "01" / "val-000000.tar").unlink()
    job = prepare(tmp_path / "set", SplitConfig(**options), out=out)  # type: ignore[arg-type]
    assert job.listing.spelled == {"val": (NFD, "dog", half)}
    split(job, out, Backend())  # the saved scan knows how val spells its classes
    assert tables(out) == tables(tmp_path / "wanted")
    done = program("spectral-prep", "verify", out, "--against", tmp_path / "set")
    assert done.returncode == 0, done.stderr


def test_lists_and_labels_of_another_normal_form(tmp_path: Path) -> None:
    root = both_parts(tmp_path / "set", {NFC: 3, "dog": 3, "ox": 3}, {NFD: 2, "dog": 2, "ox": 1})
    for listed in ((NFD, "dog"), ("dog", NFC), ("dog", NFD)):
        job = prepare(root, SplitConfig(4, size=16, classes=listed))
        assert job.listing.classes == tuple(NFC if name == NFD else name for name in listed)
        assert counts(job.listing, "val") == {NFC: 2, "dog": 2}
        row = next(row for row in job.rows if row.part == "val")
        assert all(len(data) > 100 for data in job.task(row).images)  # read under val's own name
    assert counts(scan(shard(tmp_path / "wds" / "s.tar", [NFD, NFC, 0], f"{NFC}\ndog\n"))) == {NFC: 3, "dog": 0}
    assert "two classes whose names print alike" in refusal(shard(tmp_path / "two" / "s.tar", [NFD, NFC]))


@pytest.mark.parametrize("form", ["folders", "tars", "tar-of-tars", "classes.txt"])
def test_two_classes_that_print_alike_are_refused(form: str, tmp_path: Path) -> None:
    folders = class_folders(tmp_path / "folders", {NFC: 2, NFD: 2})
    source = {
        "folders": lambda: folders,
        "tars": lambda: forms.class_tars(folders, tmp_path / "tars"),
        "tar-of-tars": lambda: forms.tar_of_tars(folders, tmp_path / "set.tar"),
        "classes.txt": lambda: shard(tmp_path / "wds" / "s.tar", [0], f"{NFC}\n{NFD}\n"),
    }[form]()
    sentence = refusal(source)
    assert "'caf\\u00e9'" in sentence
    assert "'cafe\\u0301'" in sentence


def test_names_that_print_alike_are_shown_with_their_code_points(tmp_path: Path) -> None:
    assert display_name("dog") == "dog"
    assert display_name("dog ") == "dog  ('dog ')"
    assert display_name("caf\udce9") == "caf\\xe9 ('caf\\xe9')"
    assert display_name("\U0001f431") == "\U0001f431 ('\\U0001f431')"
    for val in ("Dog", "dog ", "\uff44og"):
        root = both_parts(tmp_path / val.encode().hex(), {"dog": 1, "cat": 1}, {val: 1})
        assert "train has dog)" in refusal(root)
        listing = scan(root / "train")
        with pytest.raises(SourceError, match="it has dog"):
            choose_classes(listing, SplitConfig(4, classes=(val,)))
    assert "train has" not in refusal(both_parts(tmp_path / "other", {"dog": 1}, {"cow": 1}))


def test_a_list_of_numbers_for_classes_that_are_numbers(tmp_path: Path) -> None:
    listing = scan(shard(tmp_path / "set" / "s.tar", list(range(11))))
    assert choose_classes(listing, SplitConfig(4, classes=("7", "03", "10"))).classes == ("07", "03", "10")
    with pytest.raises(SourceError, match="lists the class 07 of the source twice"):
        choose_classes(listing, SplitConfig(4, classes=("7", "07")))
    with pytest.raises(SourceError, match="no images of 11, which --classes lists"):
        choose_classes(listing, SplitConfig(4, classes=("7", "11")))
