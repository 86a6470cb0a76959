"""What is no class and no image: folders of folders, folders of systems, files with other endings."""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from spectral_shards.preprocess.sources.file_filter import MOST_ENDINGS, FileFilter
from spectral_shards.preprocess.split.summary import summary
from support import forms
from support.layouts import IMAGE, WNIDS, classes, counts, fill, nested, pressed, read, reason, rejects, train_and


def test_folders_that_hold_only_folders(tmp_path: Path) -> None:
    one = tmp_path / "one"
    classes(one / "imagenet", 3, "n01", "n02")
    two = tmp_path / "two"
    classes(two / "cats", 2, "tabby", "persian")
    classes(two / "dogs", 2, "pug")
    parts = tmp_path / "parts"
    classes(parts / "train" / "imagenet", 2, "n01", "n02")
    wrapped = tmp_path / "wrapped"
    train_and(wrapped / "data", "val")
    untrained = tmp_path / "untrained"
    classes(untrained / "val", 2, "n01", "n02")
    classes(untrained / "test", 2, "n01", "n02")
    for root, example in (
        (one, "imagenet/n01"),
        (two, "cats/persian"),
        (wrapped, "data/train"),
        (untrained, "test/n01"),
    ):
        sentence = reason(root)
        assert f"{root} has no class folders with images in them, only folders of folders, as {example}: " in sentence
        assert f"{root}/{example.partition('/')[0]}" in sentence
        assert "--source folders" in sentence
    assert "parts/train has no class folders" in reason(parts)
    assert read(one / "imagenet").listing.classes == ("n01", "n02")
    assert read(one, kind="folders").listing.classes == ("imagenet",)
    assert read(two, kind="folders").listing.classes == ("cats", "dogs")
    fill(two / "dogs", 1)  # one class with an image of its own: folders below classes are what they were
    assert read(two).listing.classes == ("cats", "dogs")
    tiny = tmp_path / "tiny"
    for name in ("n01", "n02", "n03"):
        fill(tiny / name / "images", 2)
    assert read(tiny).listing.classes == ("n01", "n02", "n03")
    shutil.copytree(tiny, tmp_path / "both" / "train")
    shutil.copytree(tiny / "n02", tmp_path / "both" / "val" / "n02")
    assert counts(tmp_path / "both")["val"] == (2, 1)
    (tmp_path / "both" / "val").rename(tmp_path / "both" / "inner")
    (tmp_path / "both" / "val").mkdir()
    (tmp_path / "both" / "inner").rename(tmp_path / "both" / "val" / "val")
    assert "has the class val, which train does not have" in reason(tmp_path / "both")
    tars = tmp_path / "tars"
    for name in ("n01", "n02"):
        nested(one / "imagenet", tars / f"{name}.tar")
    assert read(tars).listing.classes == ("n01", "n02")


SYSTEM = ["__MACOSX", "lost+found", "@eaDir", "$RECYCLE.BIN", "System Volume Information"]


@pytest.mark.parametrize("system", SYSTEM)
def test_folders_of_systems_are_no_classes(system: str, tmp_path: Path) -> None:
    root = classes(tmp_path / "set", 4, "cat", "dog")
    fill(root / system / "cat", 2)
    fill(root / "cat" / system, 3)
    fill(root / "dog" / "deep" / system / "deeper", 2)
    what = "a folder of a system or a tool"
    wanted = {f"{system}/": what, f"cat/{system}/": what, f"dog/deep/{system}/": what}
    assert read(root).listing.classes == ("cat", "dog")
    assert counts(root, val_per_class=0) == {"train": (8, 2)}
    assert rejects(root) == wanted
    parts = tmp_path / "parts"
    shutil.copytree(root, parts / "train")
    classes(parts / "val", 2, "cat")
    fill(parts / system, 2)
    assert rejects(parts) == {f"{system}/": what, **{f"train/{name}": what for name in wanted}}
    assert len(summary(read(parts))) == 3  # nothing that a user would miss
    (tmp_path / "tars").mkdir()
    tars = tmp_path / "tars"
    for name in ("cat", "dog"):
        with tarfile.open(tars / f"{name}.tar", "w") as tar:
            tar.add(root / name, ".")
    fill(tars / system, 2)
    assert read(tars).listing.classes == ("cat", "dog")
    assert rejects(tars) == wanted
    with tarfile.open(tmp_path / "whole.tar", "w") as tar:
        for name in ("cat", "dog"):
            tar.add(tars / f"{name}.tar", f"{name}.tar")
            tar.add(tars / f"{name}.tar", f"{system}/{name}.tar")
    assert read(tmp_path / "whole.tar").listing.classes == ("cat", "dog")
    assert rejects(tmp_path / "whole.tar") == {f"{system}/": what, **rejects(tars)}
    for tar_path in list(tars.glob("*.tar")):
        pressed(tar_path)
    assert read(tars).listing.classes == ("cat", "dog")
    assert rejects(tars) == wanted
    shards = forms.shards(classes(tmp_path / "plain", 4, "cat", "dog"), tmp_path / "shards")
    fill(shards / system, 2)
    assert rejects(shards) == {f"{system}/": what}
    assert counts(shards, val_per_class=0) == {"train": (8, 2)}


