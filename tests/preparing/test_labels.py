"""What labels say, which names are the same, and what is told of labels that cannot be used."""

from __future__ import annotations

import json
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectral_shards.preprocess.config import SplitConfig
from spectral_shards.preprocess.errors import RejectedImage, SourceError, UnlabelledError, UnlabelledImage
from spectral_shards.preprocess.sources.class_names import display_name
from spectral_shards.preprocess.sources.labels import label_in_cls, label_in_json, label_of
from spectral_shards.preprocess.sources.text_files import text_lines
from spectral_shards.preprocess.split.class_filter import choose_classes, read_class_list
from spectral_shards.preprocess.split.job import prepare, split
from spectral_shards.shards_manifest.runtime.executors import Backend
from support import forms
from support.labels import COMMAND, NFC, NFD, OPTIONS, counts, named_shards, names, refusal, scan, shard, tables
from support.pictures import class_folders
from support.programs import fails, program
from support.splits import make_split


@pytest.mark.parametrize(
    ("value", "label"),
    [
        *((7, 7), (0, 0), (2.0, 2), (-0.0, 0), (1e6, 1_000_000), ("3", 3), (" 1 \n", 1), ("007", 7)),
        *(("cat", "cat"), ("1_000", "1_000"), ("٣", "٣"), ("+1", "+1"), ("2.0", "2.0"), ("true", "true")),
    ],
)
def test_labels(value: object, label: int | str) -> None:
    assert label_of(value) == label
    assert type(label_of(value)) is type(label)
    if isinstance(value, str):
        assert label_in_cls(value.encode()) == label
    assert label_in_json(json.dumps({"caption": "x", "label": value}).encode()) == label


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1e400", "its label inf is no whole number"),
        ("-Infinity", "its label -inf is no whole number"),
        ("2.7", "its label 2.7 is no whole number"),
        ("-0.5", "its label -0.5 is no whole number"),
        ("true", "its label is true, neither a number nor a name"),
        ("false", "its label is false, neither"),
        ("[1]", "its label is a list, neither"),
        ('{"id": 1}', "its label is an object, neither"),
        ('"a\\nb"', "no text of one line"),
        ('"\\ud800"', "no text of one line"),
        ('"\\u0000"', "no text of one line"),
        ('"' + "9" * 5000 + '"', r"its label 9{50}\.\.\. is the index of no class"),
        ("9" * 5000, "its .json cannot be read"),
        ("[" * 200_000, "its .json cannot be read"),
        ("[" * 400 + "]" * 400, "its label is a list, neither"),
        ('1, "label": 2', 'its .json has "label" more than once'),
        ("01", "its .json cannot be read"),
    ],
)
def test_odd_json_is_a_reject_with_its_reason(text: str, reason: str) -> None:
    with pytest.raises(RejectedImage, match=reason) as caught:
        label_in_json(b'{"label": %s}' % text.encode())
    assert not isinstance(caught.value, UnlabelledImage)


@pytest.mark.parametrize("text", ["null", "-1", "-1.0", "-7", "NaN", '"-1"', '""', '"  "'])
def test_unlabelled_in_json(text: str) -> None:
    with pytest.raises(UnlabelledImage):
        label_in_json(b'{"label": %s}' % text.encode())


@given(st.one_of(st.binary(max_size=40), st.text(max_size=40).map(str.encode)))
def test_no_bytes_are_a_traceback(data: bytes) -> None:
    for read, content in ((label_in_cls, data), (label_in_json, data), (label_in_json, b'{"label": ' + data + b"}")):
        try:
            label = read(content)
        except RejectedImage:
            continue
        assert label is None or isinstance(label, str) or (isinstance(label, int) and label >= 0)


def test_json_without_a_label_and_with_marks() -> None:
    for data in (b"{}", b"[]", b'"label"', b'{"labels": 1}', b'{"meta": {"label": 1}}', b"3"):
        assert label_in_json(data) is None
    for text in ('{"label": 4}', '{"a": {"label": 1}, "label": 4}'):
        for coding in ("utf-8", "utf-8-sig", "utf-16"):
            assert label_in_json(text.encode(coding)) == 4
    for data in (b'{"label": 1', b"\xff\xfe", b'{"label": "\xff"}', b""):
        with pytest.raises(RejectedImage, match="cannot be read"):
            label_in_json(data)


