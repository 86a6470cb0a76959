"""Parquet: which columns are taken, what their labels say, and what is kept between runs."""

from __future__ import annotations

import json
import re
import shutil
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from spectral_shards.preprocess.config import SourceOptions, SplitConfig
from spectral_shards.preprocess.errors import SourceError
from spectral_shards.preprocess.sources import find_source, fingerprint
from spectral_shards.preprocess.split.job import prepare, split
from spectral_shards.shards_manifest.runtime.executors import Backend
from support import forms
from support.buckets import BUCKET, Server, environment
from support.labels import COMMAND, NFC, NFD, OPTIONS, counts, named_shards, names, refusal, scan, shard, tables
from support.pictures import class_folders, encode, picture
from support.programs import fails, program
from support.splits import ROOT, make_split

IMAGE = {"_type": "Image"}


def table(path: Path, features: dict[str, Any] | None = None, **columns: Any) -> Path:
    """A Parquet file of these columns; `image` is made up where there is none. Returns its folder."""
    rows = len(next(iter(columns.values())))
    if not any(name in columns for name in ("image", "img", "photo", "jpg")):
        columns = {"image": [b"image %d" % row for row in range(rows)], **columns}
    made = pa.table(columns)
    if features:
        made = made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(made, path)
    return path.parent


def labels(*classes: str) -> dict[str, Any]:
    return {"_type": "ClassLabel", "names": list(classes)}


def test_views_of_bytes_and_text(tmp_path: Path) -> None:
    images = pa.array([b"1", b"2", b"3"], pa.binary_view())
    source = table(tmp_path / "a.parquet", image=images, label=pa.array(["b", "a", "b"], pa.string_view()))
    assert counts(scan(source)) == {"a": 1, "b": 2}


def test_class_names_by_number(tmp_path: Path) -> None:
    """As the cards of data sets have them."""
    numbered = {"_type": "ClassLabel", "names": {str(i): f"name {i}" for i in (10, *range(10))}}
    source = table(tmp_path / "ten" / "a.parquet", {"image": IMAGE, "label": numbered}, label=[10, 2, 2])
    assert scan(source).classes == tuple(f"name {i}" for i in range(11))
    assert counts(scan(source))["name 2"] == 2
    empty = table(tmp_path / "empty" / "a.parquet", {"image": IMAGE, "label": labels("a", " ")}, label=[0, 1])
    assert "names a class of its label by what is no text" in refusal(empty)
    none = table(tmp_path / "none" / "a.parquet", image=pa.array([], pa.binary()), label=pa.array([], pa.int64()))
    assert refusal(none) == f"{none} has no images"


TWO = {"img": IMAGE, "coarse_label": labels("x", "y"), "fine_label": labels("a", "b", "c", "d")}


def cifar100(path: Path) -> Path:
    return table(path, TWO, img=[b"1", b"2", b"3", b"4"], coarse_label=[0, 1, 0, 1], fine_label=[3, 2, 1, 1])


def test_two_columns_of_labels(tmp_path: Path) -> None:
    source = cifar100(tmp_path / "set" / "a.parquet")
    found = scan(source)
    assert counts(found) == {"a": 0, "b": 2, "c": 1, "d": 1}
    assert found.notes == (
        "Parquet columns: image img, label fine_label (also there: coarse_label; --label-column chooses)",
    )
    coarse = scan(source, label_column="coarse_label")
    assert counts(coarse) == {"x": 2, "y": 2}
    assert "label coarse_label (also there: fine_label;" in coarse.notes[0]


@pytest.mark.parametrize(
    ("columns", "features", "taken"),
    [
        (
            {"label": [1], "labels": [0], "fine_label": [0]},
            {},
            "image image, label label (also there: labels, fine_label;",
        ),
        ({"target": [1], "class": [0]}, {}, "label class (also there: target;"),
        ({"class": ["a"], "species": [0]}, {"species": labels("a")}, "label species (also there: class;"),
        ({"genus": [0], "label": [0]}, {"genus": labels("a"), "label": labels("b")}, "label label (also there: genus;"),
        (
            {"jpg": [b"1"], "image": [b"2"], "cls": [0]},
            {},
            "image image (also there: jpg; --image-column chooses), label cls",
        ),
        (
            {"image": [b"1"], "mask": [b"2"], "cls": [0]},
            {"mask": IMAGE, "image": IMAGE},
            "image image (also there: mask;",
        ),
        ({"img": [b"1"], "photo": [b"2"], "label": [0]}, {"photo": IMAGE}, "image photo (also there: img;"),
        ({"label": [[1, 2]], "cls": [3]}, {}, "label cls"),
        ({"label": [True], "target": [3]}, {}, "label target"),
    ],
)
def test_what_is_taken_is_said(columns: dict[str, Any], features: dict[str, Any], taken: str, tmp_path: Path) -> None:
    note = scan(table(tmp_path / "set" / "a.parquet", features, **columns)).notes[0]
    assert note.startswith("Parquet columns: ")
    assert taken in note