def junk(root: Path) -> Path:
    for name in ("cat", "dog"):
        for ending in (".jpg", ".json", ".txt"):
            fill(root / name, 20, ending)
    fill(root / "cat", 2, ".PNG", 50)
    (root / "dog" / "Thumbs.db").write_bytes(b"x")
    (root / "dog" / "noending").write_bytes(IMAGE)
    return root


IN_TARS: dict[str, Callable[[Path, Path], Path]] = {
    "folders": lambda folders, out: folders,
    "tars": lambda folders, out: forms.class_tars(folders, out / "set"),
    "tars-gz": lambda folders, out: forms.class_tars_gz(folders, out / "set"),
    "tar-of-tars": lambda folders, out: forms.tar_of_tars(folders, out / "set.tar"),
    "tar-of-tars-gz": lambda folders, out: forms.tar_of_tars_gz(folders, out / "set.tar.gz"),
}


@pytest.mark.parametrize("form", IN_TARS)
def test_images_alone_are_counted(form: str, tmp_path: Path) -> None:
    source = IN_TARS[form](junk(tmp_path / "folders" / "set"), tmp_path)
    assert counts(source, val_per_class=0) == {"train": (43, 2)}
    assert counts(source, val_per_class=5) == {"train": (33, 2), "val": (10, 2)}
    assert read(source, min_class_images=22).listing.classes == ("cat",)
    assert "leaves nothing to train on in class dog, which has 21 images" in reason(source, val_per_class=21)
    limited = read(source, limit=43, val_per_class=0)
    assert limited.samples == {"train": 43}
    assert rejects(source) == {
        "cat/*.json": "20 files with the ending .json, which is no image's",
        "cat/*.txt": "20 files with the ending .txt, which is no image's",
        "dog/*.json": "20 files with the ending .json, which is no image's",
        "dog/*.txt": "20 files with the ending .txt, which is no image's",
        "dog/Thumbs.db": "its ending .db is no image's",
    }


@pytest.mark.parametrize("form", ["folders", "tars", "tars-gz"])
def test_hidden_folders_are_named(form: str, tmp_path: Path) -> None:
    """Notebooks leave copies of what one looks at, tools a cache."""
    source = IN_TARS[form](classes(tmp_path / "folders" / "set", 3, "cat", "dog"), tmp_path)
    for name in (".ipynb_checkpoints", ".git"):
        fill(source / name, 2)
    named = {".ipynb_checkpoints/": "hidden folder", ".git/": "hidden folder"}
    assert rejects(source) == named
    assert counts(source, val_per_class=0) == {"train": (6, 2)}
    parts = tmp_path / "parts"
    shutil.copytree(source, parts / "train")
    shutil.copytree(source, parts / "val")
    fill(parts / ".cache", 1)
    both = {f"{part}/{name}": reason for part in ("train", "val") for name, reason in named.items()}
    job = read(parts)
    assert dict(job.listing.rejects) == {**both, ".cache/": "hidden folder"}
    assert job.source.unused() == ()


