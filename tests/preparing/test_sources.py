import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from spectral_shards.preprocess.config import SplitConfig
from spectral_shards.preprocess.errors import ConfigError, SourceError
from spectral_shards.preprocess.sources import find_source
from spectral_shards.preprocess.split.job import prepare
from spectral_shards.shards_manifest.manifest import MANIFEST, load_band
from support.pictures import class_folders, encode, picture
from support.splits import make_split, tree


def tarred(folders: Path, out: Path, prefix: str = "./") -> Path:
    """The same classes as one tar each, members in reverse order."""
    out.mkdir(parents=True)
    for folder in folders.iterdir():
        with tarfile.open(out / f"{folder.name}.tar", "w") as tar:
            for path in sorted(folder.iterdir(), reverse=True):
                tar.add(path, prefix + path.name)
    return out


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    return class_folders(tmp_path / "folders" / "set", {"a": 6, "b": 7})


def test_tars_and_folders_give_the_same_bands(folders: Path, tmp_path: Path) -> None:
    tars = tarred(folders, tmp_path / "tars" / "set")
    options = {"factor": 4, "size": 16, "val_per_class": 2}
    first = tree(make_split(folders, tmp_path / "one", **options))
    second = tree(make_split(tars, tmp_path / "two", **options))
    provenance = {"manifest.json", "rows/plan.json", "rows/scan.bin"}  # these say what kind of source it was
    assert first.keys() == second.keys()
    assert {name for name in first if first[name] != second[name]} == provenance


@pytest.mark.parametrize("folder", ["val", "validation", "test"])
@pytest.mark.parametrize("kind", ["folders", "tars"])
def test_train_and_val(kind: str, folder: str, tmp_path: Path) -> None:
    root = tmp_path / "set"
    for part, counts in (("train", {"a": 3, "b": 4}), (folder, {"a": 2, "b": 1})):
        made = class_folders(tmp_path / "made" / part, counts)
        if kind == "tars":
            tarred(made, root / part)
        else:
            root.mkdir(exist_ok=True)
            made.rename(root / part)
    job = prepare(root, SplitConfig(4, size=16))
    assert job.source.describe() == {"kind": f"class-{kind}", "name": "set"}
    assert job.samples == {"train": 7, "val": 3}
    with pytest.raises(ConfigError, match="has a val part of its own"):
        prepare(root, SplitConfig(4, size=16, val_per_class=1))
    make_split(root, tmp_path / "out", factor=4, size=16)


def test_nested_files_links_and_strange_names(folders: Path, tmp_path: Path) -> None:
    data = encode(picture(1))
    (folders / "a" / "deeper" / "still").mkdir(parents=True)
    names = ["with space.jpg", "two.dots.jpg", "ünï.jpg", "tab\there.jpg", "line\nbreak.jpg", "x" * 250, "noending"]
    for name in names:
        (folders / "a" / "deeper" / "still" / name).write_bytes(data)
    bad = os.path.join(os.fsencode(folders / "a"), b"\xff\xfe.jpg")
    with open(bad, "wb") as file:
        file.write(data)
    (folders / "a" / "link.jpg").symlink_to(folders / "b" / "b_000.JPEG")
    (folders / "a" / ".DS_Store").write_bytes(b"junk")
    (folders / "a" / ".cache").mkdir()
    (folders / "a" / ".cache" / "copy.jpg").write_bytes(data)
    (folders / "a" / "deeper" / "round").symlink_to(folders / "a", target_is_directory=True)
    (folders / "README.txt").write_text("hello")
    out = make_split(folders, tmp_path / "out", factor=4, size=16, val_per_class=0)
    import gzip

    keys = [
        line.split("\t")[0]
        for line in gzip.decompress((out / "samples-train.tsv.gz").read_bytes()).decode().split("\n")[:-1]
    ]
    assert len(keys) == 13 + len(names) + 2
    assert "a/deeper/still/tab\\there.jpg" in keys
    assert "a/deeper/still/line\\nbreak.jpg" in keys
    assert "a/\\xff\\xfe.jpg" in keys
    assert "a/deeper/still/ünï.jpg" in keys
    rejects = (out / "rejects.jsonl").read_text()
    assert '"reason": "hidden file", "source": "a/.DS_Store"' in rejects
    assert '"reason": "hidden file", "source": "a/.cache/copy.jpg"' in rejects
    assert '"reason": "not in a class", "source": "README.txt"' in rejects