@pytest.mark.parametrize(
    ("columns", "features", "options", "sentence"),
    [
        (
            {"a": [0], "b": [0]},
            {"a": labels("x"), "b": labels("y")},
            {},
            "2 columns of labels (a, b): name one with --label",
        ),
        (
            {"photo": [b"1"], "mask": [b"2"], "label": [0]},
            {"photo": IMAGE, "mask": IMAGE},
            {},
            "(photo, mask): name one with --image",
        ),
        ({"label": [0]}, {}, {"label_column": "fine"}, "--label-column fine is no column of labels"),
        ({"label": [0]}, {}, {"label_column": "image"}, "(its type is binary); it has image (binary), label (int64)"),
        ({"label": [0]}, {}, {"image_column": "label"}, "--image-column label is no column of images"),
        ({"label": [True, False]}, {}, {}, "no column of labels that can be read: label (bool); of its columns ("),
        ({"label": [[0]]}, {}, {}, "label (list<"),
        ({"image": ["a.jpg"], "label": [0]}, {}, {}, "no column of images that can be read: image (string)"),
        ({"photo": [b"1"], "label": [0]}, {}, {}, "name them with --image-column and --label-column"),
        ({"text": ["a"]}, {}, {}, "no column holds labels: name one with --label-column"),
        ({"text": ["a"]}, {}, {"label_column": "kind"}, "no column holds labels, and none named kind"),
        ({"label": [0]}, {"label": labels("a", "a")}, {}, "has the class a twice"),
        ({"label": [0]}, {"label": labels(NFC, NFD)}, {}, "two classes whose names print alike"),
        ({"label": [0]}, {"label": labels("\ud800")}, {}, "names a class of its label by what is no text"),
    ],
)
def test_columns_that_do_not_do(
    columns: dict[str, Any], features: dict[str, Any], options: dict[str, str], sentence: str, tmp_path: Path
) -> None:
    source = table(tmp_path / "set" / "a.parquet", features, **columns)
    assert sentence in refusal(source, **options)
    assert "a.parquet" in refusal(source, **options) or "set" in refusal(source, **options)


def test_named_columns_of_any_name(tmp_path: Path) -> None:
    source = table(tmp_path / "set" / "a.parquet", photo=[b"1", b"2"], kind=["cat", "dog"], label=[0, 0])
    found = scan(source, image_column="photo", label_column="kind")
    assert counts(found) == {"cat": 1, "dog": 1}
    assert found.notes == (
        "Parquet columns: image photo, label kind (also there: label; --label-column chooses)",
        "The classes are the 2 names that the labels are, sorted",
    )


def test_files_of_one_part_have_the_same_columns(tmp_path: Path) -> None:
    source = table(tmp_path / "set" / "a.parquet", label=[0])
    table(source / "b.parquet", labels=[0])
    assert "files with different columns (Parquet columns: image image, label label; in b.parquet: " in refusal(source)
    table(source / "b.parquet", {"label": labels("x")}, label=[0])
    assert "files that name different classes" in refusal(source)
    both = cifar100(tmp_path / "both" / "train-0.parquet")
    table(both / "val-0.parquet", {**TWO, "fine_label": None}, img=[b"1"], coarse_label=[0])
    assert "train is labelled by the column fine_label and val by coarse_label" in refusal(both)
    assert counts(scan(both, label_column="coarse_label"), "val") == {"x": 1, "y": 0}
    assert "--label-column fine_label is no column of labels" in refusal(both, label_column="fine_label")