def test_archives_beside_shards_that_are_not_read(tmp_path: Path) -> None:
    """Half fetched, compressed in another way, or in capitals: images that would be lost without a word."""
    folders = classes(tmp_path / "set", 3, "cat", "dog")
    strays = ("set-002.tar.part", "set-003.TAR", "set-004.tar.zst", "set-005.tar.gz", "more.zip", "set-006.parquet")
    other = ("set-000.idx", "classes.json", "README.md", "_SUCCESS", "set.tar.md5", ".hidden.tar", "val.txt")
    for name, make in (("shards", forms.shards), ("whole", forms.tar_of_tars)):
        source = make(folders, tmp_path / name / ("set.tar" if name == "whole" else "")).parent
        source = tmp_path / name
        for stray in strays[:3] + strays[4:5] + other[:4] + other[5:]:
            (source / stray).write_bytes(b"x")
        named = dict.fromkeys(strays[:3] + strays[4:5], "an archive that is not read here")
        assert rejects(source) == named
        assert read(source).source.unused() == tuple(sorted(named))
    shutil.copytree(tmp_path / "shards", tmp_path / "parts" / "train")
    shutil.copytree(folders, tmp_path / "parts" / "val")
    names = {f"train/{name}" for name in strays[:3] + strays[4:5]}
    assert set(rejects(tmp_path / "parts")) == names
    for stray in strays:
        (tmp_path / "shards" / stray).write_bytes(b"x")
    assert set(rejects(tmp_path / "shards", kind="webdataset")) == set(strays)


@pytest.mark.parametrize("pack", [False, True])
def test_what_macos_puts_before_the_members_of_a_tar(pack: bool, tmp_path: Path) -> None:
    folders = classes(tmp_path / "set", 3, "cat", "dog")
    inner = forms.class_tars(folders, tmp_path / "inner")
    members = {"__MACOSX/set/._cat.tar": b"x", "set/._cat.tar": b"x", "set/cat.tar": (inner / "cat.tar").read_bytes()}
    members |= {"set/._dog.tar": b"x", "set/dog.tar": (inner / "dog.tar").read_bytes(), "set/.DS_Store": b"x"}
    path = tmp_path / "whole" / "all.tar"
    path.parent.mkdir()
    forms.flat_tar(members, path)
    path = pressed(path) if pack else path
    assert counts(path, val_per_class=0) == counts(path.parent, val_per_class=0) == {"train": (6, 2)}
    assert rejects(path)["set/._dog.tar"] == "hidden file"
    shards = tmp_path / "shards"
    shards.mkdir()
    names = [f"{start}s{i}.{ending}" for i in range(4) for ending in ("jpg", "cls") for start in ("._", "")]
    forms.flat_tar({name: b"0" if name.endswith("cls") else IMAGE for name in names}, shards / "s-000.tar")
    assert read(shards).source.describe()["kind"] == "webdataset"


def test_shards_as_img2dataset_writes_them(tmp_path: Path) -> None:
    """00000.tar, 00000.parquet and 00000_stats.json: the images are in the tar alone."""
    made = forms.shards(classes(tmp_path / "set", 3, "cat", "dog"), tmp_path / "made", label="json")
    root = tmp_path / "root"
    root.mkdir()
    for number, tar in enumerate(sorted(made.glob("*.tar"))):
        tar.rename(root / f"{number:05d}.tar")
        (root / f"{number:05d}.parquet").write_bytes(b"PAR1")
        (root / f"{number:05d}_stats.json").write_bytes(b"{}")
    job = read(root, val_per_class=0)
    assert (job.source.describe()["kind"], job.samples) == ("webdataset", {"train": 6})
    assert job.source.unused()[0] == "00000.parquet"
    (root / "00099.parquet").write_bytes(b"PAR1")
    assert "holds both tars and Parquet files" in reason(root)


def test_captions_make_no_classes_of_shards(tmp_path: Path) -> None:
    folders = tmp_path / "folders"
    for name in ("00000", "00001"):
        fill(fill(folders / name, 3), 3, ".txt")
    shards = forms.class_tars(folders, tmp_path / "shards")
    assert "none of the 6 images of" in reason(shards)
    assert counts(shards, kind="tars", val_per_class=0) == {"train": (6, 2)}
    for name in ("cat", "dog"):
        fill(fill(tmp_path / "named" / name, 3), 3, ".txt")
    assert counts(forms.class_tars(tmp_path / "named", tmp_path / "tars"), val_per_class=0) == {"train": (6, 2)}