def test_oddities_of_a_shard(tmp_path: Path) -> None:
    values = ["1", "2.0", "2.7", "true", '"3"', '" 1 "', "[1]", "null", '{"id": 1}', "1e400", "-1"]
    source = shard(tmp_path / "set" / "s.tar", [f'{{"label": {value}}}' for value in values], ending="json")
    found = scan(source)
    assert counts(found) == {"0": 0, "1": 2, "2": 1, "3": 1}
    reasons = dict(found.rejects)
    assert {source[6:9] for source in reasons if source != "0/"} == {"002", "003", "006", "007", "008", "009", "010"}
    assert reasons["s.tar/003.jpg"] == "its label is true, neither a number nor a name"


def test_numbers_are_indices_never_names(tmp_path: Path) -> None:
    for number, (classes, labels, wanted) in enumerate(
        [
            ("1\n2\n3\n4\n", [0, 1, 2, 3], {"1": 1, "2": 1, "3": 1, "4": 1}),
            ("3\n2\n1\n0\n", [0, 0, 3], {"3": 2, "2": 0, "1": 0, "0": 1}),
            ("10\n20\ncat\n", ["2", "0", "cat"], {"10": 1, "20": 0, "cat": 2}),
            ("01\n00\n", ["00", "01", "1"], {"01": 1, "00": 2}),
        ]
    ):
        assert counts(scan(shard(tmp_path / str(number) / "s.tar", labels, classes))) == wanted


@pytest.mark.parametrize(
    ("classes", "labels"),
    [("1\n2\n3\n4\n", [1, 2, 3, 4]), ("001\n002\n003\n", ["1", "2", "3"]), ("cat\n2021\n", ["cat", "2021"])],
)
def test_numbers_that_can_only_be_names_are_refused(classes: str, labels: list[object], tmp_path: Path) -> None:
    sentence = refusal(shard(tmp_path / "set" / "s.tar", labels, classes))
    assert f"has the label {labels[-1]} (s.tar/00{len(labels) - 1}.jpg), which is no index of its" in sentence
    assert "a number is an index, never a name" in sentence
    assert "take classes.txt away" in sentence
    texts = [json.dumps({"label": label}) for label in labels]
    assert "never a name" in refusal(shard(tmp_path / "json" / "s.tar", texts, classes, ending="json"))


def test_numbers_of_no_class(tmp_path: Path) -> None:
    found = scan(shard(tmp_path / "set" / "s.tar", [0, 1, 2, "1_000", "cow", "-1"], "cat\ndog\n"))
    assert dict(found.rejects) == {
        "s.tar/002.jpg": "its label 2 is the index of no class",
        "s.tar/003.jpg": "its label 1_000 is the name of no class",
        "s.tar/004.jpg": "its label cow is the name of no class",
        "s.tar/005.jpg": "its label -1 is the index of no class",
    }
    assert found.notes == ("4 of 6 inputs are left out, most often (1) for: its label 2 is the index of no class",)


def test_numbers_in_another_dress_are_no_names(tmp_path: Path) -> None:
    """Without a classes.txt no one can say what they are."""
    found = scan(shard(tmp_path / "set" / "s.tar", [0, 1, 1, "1_000", "+1", "٣", "2.0", "1e0"]))
    assert counts(found) == {"0": 1, "1": 2}
    assert {reason for _, reason in found.rejects} == {
        f"its label {text} is a number, but not in plain digits"
        for text in ("1_000", "+1", "٣ ('\\u0663')", "2.0", "1e0")
    }
    assert "the first reject is s.tar/000.jpg: its label 1.0 is a number" in refusal(
        shard(tmp_path / "all" / "s.tar", ["1.0", "2.0"])
    )


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


@pytest.mark.parametrize("labels", [["cat", 0], [1, 1, 1, "dog"], ["0", "cat", "1_0"]])
def test_numbers_and_names_together_need_a_list(labels: list[object], tmp_path: Path) -> None:
    sentence = refusal(shard(tmp_path / "set" / "s.tar", labels))
    assert "has numbers as labels, " in sentence
    assert "use one of them; list the classes in a classes.txt beside the shards" in sentence


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


@pytest.mark.parametrize("label", [b"\xef\xbb\xbf1", "1".encode("utf-16"), b"\xef\xbb\xbf 1\r\n", b"\xef\xbb\xbfdog"])
def test_marks_before_labels(label: bytes, tmp_path: Path) -> None:
    assert counts(scan(shard(tmp_path / "set" / "s.tar", [label], "cat\ndog\n"))) == {"cat": 0, "dog": 1}


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


def test_names_that_print_alike_are_shown_apart(tmp_path: Path) -> None:
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


def keys(path: Path, members: str, **labels: str) -> Path:
    """A shard of these members, split at spaces; labels are 0 unless they are named, a dot written as _."""
    path.parent.mkdir(parents=True)
    told = {name.replace("_", "."): label for name, label in labels.items()}
    forms.flat_tar({name: told.get(name, "0").encode() for name in members.split()}, path)
    return path.parent


