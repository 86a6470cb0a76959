import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectral_shards.shards_manifest.errors import FormatError
from spectral_shards.shards_manifest.manifest import MANIFEST, dump, load_band, load_split, manifest_kind
from spectral_shards.shards_manifest.tables import (
    class_table,
    compress_table,
    escape,
    read_labels,
    read_samples,
    reject_lines,
    sample_table,
)


def test_manifests_survive_a_round_trip(sub4: Path) -> None:
    data = (sub4 / MANIFEST).read_bytes()
    assert dump(load_split(data, "m")) == data
    band = (sub4 / "02" / MANIFEST).read_bytes()
    assert dump(load_band(band, "m")) == band


def test_canonical(sub4: Path) -> None:
    for path in sub4.rglob("*.json"):
        text = path.read_text()
        assert text == json.dumps(json.loads(text), sort_keys=True, indent=1, ensure_ascii=False) + "\n"
        assert time.strftime("%Y-") not in text
        assert str(sub4.parent) not in text


def test_unknown_version_is_refused_in_one_sentence(sub4: Path) -> None:
    raw = json.loads((sub4 / MANIFEST).read_bytes())
    raw["version"] = 3
    with pytest.raises(FormatError, match=r"^here has format version 3, this release knows versions 1 and 2: "):
        load_split(json.dumps(raw).encode(), "here")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"{", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[]", "not a manifest"),
        (b"{}", "not a manifest"),
        (b'{"format": "spectral-shards", "version": 1, "kind": "x"}', "unknown kind"),
        (b'{"format": "spectral-shards", "version": 1, "kind": "split"}', "describes a whole split"),
        (b'{"format": "spectral-shards", "version": 1, "kind": "band"}', "lacks 'dataset'"),
    ],
)
def test_what_is_not_a_manifest(data: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        load_band(data, "here")


def test_every_missing_field_is_named(sub4: Path) -> None:
    raw = json.loads((sub4 / "00" / MANIFEST).read_bytes())
    for name in raw.keys() - {"format", "version", "kind"}:
        less = {key: value for key, value in raw.items() if key != name}
        with pytest.raises(FormatError, match=f"lacks '{name}'"):
            load_band(json.dumps(less).encode(), "here")


def test_counts_have_to_add_up(sub4: Path) -> None:
    band = load_band((sub4 / "00" / MANIFEST).read_bytes(), "m")
    part = band.parts["train"]
    for wrong in (replace(part, samples=part.samples + 1), replace(part, shards=part.shards[:-1])):
        with pytest.raises(FormatError, match="do not add up"):
            load_band(dump(replace(band, parts={**band.parts, "train": wrong})), "here")


def test_kind(sub4: Path) -> None:
    assert manifest_kind((sub4 / MANIFEST).read_bytes(), "m") == "split"
    assert manifest_kind((sub4 / "00" / MANIFEST).read_bytes(), "m") == "band"


@given(st.lists(st.tuples(st.text(), st.integers(0, 2**31 - 1))))
def test_sample_tables_keep_every_key_on_its_line(samples: list[tuple[str, int]]) -> None:
    rows = [(escape(key), label) for key, label in samples]
    table = sample_table(rows)
    assert read_samples(compress_table(table), "t")[0] == rows
    assert table.count(b"\n") == len(rows)


@given(st.lists(st.binary(max_size=30), unique=True))
def test_escaping_keeps_names_distinct(names: list[bytes]) -> None:
    texts = [escape(name.decode("utf-8", "surrogateescape")) for name in names]
    assert len(set(texts)) == len(names)
    for text in texts:
        text.encode()
        assert not set(text) & {"\t", "\n", "\r"}


def test_tables_are_plain_text() -> None:
    assert class_table(["a", "b"], [3, 1], [0, 2]) == b"0\ta\t3\t0\n1\tb\t1\t2\n"
    assert reject_lines([("a/x y.jpg", "empty")]) == b'{"reason": "empty", "source": "a/x y.jpg"}\n'


@pytest.mark.parametrize("data", [b"", b"not gzip", compress_table(b"a\tb\n"), compress_table(b"no tab\n")])
def test_damaged_tables(data: bytes) -> None:
    with pytest.raises(FormatError, match="not a sample table"):
        read_samples(data, "here")


def test_no_altered_byte_of_a_table_goes_unseen() -> None:
    good = compress_table("".join(f"n{i * 7919 % 1000}/x\t{i % 10}\n" for i in range(200)).encode())
    for place in (*range(4), *range(10, len(good))):  # between are a time, a system and flags
        data = good[:place] + bytes([good[place] ^ 5]) + good[place + 1 :]
        for read in (read_samples, read_labels):
            with pytest.raises(FormatError, match="not a sample table"):
                read(data, "here")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("geometry", "factor"), 5, "unknown factor 5"),
        (("geometry", "transform"), "fft", "unknown transform 'fft'"),
        (("geometry", "size"), 0, "have no planes"),
        (("geometry", "margin"), 1, "have no planes"),
        (("frequency",), [1], "there is no band 2 of frequency"),
        (("band",), 4, "there is no band 4"),
        (("step",), [5.0, 5.0], "is not one for each channel"),
        (("std",), [1.0, 0.0, 1.0], "is not one for each channel"),
        (("mean",), [1.0, float("nan"), 1.0], "is not one for each channel"),
        (("parts", "train", "shards", 0, "sha256"), "../../etc", "is no shard"),
        (("parts", "train", "shards", 0, "name"), "../train-000000.tar", "is no shard"),
        (("parts", "train", "shards", 0, "name"), ".hidden", "is no shard"),
    ],
)
def test_what_no_split_writes_is_refused(sub4: Path, path: tuple[str | int, ...], value: object, message: str) -> None:
    raw = json.loads((sub4 / "02" / MANIFEST).read_bytes())
    place = raw
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(FormatError, match=message):
        load_band(json.dumps(raw).encode(), "here")