@pytest.mark.parametrize(
    ("column", "wanted", "reasons"),
    [
        (pa.array([2.0, 0.0, 2.7, None, float("nan"), -1.0, float("inf")]), {"0": 1, "1": 0, "2": 1}, 5),
        (pa.array(np.array([1, 0, 1], np.float16)), {"0": 1, "1": 2}, 0),
        (pa.array([1, 2**63, 2**64 - 1], pa.uint64()), {"0": 0, "1": 1}, 2),
        (pa.array([Decimal("1.00"), Decimal("0.50"), None]), {"0": 0, "1": 1}, 2),
        (pa.array(["1", " 0 ", "1", ""]), {"0": 1, "1": 2}, 1),
        (pa.array(["dog", "cat", None, "dog"]), {"cat": 1, "dog": 2}, 1),
        (pa.array(["dog", "cat"], pa.large_string()), {"cat": 1, "dog": 1}, 0),
        (pa.array(["dog", "cat", "dog"]).dictionary_encode(), {"cat": 1, "dog": 2}, 0),
        (pa.array([5, 0], pa.int8()).dictionary_encode(), {"0": 1, "1": 0, "2": 0, "3": 0, "4": 0, "5": 1}, 0),
        (pa.array([b"caf\xe9", b"dog"]).view(pa.string()), {"caf\udce9": 1, "dog": 1}, 0),
    ],
)
def test_labels_of_every_type(column: pa.Array, wanted: dict[str, int], reasons: int, tmp_path: Path) -> None:
    found = scan(table(tmp_path / "set" / "a.parquet", label=column))
    assert counts(found) == wanted
    assert len([reason for _, reason in found.rejects if reason != "class without images"]) == reasons


def test_reasons_of_labels(tmp_path: Path) -> None:
    found = scan(table(tmp_path / "set" / "a.parquet", label=pa.array([1.0, 2.7, None, float("nan"), -1.0, 1e300])))
    assert dict(found.rejects) == {
        "0/": "class without images",
        "a.parquet/1": "its label 2.7 is no whole number",
        "a.parquet/2": "an image without a label: it is null",
        "a.parquet/3": "an image without a label: it is NaN",
        "a.parquet/4": "its label -1.0 is the index of no class",
        "a.parquet/5": f"its label {str(int(1e300))[:50]}... is the index of no class",
    }
    assert "has numbers as labels, 404 (a.parquet/1), and names, cat (a.parquet/0)" in refusal(
        table(tmp_path / "mixed" / "a.parquet", label=["cat", "404"])
    )
    named = {"label": labels("1", "2", "3")}
    assert "which is no index of its 3 classes, 0 to 2, but the name of one" in refusal(
        table(tmp_path / "names" / "a.parquet", named, label=[1, 2, 3])
    )
    texts = table(tmp_path / "texts" / "a.parquet", {"label": labels(NFC, "dog")}, label=[NFD, "dog", "cow", "1"])
    assert counts(scan(texts)) == {NFC: 1, "dog": 2}


def hub(folders: Path, out: Path, name: str = "train-0.parquet", text: bool = True) -> Path:
    """The images of folders with their classes as text."""
    files = sorted(folders.glob("*/*"), key=lambda path: path.name[::-1])
    images = [{"bytes": path.read_bytes(), "path": path.name} for path in files]
    return table(out / name, image=images, label=[path.parent.name for path in files])


def test_text_gives_the_split_of_the_folders(tmp_path: Path) -> None:
    folders = class_folders(tmp_path / "folders" / "set", {"dog": 4, NFC: 3, "cat": 5})
    wanted = tables(make_split(folders, tmp_path / "wanted", **OPTIONS))
    assert tables(make_split(hub(folders, tmp_path / "set"), tmp_path / "out", **OPTIONS)) == wanted


def test_text_in_two_parts_and_two_forms(tmp_path: Path) -> None:
    train = class_folders(tmp_path / "train", {"dog": 4, NFC: 3, "cat": 5})
    val = class_folders(tmp_path / "val", {"dog": 2, NFD: 1}, seed=50)
    hub(train, tmp_path / "set"), hub(val, tmp_path / "set", "validation-0.parquet")
    wanted = {NFC: 1, "cat": 0, "dog": 2}
    assert counts(scan(tmp_path / "set"), "val") == wanted
    hub(train, tmp_path / "other" / "train")
    named_shards(val, tmp_path / "other" / "val")
    assert counts(scan(tmp_path / "other"), "val") == wanted
    table(tmp_path / "set" / "validation-0.parquet", label=[0, 1])
    assert "has numbers as labels and train names (" in refusal(tmp_path / "set")


NO_LABELS: dict[str, dict[str, Any]] = {
    "minus one": {"label": [-1, -1, -1]},
    "null": {"label": pa.array([None, None, None], pa.int64())},
    "null type": {"label": pa.array([None, None, None])},
    "some of both": {"label": [-1, None, -100]},
    "NaN": {"label": [float("nan")] * 3},
    "empty text": {"label": ["", "", ""]},
    "no column": {"id": ["a", "b", "c"]},
}