@pytest.mark.parametrize(
    ("members", "wanted"),
    [
        ("s.image.jpg s.cls t.image.jpg t.cls", {"0/s.image.jpg", "0/t.image.jpg"}),
        ("s.input.jpg s.output.cls", {"0/s.input.jpg"}),
        ("s.output.cls s.jpg", {"0/s.jpg"}),
        ("a.b.jpg a.b.cls a.c.jpg a.c.cls", {"0/a.b.jpg", "0/a.c.jpg"}),
        ("v1.0/s.left.jpg v1.0/s.cls v1.1/s.left.jpg v1.1/s.cls", {"0/v1.0/s.left.jpg", "0/v1.1/s.left.jpg"}),
        ("s.IMAGE.JPG s.CLS", {"0/s.IMAGE.JPG"}),
        ("s.image.jpg s.image.txt s.cls s.txt", {"0/s.image.jpg"}),
    ],
)
def test_images_and_labels_of_one_sample(members: str, wanted: set[str], tmp_path: Path) -> None:
    found = scan(keys(tmp_path / "set" / "s.tar", members))
    assert names(found) == wanted
    assert found.rejects == found.notes == ()


def test_the_label_beside_the_metadata(tmp_path: Path) -> None:
    """A .json without a label hides no .cls, and is no label."""
    source = keys(tmp_path / "set" / "s.tar", "s.image.jpg s.image.json s.meta.json s.cls", s_cls="1")
    assert counts(scan(source)) == {"0": 0, "1": 1}
    source = keys(tmp_path / "two" / "s.tar", "s.image.jpg s.meta.json s.cls", s_cls="1", s_meta_json='{"label": 0}')
    assert counts(scan(source)) == {"0": 0, "1": 1}
    source = keys(tmp_path / "no" / "s.tar", "s.jpg s.cls s.meta.json t.json", s_meta_json="{}", t_json='{"key": 1}')
    assert scan(source).rejects == ()


@pytest.mark.parametrize(
    "members",
    [
        "2021.a.jpg 2021.b.cls 2021.c.jpg 2021.c.cls",
        "2021.a.jpg 2021.b.cls 2021.d.jpg 2021.c.jpg 2021.c.json 2021.c.cls",
    ],
)
def test_dots_in_keys_join_no_strangers(members: str, tmp_path: Path) -> None:
    found = scan(keys(tmp_path / "set" / "s.tar", members))
    assert names(found) == {"0/2021.c.jpg"}
    assert ("s.tar/2021.a.jpg", "an image without a label (.cls, or .json with a label)") in found.rejects
    assert ("s.tar/2021.b", "a label without an image") in found.rejects


def test_a_refused_image_leaves_its_label_to_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spectral_shards.preprocess.sources.webdataset.LARGEST_IMAGE", 3)
    source = keys(tmp_path / "set" / "s.tar", "v.a.jpg v.a.cls v.b.jpg ok.jpg ok.cls", v_a_jpg="large")
    found = scan(source)
    assert names(found) == {"0/ok.jpg"}
    assert dict(found.rejects)["s.tar/v.b.jpg"] == "an image without a label (.cls, or .json with a label)"


@pytest.mark.parametrize(
    ("members", "counted"),
    [
        ("s.left.jpg s.right.jpg s.cls", "2 images for 1 label"),
        ("s.a.jpg s.b.jpg s.c.jpg s.x.cls", "3 images for 1 label"),
        ("s.image.jpg s.a.cls s.b.cls", "1 image for 2 labels"),
        ("s.left.jpg s.right.jpg s.a.cls s.b.cls", "2 images for 2 labels"),
    ],
)
def test_samples_that_nobody_can_pair(members: str, counted: str, tmp_path: Path) -> None:
    found = scan(keys(tmp_path / "set" / "s.tar", f"{members} good.jpg good.cls"))
    assert names(found) == {"0/good.jpg"}
    reasons = {reason for _, reason in found.rejects}
    assert reasons == {
        f"the sample s has {counted}: keep one of each, or name each label as its image (s.left.cls beside s.left.jpg)"
    }
    assert {source for source, _ in found.rejects} == {f"s.tar/{n}" for n in members.split() if n.endswith("jpg")}
    assert "inputs are left out" in found.notes[0]
    alone = refusal(keys(tmp_path / "alone" / "s.tar", members))
    assert f"no images; the first reject is s.tar/s.{members.split()[0][2:]}: the sample s has {counted}" in alone


