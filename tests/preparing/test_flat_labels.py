"""Images to validate on that lie flat, with their labels elsewhere."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from spectral_shards.preprocess.listing import Listing
from spectral_shards.preprocess.split.summary import summary
from support import forms
from support.layouts import IMAGE, SPLIT, WNIDS, classes, counts, fill, flat_val, read, reason, rejects, train_and
from support.programs import fails
from support.splits import make_split

KAGGLE = "ImageId,PredictionString\nv0,n02 1 2 3 4 n02 5 6 7 8\nv1,n01 1 2 3 4\nv2,n02 1 2 3 4\n"
TINY = "v0.JPEG\tn02\t0\t0\t9\t9\nv1.JPEG\tn01\t0\t0\t9\t9\nv2.JPEG\tn02\t0\t0\t9\t9\n"


@pytest.mark.parametrize(
    ("lines", "listing", "folder"),
    [
        (WNIDS, "val.txt", "val"),
        (WNIDS.replace("v0", "val/v0"), "validation/val.txt", "validation"),
        (KAGGLE, "LOC_val_solution.csv", "val"),
        ("\ufeff" + KAGGLE, "val/LOC_val_solution.csv", "val/images"),
        (TINY, "val/val_annotations.txt", "val/images"),
        (TINY, "val_annotations.txt", "Valid/Images"),
        ("v0.JPEG 1\nv1.JPEG 0\nv2.JPEG 1\n", "val.txt", "val"),
        (WNIDS, "elsewhere.txt", "val"),
    ],
)
def test_flat_images_with_a_list(lines: str, listing: str, folder: str, tmp_path: Path) -> None:
    root = tmp_path / "set"
    (root / folder).parent.mkdir(parents=True)
    if "/" in listing:
        (root / listing).parent.mkdir(exist_ok=True)
    (root / folder).mkdir(exist_ok=True)
    shutil.rmtree(root / folder)
    flat_val(root, "", "", folder)
    (root / listing).write_text(lines)
    named = {"val_labels": root / listing} if listing == "elsewhere.txt" else {}
    same = classes(tmp_path / "same" / "set" / "train", 4, "n01", "n02").parent
    for name, wnid in (("v0", "n02"), ("v1", "n01"), ("v2", "n02")):
        (same / "val" / wnid).mkdir(parents=True, exist_ok=True)
        (same / "val" / wnid / f"{name}.JPEG").write_bytes(IMAGE)
    job = read(root, **named)
    assert job.listing.digest() == read(same).listing.digest()
    assert job.listing.rejects == ()
    assert job.source.describe()["kind"] == "class-folders and labelled-folder"
    assert summary(job)[0] == f"set: class folders in train/ and labelled images in {folder.partition('/')[0]}/"
    if not named:
        first, second = (
            make_split(path, tmp_path / out, factor=4, size=16) for path, out in ((root, "a"), (same, "b"))
        )
        for name in ("00/val-000000.tar", "samples-val.tsv.gz", "03/train-000000.tar"):
            assert (first / name).read_bytes() == (second / name).read_bytes()


def test_labels_by_the_devkit_for_a_folder(tmp_path: Path) -> None:
    pytest.importorskip("scipy")
    root = classes(tmp_path / "set" / "train", 4, "n01", "n02").parent
    (root / "val").mkdir()
    for i in range(1, 4):
        (root / "val" / f"ILSVRC2012_val_{i:08d}.JPEG").write_bytes(IMAGE)
    kit = forms.devkit(root / f"{forms.DEVKIT}.tar.gz", ["n02", "n01"], ["n01", "n02", "n01"])
    assert read(root).listing.parts["val"].label.tolist() == [0, 0, 1]
    assert rejects(root) == {}
    kit.rename(tmp_path / "kit.tar.gz")
    assert counts(root, val_labels=tmp_path / "kit.tar.gz")["val"] == (3, 2)


def test_tiny_imagenet_as_it_comes(tmp_path: Path) -> None:
    root = tmp_path / "tiny-imagenet-200"
    for wnid in ("n01", "n02"):
        fill(root / "train" / wnid / "images", 4, ".JPEG")
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text("x\t0\t0\t1\t1\n")
    fill(root / "val" / "images", 3, ".JPEG")
    (root / "val" / "val_annotations.txt").write_text(
        "".join(f"images_{i:03d}.JPEG\tn0{1 + i % 2}\t0\t0\t9\t9\n" for i in range(3))
    )
    fill(root / "test" / "images", 2, ".JPEG")
    (root / "wnids.txt").write_text("n01\nn02\n")
    job = read(root)
    assert summary(job) == [
        "tiny-imagenet-200: class folders in train/ and labelled images in val/",
        "  train: 8 images of 2 classes",
        "  val: 3 images of 2 classes",
        "  not used: test/",
    ]
    assert job.listing.keys(job.listing.parts["train"], job.rows[0].indices[:1] * 0) == ["n01/images/images_000.JPEG"]
    shutil.rmtree(root / "val")
    assert rejects(root)["test/"] == "images without classes or labels"
    assert summary(read(root, val_per_class=1))[1:] == [
        "  train: 6 images of 2 classes",
        "  val: 2 images of 2 classes, taken from train",
        "  not used: test/",
    ]


def test_a_flat_part_without_labels(tmp_path: Path) -> None:
    for number, folder in enumerate(("val", "val/images", "dev")):
        root = flat_val(tmp_path / str(number), "", "", folder)
        sentence = reason(root)
        assert f"{root}/{folder} holds images without class folders and has no labels beside it: " in sentence
        assert f"put {forms.DEVKIT}.tar.gz there, or name " in sentence
        assert "with --val-labels" in sentence
    root = flat_val(tmp_path / "test", "", "", "test")
    assert rejects(root) == {"test/": "images without classes or labels"}
    (root / "list.txt").write_text(WNIDS)
    assert counts(root, val_labels=root / "list.txt")["val"] == (3, 2)
    command = (*SPLIT, "--val-labels", root / "none.txt", root)
    assert f"--val-labels {root}/none.txt does not exist" in fails(*command, cwd=tmp_path)


def test_a_flat_tar_to_validate_on(tmp_path: Path) -> None:
    same = train_and(tmp_path / "same")
    root = tmp_path / "set"
    root.mkdir()
    forms.tar_of_tars(same / "train", root / "train.tar")
    forms.flat_tar({f"v{i}.JPEG": IMAGE for i in range(3)}, root / "val.tar")
    assert f"{root}/val.tar holds images without class folders and has no labels beside it" in reason(root)
    (root / "val.txt").write_text("v0.JPEG bee\nv1.JPEG ant\nv2.JPEG bee\n")
    assert counts(root) == {"train": (8, 2), "val": (3, 2)}
    (root / "train.tar").unlink()
    shutil.copytree(same / "train", root / "train")
    assert counts(root) == {"train": (8, 2), "val": (3, 2)}
    assert read(root).source.describe()["kind"] == "class-folders and labelled-tar"


def test_labels_that_do_not_apply_are_never_ignored(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(WNIDS)
    same = train_and(tmp_path / "same", "val")
    shards = forms.shards(same / "train", tmp_path / "shards")
    tar = forms.tar_of_tars(same / "train", tmp_path / "set.tar")
    for source in (same, same / "train", shards, tar):
        assert "list.txt does not apply: " in reason(source, val_labels=tmp_path / "list.txt")
    command = (*SPLIT, "--val-labels", "list.txt", "same")
    assert "--val-labels list.txt does not apply: same has no validation images" in fails(*command, cwd=tmp_path)


def test_images_that_the_list_lacks_and_labels_without_images(tmp_path: Path) -> None:
    root = flat_val(tmp_path / "set", WNIDS.replace("v1.JPEG", "w1.JPEG") + "w2.JPEG n01\n")
    assert rejects(root) == {
        "val/v1.JPEG": "no label in val.txt",
        "val/val.txt": "2 of its 4 images are missing, as w1",
    }
    (root / "val.txt").write_text("w.JPEG n01\n")
    assert "has 1 classes but no images; the first reject is v0.JPEG: no label in val.txt" in reason(root)


@pytest.mark.parametrize(
    ("lines", "labels"),
    [
        ("filename,label\nv0.JPEG,great dane\nv1.JPEG,bee\nv2.JPEG,great dane\n", "great dane|bee|great dane"),
        ("v0.JPEG\tgreat dane\t1\nv1.JPEG\tbee\t1\nv2.JPEG\tgreat\t1\n", "great dane|bee|great"),
        ("v0.JPEG great dane\nv1.JPEG bee\nv2.JPEG great\n", "great dane|bee|great"),
        ('"v0.JPEG","bee, great"\n"v1.JPEG","bee"\n"v2.JPEG","great dane"\n', "bee, great|bee|great dane"),
        ("v0.JPEG bee, great\nv1.JPEG , bee\nv2.JPEG\t bee\n", "bee, great|bee|bee"),
        (
            "ImageId,PredictionString\nv0,great 1 2 3 4 great 5 6 7 8\nv1,bee 1 2 3 4\nv2,bee 0 -1 3 4\n",
            "great|bee|bee",
        ),
        ("Path,Label,Score\nv0.JPEG,3,1\nv1.JPEG,0,1\nv2.JPEG,1,0\n", "great dane|bee|bee, great"),
        ("v0 great\nv1 bee\nv2 great\n", "great|bee|great"),
        ("C:\\set\\val\\v0.JPEG,great\nC:\\set\\v1.JPEG,bee\nv2.JPEG,great dane\n", "great|bee|great dane"),
    ],
)
def test_lists_as_people_write_them(lines: str, labels: str, tmp_path: Path) -> None:
    root = classes(tmp_path / "set" / "train", 2, "bee", "bee, great", "great", "great dane").parent
    (root / "val").mkdir()
    for i in range(3):
        (root / "val" / f"v{i}.JPEG").write_bytes(IMAGE)
    (root / "val.txt").write_text(lines)
    listing = read(root).listing
    assert "|".join(listing.classes[label] for label in by_name(listing)) == labels
    assert listing.rejects == ()


def by_name(listing: Listing) -> list[int]:
    """The labels of val in order of the images' names."""
    val = listing.parts["val"]
    return [int(label) for _, label in sorted(zip(map(val.name, range(len(val))), val.label, strict=True))]


