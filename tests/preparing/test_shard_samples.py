"""WebDataset shards: which image and which label belong together, and shards without labels."""

from __future__ import annotations

from pathlib import Path

import pytest

from spectral_shards.preprocess.config import SplitConfig
from spectral_shards.preprocess.errors import UnlabelledError
from spectral_shards.preprocess.split.job import prepare
from support import forms
from support.labels import COMMAND, counts, names, refusal, scan, shard
from support.pictures import class_folders
from support.programs import program


def keys(path: Path, members: str, **labels: str) -> Path:
    """A shard of these members, split at spaces; labels are 0 unless they are named, a dot written as _."""
    path.parent.mkdir(parents=True)
    given = {name.replace("_", "."): label for name, label in labels.items()}
    forms.flat_tar({name: given.get(name, "0").encode() for name in members.split()}, path)
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
def test_samples_without_a_clear_pair(members: str, counted: str, tmp_path: Path) -> None:
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
    assert found.notes == (f"{name} is left out: none of its 3 images has a label; so val is taken from train",)
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