def test_what_is_in_tars_but_no_image(tmp_path: Path) -> None:
    data = encode(picture(1))
    root = tmp_path / "set"
    root.mkdir()
    with tarfile.open(root / "a.tar", "w") as tar:
        for name, kind in [
            ("x.jpg", tarfile.REGTYPE),
            ("x.jpg", tarfile.REGTYPE),
            ("l.jpg", tarfile.SYMTYPE),
            ("._x.jpg", tarfile.REGTYPE),
            ("d", tarfile.DIRTYPE),
            ("../../y.jpg", tarfile.REGTYPE),
        ]:
            info = tarfile.TarInfo(name)
            info.type = kind
            info.linkname = "/etc/passwd" if kind == tarfile.SYMTYPE else ""
            info.size = len(data) if kind == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(data))
    found = find_source(root).scan()
    assert len(found.parts["train"]) == 1
    assert dict(found.rejects) == {
        "a/x.jpg": "a second member of this name",
        "a/l.jpg": "not a regular file",
        "a/._x.jpg": "hidden file",
        "a/../../y.jpg": "a name that leads out of the tar",
    }


def test_a_tar_that_was_cut_is_never_taken_for_a_smaller_one(folders: Path, tmp_path: Path) -> None:
    tars = tarred(folders, tmp_path / "tars")
    whole = (tars / "a.tar").read_bytes()
    with tarfile.open(tars / "a.tar") as tar:
        members = tar.getmembers()
    boundary = members[3].offset
    for length in (0, 100, 700, boundary, boundary + 300, boundary + 512, members[-1].offset_data + 10):
        (tars / "a.tar").write_bytes(whole[:length])
        with pytest.raises(SourceError, match=r"a\.tar is not a complete plain tar"):
            find_source(tars).scan()
    damaged = bytearray(whole)
    damaged[boundary + 20] ^= 255
    (tars / "a.tar").write_bytes(damaged)
    with pytest.raises(SourceError, match="damaged at byte"):
        find_source(tars).scan()


def test_a_class_without_images_keeps_its_index(folders: Path, tmp_path: Path) -> None:
    (folders / "aa").mkdir()
    job = prepare(folders, SplitConfig(4, size=16))
    assert job.listing.classes == ("a", "aa", "b")
    assert ("aa/", "class without images") in job.listing.rejects
    assert set(job.listing.parts["train"].label.tolist()) == {0, 2}
    out = make_split(folders, tmp_path / "out", factor=4, size=16, val_per_class=1)
    assert (out / "classes.tsv").read_text() == "0\ta\t5\t1\n1\taa\t0\t0\n2\tb\t6\t1\n"


def test_layouts_that_are_none(tmp_path: Path, folders: Path) -> None:
    def error(path: Path) -> str:
        with pytest.raises(SourceError) as caught:
            find_source(path).scan()
        return str(caught.value)

    empty = tmp_path / "empty"
    empty.mkdir()
    assert "holds neither class folders nor class tars" in error(empty)
    assert "does not exist" in error(tmp_path / "nowhere")
    assert "is a file" in error(folders / "a" / "a_000.JPEG")
    (empty / "class").mkdir()
    assert "has 1 classes but no images" in error(empty)
    tarred(folders, tmp_path / "t")
    (tmp_path / "t" / "a").mkdir()
    assert "holds both class folders and tars" in error(tmp_path / "t")
    both = tmp_path / "both"
    class_folders(both / "train", {"a": 1})
    class_folders(both / "val", {"a": 1, "z": 1})
    assert "has the class z, which train does not have" in error(both)


def test_class_names_that_need_escaping(tmp_path: Path) -> None:
    """Backslashes and bytes that are no UTF-8 are read as they are and written escaped."""
    root = tmp_path / "set"
    made = class_folders(tmp_path / "made", {"a": 3, "b": 3})
    root.mkdir()
    (made / "a").rename(root / "back\\slash")
    os.rename(os.fsencode(made / "b"), os.path.join(os.fsencode(root), b"caf\xe9"))
    for source in (root, tarred(root, tmp_path / "tars")):
        out = make_split(source, tmp_path / f"out-{source.name}", factor=4, size=16, val_per_class=1)
        assert (out / "classes.tsv").read_text() == "0\tback\\\\slash\t2\t1\n1\tcaf\\xe9\t2\t1\n"
        assert load_band((out / "00" / MANIFEST).read_bytes(), "m").classes == ("back\\\\slash", "caf\\xe9")


def test_a_folder_that_cannot_be_listed_is_not_an_empty_one(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: object, *rest: object, **more: object) -> object:
        if os.fsencode(path).endswith(b"/b"):  # type: ignore[arg-type]
            raise PermissionError(13, "Permission denied", path)
        return listed(path, *rest, **more)

    listed = os.scandir
    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(SourceError, match=r"cannot read .*/b.* \(Permission denied\)"):
        prepare(folders, SplitConfig(4, size=16))


def test_rejects_say_their_part(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for part in ("train", "val"):
        class_folders(root / part, {"a": 3})
        (root / part / "a" / "bad.jpg").write_bytes(b"junk")
    out = make_split(root, tmp_path / "out", factor=4, size=16)
    sources = [json.loads(line)["source"] for line in (out / "rejects.jsonl").read_text().splitlines()]
    assert sources == ["train/a/bad.jpg", "val/a/bad.jpg"]