def test_a_list_of_one_column_a_class(tmp_path: Path) -> None:
    root = flat_val(tmp_path / "set", "filename, n01, n02\nv0.JPEG, 1, 0\nv1.JPEG, 0, 1\nv2.JPEG, 0, 1\n")
    assert f"the headline of {root}/val.txt does not call its second column label, but n01: keep" in reason(root)


def test_numbers_as_names_and_as_places(tmp_path: Path) -> None:
    def numbered(name: str, train: list[str], labels: list[int]) -> Path:
        root = classes(tmp_path / name / "train", 2, *train).parent
        fill(root / "val", len(labels))
        lines = [f"val_{i:03d}.jpg {label}\n" for i, label in enumerate(labels)]
        (root / "val.txt").write_text("".join(lines))
        return root

    for name, train, labels in (
        ("from one", ["1", "2", "3"], [1, 2]),
        ("as text", [str(i) for i in range(11)], [2, 0]),  # 0, 1, 10, 2: class 2 is at place 3
        ("out of range", ["5", "7"], [7, 5]),
    ):
        root = numbered(name, train, labels)
        sentence = reason(root)
        assert f"the labels of {root}/val are numbers, and so are the classes of train: label " in sentence
        assert "rename the classes" in sentence
    for name, train in (("padded", [f"{i:02d}" for i in range(11)]), ("few", ["0", "1", "2"])):
        assert read(numbered(name, train, [2, 0])).listing.parts["val"].label.tolist() == [0, 2]
    first = numbered("text, but the same", [str(i) for i in range(11)], [0, 1])
    assert read(first).listing.parts["val"].label.tolist() == [0, 1]