def test_half_of_the_images_is_never_left_out_quietly(tmp_path: Path) -> None:
    source = tmp_path / "set"
    class_folders(tmp_path / "made", {"a": 3})
    images = [path.read_bytes() for path in sorted((tmp_path / "made" / "a").iterdir())]
    members = {f"{i}.left.jpg": image for i, image in enumerate(images)}
    members |= {f"{i}.left.cls": b"0" for i in range(3)} | {f"{i}.right.jpg": images[i] for i in range(3)}
    source.mkdir()
    forms.flat_tar(members, source / "s.tar")
    for dry in ((), ("--dry-run",)):
        done = program(*COMMAND, source, "--out", tmp_path / "out", *dry)
        assert done.returncode == 0, done.stderr
        assert "3 of 6 inputs are left out, most often (3) for: an image without a label" in done.stdout
    few = shard(tmp_path / "few" / "s.tar", [0, 0, 0, None])
    assert scan(few).notes == ()


def test_labels_that_are_there_twice(tmp_path: Path) -> None:
    """A shard that was written to twice: the first stays, as with images."""
    source = tmp_path / "set"
    source.mkdir()
    import tarfile

    with tarfile.open(source / "s.tar", "w") as tar:
        for name, data in [("0.jpg", b"x"), ("0.cls", b"1"), ("0.jpg", b"y"), ("0.cls", b"0"), ("1.jpg", b"z")]:
            forms.add(tar, name, data)
        forms.add(tar, "1.cls", b"0")
    found = scan(source)
    assert counts(found) == {"0": 1, "1": 1}
    assert sorted(reason for _, reason in found.rejects) == [
        "a second image of this key",
        "a second label of this key",
    ]


UNLABELLED: dict[str, tuple[list[object], str]] = {
    "none": ([None, None, None], "cls"),
    "minus one": ([-1, "-1", " -1\n"], "cls"),
    "null": (['{"label": null}', '{"label": NaN}', "{}"], "json"),
}


@pytest.mark.parametrize("layout", ["folders", "names"])
@pytest.mark.parametrize("word", ["test", "val"])
@pytest.mark.parametrize("kind", UNLABELLED)
def test_shards_without_labels_are_left_out_and_named(kind: str, word: str, layout: str, tmp_path: Path) -> None:
    labels, ending = UNLABELLED[kind]
    for part, what in (("train", [0, 1] * 5), (word, labels)):
        name = f"{part}/s.tar" if layout == "folders" else f"{part}-000.tar"
        shard(tmp_path / "set" / name, what, ending="cls" if part == "train" else ending)  # type: ignore[arg-type]
    found = scan(tmp_path / "set")
    assert counts(found) == {"0": 5, "1": 5}
    assert "val" not in found.parts
    name = word if layout == "folders" else f"{word}-000.tar"
    assert found.rejects == ((name, "left out: none of its 3 images has a label"),)
    assert found.notes == (f"{name} is left out: none of its 3 images has a label; so val is held out of train",)
    job = prepare(tmp_path / "set", SplitConfig(4, size=16, val_per_class=2))
    assert job.samples == {"train": 6, "val": 4}


def test_train_without_labels_is_refused(tmp_path: Path) -> None:
    for number, (labels, ending) in enumerate(UNLABELLED.values()):
        source = shard(tmp_path / f"{number}" / "s.tar", [*labels], ending=ending)
        with pytest.raises(UnlabelledError, match=r"none of the 3 images of .* has a label \(s.tar/000.jpg: "):
            scan(source, kind="webdataset")
    both = shard(tmp_path / "both" / "train" / "s.tar", [-1, -1]).parent
    shard(both / "val" / "s.tar", [0, 1])
    assert "none of the 2 images of " in refusal(both)
    some = shard(tmp_path / "some" / "s.tar", [-1, 0, None, 1])
    assert counts(scan(some)) == {"0": 1, "1": 1}
    assert len(scan(some).rejects) == 2


def test_faults_that_real_inputs_showed(shared_data: Path) -> None:
    faults = shared_data / "faults"
    if not faults.is_dir():
        pytest.skip("the inputs with faults are not here")
    assert counts(scan(faults / "webdataset" / "numnames")) == dict.fromkeys("1234", 6)
    odd = scan(faults / "webdataset" / "oddjson")
    assert counts(odd) == {"0": 0, "1": 2, "2": 1, "3": 1}
    assert len([source for source, _ in odd.rejects if source != "0/"]) == 6
    assert counts(scan(faults / "webdataset" / "bom")) == {"cat": 4, "dog": 4}
    assert counts(scan(faults / "webdataset" / "multi")) == {"0": 4, "1": 4}
    nfd = scan(faults / "folders" / "nfd")
    assert sorted(counts(nfd, "val").values()) == sorted(counts(nfd).values()) == [12, 12]