@pytest.mark.parametrize("word", ["test", "val"])
@pytest.mark.parametrize("kind", NO_LABELS)
def test_a_part_without_labels_is_left_out_and_named(kind: str, word: str, tmp_path: Path) -> None:
    data = [encode(picture(i)) for i in range(8)]
    source = table(tmp_path / "set" / "train-0.parquet", image=data, label=[0, 1] * 4)
    table(source / f"{word}-0.parquet", **NO_LABELS[kind])
    scratch = tmp_path / "scratch"
    job = prepare(source, SplitConfig(4, size=16, val_per_class=1), SourceOptions(scratch=scratch))
    assert job.samples == {"train": 6, "val": 2}
    reason = "left out: none of its 3 images has a label"
    assert job.listing.rejects == ((f"{word}-0.parquet", reason),)
    assert job.listing.notes == (
        "Parquet columns: image image, label label",
        f"{word}-0.parquet is {reason}; so val is taken from train",
    )
    job.source.stage()
    assert len(list(scratch.rglob("*.images"))) == 1  # what is left out is not copied
    outcome = split(job, tmp_path / "out", Backend())
    assert (outcome.samples, outcome.rejects) == ({"train": 6, "val": 2}, 1)


@pytest.mark.parametrize("kind", NO_LABELS)
def test_train_without_labels_is_refused(kind: str, tmp_path: Path) -> None:
    alone = table(tmp_path / "set" / "train-0.parquet", **NO_LABELS[kind])
    assert "none of the 3 images of " in refusal(alone)
    table(alone / "test-0.parquet", label=[0, 1])
    assert "none of the 3 images of " in refusal(alone)


@pytest.mark.parametrize("kind", [kind for kind in NO_LABELS if kind != "no column"])
def test_files_without_labels_beside_some_with(kind: str, tmp_path: Path) -> None:
    """Their rows are rejects, one by one."""
    source = table(tmp_path / "set" / "train-0.parquet", **NO_LABELS[kind])
    kept = ["0", "1"] if kind == "empty text" else [0, 1]
    table(source / "train-1.parquet", label=kept)
    found = scan(source)
    assert counts(found) == {"0": 1, "1": 1}
    assert [name for name, _ in found.rejects] == [f"train-0.parquet/{row}" for row in range(3)]


def test_a_choice_of_columns_has_its_own_scratch_and_scan(tmp_path: Path) -> None:
    data = [encode(picture(i)) for i in range(4)]
    source = table(tmp_path / "set" / "a.parquet", TWO, img=data, coarse_label=[0, 1, 0, 1], fine_label=[3, 2, 1, 1])
    scratch = SourceOptions(scratch=tmp_path / "scratch")
    coarse = SourceOptions(scratch=tmp_path / "scratch", label_column="coarse_label")
    for _ in range(2):  # made, then found
        assert counts(find_source(source, scratch).scan()) == {"a": 0, "b": 2, "c": 1, "d": 1}
        assert counts(find_source(source, coarse).scan()) == {"x": 2, "y": 2}
    assert len(list((tmp_path / "scratch").rglob("*.images"))) == 2
    assert len({fingerprint(find_source(source, options)) for options in (scratch, coarse)}) == 2
    command = [*COMMAND, source, "--val-per-class", "0", "--out", tmp_path / "out"]
    done = program(*command, "--label-column", "coarse_label", "--dry-run")
    assert "image img, label coarse_label (also there: fine_label; --label-column chooses)" in done.stdout
    assert program(*command, "--label-column", "coarse_label").returncode == 0
    again = program(*command, "--label-column", "coarse_label")
    assert "nothing to do" in again.stdout
    assert "label coarse_label (also there:" in again.stdout  # the saved scan knows what was taken
    assert "source label-column coarse_label there, not given here" in fails(*command)
    for option, code in (((), 1), (("--label-column", "coarse_label"), 0)):
        checked = program("spectral-prep", "verify", tmp_path / "out", "--against", source, *option)
        assert checked.returncode == code, checked.stderr
    assert "--label-column nope is no column" in fails(
        "spectral-prep", "verify", tmp_path / "out", "--against", source, "--label-column", "nope"
    )


