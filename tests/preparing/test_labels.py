"""Labels of images: which class a value, a text or a number stands for, and which are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectral_shards.preprocess.errors import RejectedImage, UnlabelledImage
from spectral_shards.preprocess.sources.labels import label_in_cls, label_in_json, label_of
from support.labels import counts, refusal, scan, shard


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


@pytest.mark.parametrize("labels", [["cat", 0], [1, 1, 1, "dog"], ["0", "cat", "1_0"]])
def test_numbers_and_names_together_need_a_list(labels: list[object], tmp_path: Path) -> None:
    sentence = refusal(shard(tmp_path / "set" / "s.tar", labels))
    assert "has numbers as labels, " in sentence
    assert "use one of them; list the classes in a classes.txt beside the shards" in sentence


@pytest.mark.parametrize("label", [b"\xef\xbb\xbf1", "1".encode("utf-16"), b"\xef\xbb\xbf 1\r\n", b"\xef\xbb\xbfdog"])
def test_marks_before_labels(label: bytes, tmp_path: Path) -> None:
    assert counts(scan(shard(tmp_path / "set" / "s.tar", [label], "cat\ndog\n"))) == {"cat": 0, "dog": 1}