def test_one_class_alone_is_said(tmp_path: Path) -> None:
    """A folder of flat images, beside their annotations or not, would be a class by its own name."""
    sentence = "  all images are of one class, images: if that is not so, sort them into one folder a class"
    root = tmp_path / "pets"
    fill(root / "images", 6)
    assert sentence in summary(read(root))
    fill(root / "annotations", 3, ".xml")
    assert sentence in summary(read(root))
    fill(root / "masks", 2)
    assert sentence not in summary(read(root))
    assert sentence not in summary(read(root, limit=1))
    assert sentence not in summary(read(root, classes=("images",)))


def test_hidden_folders_beside_shards(tmp_path: Path) -> None:
    source = forms.shards(classes(tmp_path / "set", 3, "cat", "dog"), tmp_path / "shards")
    fill(source / ".cache", 1)
    assert rejects(source) == {".cache/": "hidden folder"}


def test_a_json_beside_each_image_is_no_label(tmp_path: Path) -> None:
    """In class tars; in shards it is a label that is missing."""
    folders = tmp_path / "folders"
    for name in ("00001", "00002"):
        fill(fill(folders / name, 3), 3, ".json")
    shards = forms.class_tars(folders, tmp_path / "shards")
    assert "none of the 6 images of" in reason(shards)
    assert counts(shards, kind="tars", val_per_class=0) == {"train": (6, 2)}
    for name in ("n00000001", "n00000002"):
        (folders / f"0{name[-4:]}").rename(folders / name)
    assert counts(forms.class_tars(folders, tmp_path / "tars"), val_per_class=0) == {"train": (6, 2)}
    labelled = forms.shards(classes(tmp_path / "plain", 3, "a", "b"), tmp_path / "labelled", label="json")
    (labelled / "set-000.tar").rename(labelled / "one.tar")
    (labelled / "set-001.tar").rename(labelled / "two.tar")
    assert read(labelled).source.describe()["kind"] == "webdataset"


def test_the_validation_tar_counts_images_alone(tmp_path: Path) -> None:
    root = classes(tmp_path / "set" / "train", 4, "n01", "n02").parent
    members = {f"v{i}{ending}": IMAGE for i in range(3) for ending in (".JPEG", ".xml", ".json")}
    forms.flat_tar({**members, "readme.md": b"x", "._v0.JPEG": b"x"}, root / "ILSVRC2012_img_val.tar")
    (root / "val.txt").write_text(WNIDS)
    assert counts(root) == {"train": (8, 2), "val": (3, 2)}
    assert rejects(root) == {
        "val/*.xml": "3 files with the ending .xml, which is no image's",
        "val/*.json": "3 files with the ending .json, which is no image's",
        "val/readme.md": "its ending .md is no image's",
        "val/._v0.JPEG": "hidden file",
    }


def test_endings() -> None:
    file_filter = FileFilter("cat/")
    taken = ["a.jpg", "a.JPEG", "b/c.Png", "two.dots.tiff", "noending", "b.txt/noending", "x.jpe", "y.JFIF", "z.pnm"]
    assert all(file_filter.accepts(name.encode()) for name in taken)
    assert file_filter.rejects() == []
    assert not any(file_filter.accepts(name) for name in (b"a.jpg.json", b"a.jpg~", b"b.", b"a.\xff\n", b"d.jpg/x.csv"))
    assert dict(file_filter.rejects())["cat/a.\udcff\n"] == r"its ending .\xff\n is no image's"
    many = FileFilter("")
    for i in range(1000):
        many.accepts(b"x.%d" % i)
    lines = many.rejects()
    assert len(lines) == MOST_ENDINGS + 1
    assert lines[-1] == ("*", f"{1000 - MOST_ENDINGS} files with other endings, which are no image's")


def test_only_other_files_is_an_error_that_says_so(tmp_path: Path) -> None:
    root = tmp_path / "set"
    fill(root / "cat", 3, ".heic")
    assert "no images; the first reject is cat/*.heic: 3 files with the ending .heic" in reason(root)