def test_a_copy_that_was_cut_short_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a kill leaves has another name, so text and images stay together."""
    source = table(tmp_path / "set" / "a.parquet", label=["dog", "cat", "dog", "ant"])
    options = SourceOptions(scratch=tmp_path / "scratch")
    wanted = find_source(source, options).scan().digest()
    (flat,) = (tmp_path / "scratch").rglob("*.images")
    whole = flat.read_bytes()
    flat.unlink()
    flat.with_name(f"{flat.name}.0000.tmp").write_bytes(whole[:50])  # as a kill leaves it
    assert find_source(source, options).scan().digest() == wanted
    assert flat.read_bytes() == whole


@pytest.mark.parametrize("form", ["folders", "tars", "webdataset"])
def test_columns_of_what_is_no_parquet(form: str, tmp_path: Path) -> None:
    folders = class_folders(tmp_path / "folders", {"a": 2})
    makers = {"folders": shutil.copytree, "tars": forms.class_tars, "webdataset": forms.shards}
    source = Path(makers[form](folders, tmp_path / "set"))  # type: ignore[operator]
    for option in ("--image-column", "--label-column"):
        wanted = f"{option} names a column of Parquet files, and {source} holds none: leave it out"
        assert wanted in fails(*COMMAND, source, option, "x", "--out", tmp_path / "out")
    assert "names a column of Parquet files" in refusal(source, image_column="img")


def test_hints_name_no_package_that_brings_another_pil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An extra of ours would fetch Pillow again, and an unfinished split is refused after that."""
    source = table(tmp_path / "set" / "a.parquet", label=[0])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(SourceError, match=r"need the package pyarrow: pip install pyarrow$"):
        find_source(source).scan()
    for folder in ("preprocess", "shards_manifest", "train"):
        for path in (ROOT / folder).rglob("*.py"):
            for hint in re.findall(r"pip install [^\n]*", path.read_text()):
                hint = hint.replace("'spectral-shards[train]'", "")  # torchvision asks for Pillow by itself
                assert "spectral-shards" not in hint, path
                assert "'.[" not in hint, path


def test_in_a_bucket_and_on_a_web_server(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment(server.port).items():
        monkeypatch.setenv(name, value)
    folders = class_folders(tmp_path / "folders" / "set", {NFC: 3, "dog": 3})
    class_folders(tmp_path / "parts" / "train", {NFC: 2, "dog": 2})
    class_folders(tmp_path / "parts" / "val", {NFD: 1, "dog": 1})
    hub(folders, tmp_path / "text")
    cifar100(tmp_path / "hub" / "train-0.parquet")
    table(tmp_path / "hub" / "test-0.parquet", img=[b"1"], fine_label=[-1])
    named_shards(folders, tmp_path / "names")
    shard(tmp_path / "listed" / "s-000.tar", [1, "dog"], b"\xef\xbb\xbf" + f"{NFD}\r\ndog\r\n".encode())
    forms.flat_tar({"s.left.jpg": b"x", "s.cls": b"0"}, tmp_path / "listed" / "s-001.tar")
    for name, part in (("text", "train"), ("hub", "train"), ("names", "train"), ("listed", "train"), ("parts", "val")):
        server.put(tmp_path / name, f"labels/{name}")
        wanted, found = scan(tmp_path / name), scan(f"s3://{BUCKET}/labels/{name}")  # type: ignore[arg-type]
        assert counts(found, part) == counts(wanted, part)
        assert names(found, part) == names(wanted, part)
        assert (found.rejects, found.notes, found.spelled) == (wanted.rejects, wanted.notes, wanted.spelled)
    assert counts(wanted, "val") == {NFC: 1, "dog": 1}
    out = make_split(f"s3://{BUCKET}/labels/parts", tmp_path / "out", factor=4, size=16)  # type: ignore[arg-type]
    assert tables(out) == tables(make_split(tmp_path / "parts", tmp_path / "same", factor=4, size=16))
    web = f"{server.web}/labels"
    assert counts(scan(f"{web}/names/{{000..005}}.tar")) == counts(scan(tmp_path / "names"))  # type: ignore[arg-type]
    assert counts(scan(f"{web}/listed/s-{{000..001}}.tar")) == {NFD: 1, "dog": 2}  # type: ignore[arg-type]
    assert counts(scan(f"{web}/hub/train-0.parquet", label_column="coarse_label")) == {"x": 2, "y": 2}  # type: ignore[arg-type]


def test_faults_that_real_inputs_showed(shared_data: Path) -> None:
    faults = shared_data / "faults" / "parquet"
    if not faults.is_dir():
        pytest.skip("the inputs with faults are not here")
    assert counts(scan(faults / "pq_cifar100")) == dict.fromkeys("abcd", 3)
    assert counts(scan(faults / "pq_cifar100", label_column="coarse_label")) == {"x": 6, "y": 6}
    found = scan(faults / "pq_m1")
    assert list(found.parts) == ["train"]
    assert counts(found) == {"cat": 6, "dog": 6}
    assert found.rejects == (("test-0.parquet", "left out: none of its 12 images has a label"),)
