"""Layouts as people have them: which folders, tars and files are which part, and what is left out."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from spectral_shards.preprocess.split.summary import summary
from support import forms
from support.buckets import BUCKET, Server, environment
from support.layouts import (
    SPLIT,
    WNIDS,
    classes,
    counts,
    fill,
    flat_val,
    nested,
    pressed,
    read,
    reason,
    rejects,
    train_and,
)
from support.programs import program
from support.splits import make_split


def test_winter21_as_it_is_processed(tmp_path: Path) -> None:
    root = tmp_path / "imagenet21k"
    train_and(root, "imagenet21k_val", train="imagenet21k_train")
    classes(root / "imagenet21k_small_classes", 2, "cow")
    done = program(*SPLIT, root, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:4] == [
        "imagenet21k: class folders in imagenet21k_train/ and imagenet21k_val/",
        "  train: 8 images of 2 classes",
        "  val: 6 images of 2 classes",
        "  not used: imagenet21k_small_classes/",
    ]
    lines = [json.loads(line) for line in (tmp_path / "out" / "rejects.jsonl").read_text().splitlines()]
    assert lines == [{"source": "imagenet21k_small_classes/", "reason": "belongs to neither train nor val"}]
    assert (tmp_path / "out" / "classes.tsv").read_text() == "0\tant\t4\t3\n1\tbee\t4\t3\n"
    dry = program(*SPLIT, root, "--dry-run", "--out", tmp_path / "dry")
    assert dry.stdout.splitlines()[:4] == done.stdout.splitlines()[:4]
    info = program("spectral-prep", "info", tmp_path / "out").stdout
    assert "  train: 8 images of 2 classes, 1 shards a band, order " in info
    assert "  val: 6 images of 2 classes, 1 shards a band, order " in info


@pytest.mark.parametrize(
    ("train", "val"),
    [("train", "valid"), ("Training", "DEV"), ("train2017", "val2017"), ("cats-train", "cats-evaluation")],
)
def test_a_split_does_not_depend_on_what_parts_are_called(train: str, val: str, tmp_path: Path) -> None:
    wanted = make_split(train_and(tmp_path / "a" / "set", "val"), tmp_path / "wanted", factor=4, size=16)
    out = make_split(train_and(tmp_path / "b" / "set", val, train=train), tmp_path / "out", factor=4, size=16)
    for name in ("manifest.json", "rejects.jsonl", "03/train-000000.tar", "00/val-000000.tar", "rows/plan.json"):
        assert (out / name).read_bytes() == (wanted / name).read_bytes()


def test_val_is_val_and_test_is_named(tmp_path: Path) -> None:
    root = train_and(tmp_path / "set", "test", "validation")
    (root / "train_lists").mkdir()
    shutil.copy(forms.class_tars(root / "test", tmp_path / "tars") / "ant.tar", root / "more.tar")
    fill(root, 2)
    (root / "README.md").write_text("x")
    assert counts(root) == {"train": (8, 2), "val": (6, 2)}
    assert rejects(root) == {
        "test/": "a test part, not used beside a val part",
        "train_lists/": "belongs to neither train nor val",
        "more.tar": "belongs to neither train nor val",
        "set_000.jpg ...": "2 images that lie in the folder of no part",
    }
    assert summary(read(root))[-1] == "  not used: test/, train_lists/, more.tar, set_000.jpg ..."
    assert counts(train_and(tmp_path / "only", "Testing")) == {"train": (8, 2), "val": (6, 2)}
    many = train_and(tmp_path / "many", "val")
    for i in range(8):
        (many / f"more{i}").mkdir()
    assert summary(read(many))[-1] == "  not used: more0/, more1/, more2/, more3/, more4/ and 3 more"


def test_classes_that_are_called_like_parts(tmp_path: Path) -> None:
    root = classes(tmp_path / "set", 6, "bus", "train", "boat", "train_station", "steam_train", "test_tube")
    job = read(root)
    assert job.listing.classes == ("boat", "bus", "steam_train", "test_tube", "train", "train_station")
    assert summary(job)[0] == "set: class folders"
    assert sum(job.samples.values()) == 36
    fill(root / "train_station" / "platform", 3)
    assert counts(root)["train"][1] == 6
    tars = forms.class_tars(classes(tmp_path / "plain", 3, "bus", "train", "boat"), tmp_path / "tars")
    assert read(tars).listing.classes == ("boat", "bus", "train")
    inside = classes(tmp_path / "inside" / "train", 3, "train", "val", "bus")
    assert read(inside.parent).listing.classes == ("bus", "train", "val")
    bare = classes(tmp_path / "bare", 3, "train", "bus")
    for path in list(bare.glob("*/*.jpg")):
        path.rename(path.with_suffix(""))
    assert read(bare).listing.classes == ("bus", "train")
    flat = classes(tmp_path / "flat", 3, "train", "test")
    assert "flat/train holds images" in reason(flat)
    assert read(flat, kind="folders").listing.classes == ("test", "train")


@pytest.mark.parametrize(
    "names",
    [("train_images", "test_images"), ("Data-Train", "data_val"), ("train2017", "val2017"), ("a_train", "a_test")],
)
def test_flat_images_in_parts_are_no_classes(names: tuple[str, str], tmp_path: Path) -> None:
    """As contests have them, with the labels in a table."""
    root = classes(tmp_path / "set", 3, *names)
    (root / "train.csv").write_text("id,label\n")
    assert f"{root}/{names[0]} holds images, not one folder or one tar of them a class: " in reason(root)
    assert read(root, kind="folders").listing.classes == tuple(sorted(names))
    (root / names[1]).rename(root / "bus")
    if names[0] != "train2017":
        assert len(read(root).listing.classes) == 2


def test_counts_show_that_a_part_lacks_classes(tmp_path: Path) -> None:
    root = classes(tmp_path / "set" / "train", 4, "ant", "bee", "cow").parent
    classes(root / "val", 1, "bee")
    assert summary(read(root)) == [
        "set: class folders in train/ and val/",
        "  train: 12 images of 3 classes",
        "  val: 1 image of 1 of the 3 classes",
    ]
    out = make_split(root, tmp_path / "out", factor=4, size=16)
    assert "  val: 1 image of 1 of the 3 classes, 1 shards a band" in program("spectral-prep", "info", out).stdout


MAKE: dict[str, tuple[Callable[[Path, Path], Path], str]] = {
    "class tars": (forms.class_tars, ""),
    "compressed class tars": (forms.class_tars_gz, ""),
    "tar of tars": (forms.tar_of_tars, ".tar"),
    "compressed tar of tars": (forms.tar_of_tars_gz, ".tar.gz"),
}


@pytest.mark.parametrize("form", MAKE)
@pytest.mark.parametrize(("train", "val"), [("train", "valid"), ("x_training", "x_dev")])
def test_parts_as_tars(form: str, train: str, val: str, tmp_path: Path) -> None:
    same = train_and(tmp_path / "same", "val", "test")
    make, ending = MAKE[form]
    root = tmp_path / "set"
    root.mkdir()
    for name, part in ((train, "train"), (val, "val"), ("test", "test")):
        made = make(same / part, tmp_path / "made" / part / f"{name}{ending}")
        made.rename(root / made.name)
    job = read(root)
    assert (job.samples, job.listing.classes) == ({"train": 8, "val": 6}, ("ant", "bee"))
    assert job.listing.digest() == read(same).listing.digest()
    assert rejects(root) == {f"test{ending or '/'}": "a test part, not used beside a val part"}
    assert summary(job)[0] == f"set: {form} in {train}{ending or '/'} and {val}{ending or '/'}"


def test_one_part_in_a_tar_and_one_in_a_folder(tmp_path: Path) -> None:
    same = train_and(tmp_path / "same", "val")
    first = tmp_path / "first"
    shutil.copytree(same / "val", first / "val")
    forms.tar_of_tars(same / "train", first / "train.tar")
    second = tmp_path / "second"
    shutil.copytree(same / "train", second / "train")
    forms.tar_of_tars(same / "val", second / "val.tar")
    for root in (first, second):
        assert read(root).listing.digest() == read(same).listing.digest()
    shutil.copytree(same / "val", second / "val")  # the tar that it was unpacked from stays beside it
    assert rejects(second) == {"val.tar": "belongs to neither train nor val"}


@pytest.mark.parametrize("pack", [False, True])
def test_tars_of_class_folders_are_no_classes(pack: bool, tmp_path: Path) -> None:
    same = train_and(tmp_path / "same", "val")
    option = "tars-gz" if pack else "tars"
    for number, names in enumerate((("train", "val"), ("pets_train", "pets_test"), ("train", None), ("Train", "Dev"))):
        root = tmp_path / str(number)
        for name, part in zip(names, ("train", "val"), strict=True):
            if name:
                tar = nested(same / part, root / f"{name}.tar")
                if pack:
                    pressed(tar)
        sentence = reason(root)
        assert "named as parts of a data set: unpack each into a folder of its name" in sentence
        assert f"take them for classes with --source {option}" in sentence
        assert len(read(root, kind=option, val_per_class=0).listing.classes) == len([n for n in names if n])
    assert "unpack it" in reason(next((tmp_path / "0").iterdir()))


@pytest.mark.parametrize("pack", [False, True])
def test_one_tar_of_class_folders_is_no_class(pack: bool, tmp_path: Path) -> None:
    same = train_and(tmp_path / "same")
    tar = nested(same / "train", tmp_path / "set" / "imagenet.tar")
    deep = nested(same, tmp_path / "deep" / "imagenet.tar")
    for path in (tar, deep):
        if pack:
            pressed(path)
    for root, example in ((tar.parent, "ant and bee"), (deep.parent, "train/ant and train/bee")):
        assert f"the only tar, imagenet, would be one class, but its images lie in several folders, as {example}: " in (
            reason(root)
        )
        assert counts(root, kind="tars-gz" if pack else "tars", val_per_class=0) == {"train": (8, 1)}
    one = nested(classes(tmp_path / "one", 3, "n01"), tmp_path / "only" / "n01.tar")
    assert counts(one.parent, val_per_class=0) == {"train": (3, 1)}


@pytest.mark.parametrize("train", ["train", "set_train"])
def test_train_in_a_folder_and_val_in_numbered_files(train: str, tmp_path: Path) -> None:
    """The numbers of shards are no words of a name."""
    for form, make in (("tar", forms.shards), ("parquet", forms.parquet)):
        root = train_and(tmp_path / form / "set", "val", train=train)
        made = make(root / "val", tmp_path / form / "made")
        (made / "classes.txt").write_text("ant\nbee\n")
        for number, path in enumerate(sorted(made.glob(f"*.{form}"))):
            path.rename(root / f"{train.replace('train', 'val')}-{number:05d}-of-00002.{form}")
        shutil.copy(made / "classes.txt", root)
        shutil.rmtree(root / "val")
        assert counts(root) == {"train": (8, 2), "val": (6, 2)}
        assert read(root).source.unused() == ()


def test_the_tars_of_imagenet_half_unpacked(tmp_path: Path) -> None:
    """Into folders of the tars' own names, or called after the parts."""
    same = train_and(tmp_path / "set", "val")
    forms.tar_of_tars(same / "train", same / "ILSVRC2012_img_train.tar")
    shutil.rmtree(same / "train")
    assert counts(same) == {"train": (8, 2), "val": (6, 2)}
    (same / "val").rename(same / "ILSVRC2012_img_val")
    assert counts(same) == {"train": (8, 2), "val": (6, 2)}
    classes(same / "val", 1, "ant")
    assert counts(same)["val"] == (1, 1)
    assert read(same).source.unused() == ("ILSVRC2012_img_val/",)
    both = train_and(tmp_path / "both", "ILSVRC2012_img_val", train="ILSVRC2012_img_train")
    assert counts(both, kind="imagenet") == counts(both) == {"train": (8, 2), "val": (6, 2)}


@pytest.mark.parametrize("part", ["val", "Test", "validation2012"])
def test_a_part_among_classes(part: str, tmp_path: Path) -> None:
    """The classes of train may lie beside val/; it is no class of them."""
    root = classes(tmp_path / "set", 3, "cat", "dog")
    classes(root / part, 2, "cat", "dog")
    assert reason(root).startswith(f"{root} holds {part}/ beside class folders, and no train/: move the classes into ")
    assert read(root, kind="folders").listing.classes == tuple(sorted(("cat", "dog", part)))
    tars = classes(tmp_path / "tars", 3, "cat", "dog")
    forms.class_tars(tars, tmp_path / "made")
    shutil.copytree(tmp_path / "made", tars / part)
    assert f"{tars} holds {part}/ beside class folders" in reason(tars)
    shutil.rmtree(root / part)
    fill(root / part, 2)
    assert len(read(root).listing.classes) == 3


def test_two_tars_of_tars_of_no_part(tmp_path: Path) -> None:
    same = train_and(tmp_path / "same", "val")
    root = tmp_path / "set"
    root.mkdir()
    for name in ("first", "second"):
        forms.tar_of_tars(same / "train", root / f"{name}.tar")
    assert "holds 2 tars: name the one tar of class tars" in reason(root)


def test_compressed_shards_are_refused(tmp_path: Path) -> None:
    shards = forms.shards(classes(tmp_path / "same", 3, "a", "b"), tmp_path / "set")
    for tar in list(shards.glob("*.tar")):
        pressed(tar)
    assert "holds compressed WebDataset shards, as set-000.tar.gz: expand them with gunzip" in reason(shards)


@pytest.mark.parametrize(("train", "val"), [("train", "valid"), ("training", "dev"), ("x-TRAIN", "x-Eval")])
@pytest.mark.parametrize("make", [forms.shards, forms.parquet])
def test_parts_of_shards_and_parquet(make: Callable[..., Path], train: str, val: str, tmp_path: Path) -> None:
    same = train_and(tmp_path / "same", "val", "test")
    root = tmp_path / "set"
    pattern = "{}-{{:03d}}.tar" if make is forms.shards else "{}-{{:05d}}-of-00002.parquet"
    for part, name in (("train", train), ("val", val), ("test", "x-test"), ("test", "x-small")):
        make(same / part, root, pattern.format(name))
    job = read(root)
    assert job.listing.digest() == read(same).listing.digest()
    left_out = sorted(path.name for path in root.iterdir() if path.name.startswith(("x-test", "x-small")))
    assert sorted(rejects(root)) == left_out
    assert [line for line in summary(job) if "not used" in line] == [
        f"  not used: {', '.join(sorted(left_out, key=_role))}"
    ]


def _role(name: str) -> tuple[bool, str]:
    return "test" not in name, name


def test_parquet_files_as_a_data_hub_converts_them(tmp_path: Path) -> None:
    same = train_and(tmp_path / "same", "val", "test")
    root = tmp_path / "set"
    for part, name in (("train", "train"), ("val", "validation"), ("test", "test")):
        forms.parquet(same / part, root / "default" / name, "{:04d}.parquet")
    (root / "assets").mkdir()
    wanted = read(same).listing.digest()
    job = read(root)
    assert job.listing.digest() == wanted
    assert job.source.describe() == {"kind": "parquet", "name": "set"}
    assert summary(job)[0] == "set: Parquet files in train/ and validation/"
    assert sorted(rejects(root)) == ["assets/", "test/"]
    pattern = f"{root}/default/{{train,validation,test}}/{{0000..0001}}.parquet"
    job = read(pattern)
    assert job.listing.digest() == wanted
    assert job.source.describe()["name"] == "default"
    assert sorted(rejects(pattern)) == ["test/0000.parquet", "test/0001.parquet"]
    shutil.copytree(root / "default", root / "small")
    assert f"{root} holds the configurations default and small: name one, as {root}/default" in reason(root)
    old = tmp_path / "old"
    forms.parquet(same / "train", old / "set", "x-train-{:05d}.parquet")
    forms.parquet(same / "val", old / "set", "x-validation-{:05d}.parquet")
    assert read(old).listing.digest() == wanted


def test_a_rerun_says_the_same(tmp_path: Path) -> None:
    root = train_and(tmp_path / "set", "val", "test")
    command = (*SPLIT, root, "--out", tmp_path / "out")
    first = program(*command)
    assert first.returncode == 0, first.stderr
    assert (tmp_path / "out" / "rows" / "scan.bin").exists()
    again = program(*command)
    assert again.stdout.splitlines()[:4] == first.stdout.splitlines()[:4]
    assert "nothing to do" in again.stdout
    (root / "more").mkdir()
    more = program(*command)
    assert more.stdout.splitlines()[3] == "  not used: more/, test/"
    assert len((tmp_path / "out" / "rejects.jsonl").read_text().splitlines()) == 2


def test_layouts_in_a_bucket_and_on_a_web_server(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment(server.port).items():
        monkeypatch.setenv(name, value)
    winter = train_and(tmp_path / "winter", "x_val", "x_small", train="x_train")
    fill(winter / "lost+found", 1)
    flat = flat_val(tmp_path / "flat", WNIDS)
    fill(flat / "train" / "n01", 5, ".json")
    same = train_and(tmp_path / "same", "val")
    shards = forms.shards(same / "train", tmp_path / "shards", "training-{:03d}.tar")
    forms.shards(same / "val", shards, "valid-{:03d}.tar")
    for part, name in (("train", "train"), ("val", "validation")):
        forms.parquet(same / part, tmp_path / "hub" / "default" / name, "{:04d}.parquet")
    tars = tmp_path / "tars"
    tars.mkdir()
    forms.tar_of_tars(same / "train", tars / "train.tar")
    forms.tar_of_tars(same / "val", tars / "valid.tar")
    deep = tmp_path / "deep"
    classes(deep / "imagenet", 2, "n01", "n02")
    named = nested(same / "train", tmp_path / "named" / "train.tar").parent
    for root in (winter, flat, shards, tmp_path / "hub", tars, deep, named):
        server.put(root, f"layouts/{root.name}")
    for root in (winter, flat, shards, tmp_path / "hub", tars):
        here, there = read(root), read(f"s3://{BUCKET}/layouts/{root.name}", scratch=tmp_path / "scratch")
        assert there.listing.digest() == here.listing.digest()
        assert there.listing.rejects == here.listing.rejects
        assert summary(there) == summary(here)
        assert set(here.samples) == {"train", "val"}
    assert "as imagenet/n01" in reason(f"s3://{BUCKET}/layouts/deep")
    assert "named as parts" in reason(f"s3://{BUCKET}/layouts/named")
    for pattern, root in (
        ("shards/{training-{000..001},valid-{000..001}}.tar", shards),
        ("hub/default/{train,validation}/{0000..0001}.parquet", tmp_path / "hub"),
        ("tars/{train,valid}.tar", tars),
    ):
        job = read(f"{server.web}/layouts/{pattern}", scratch=tmp_path / "scratch")
        assert job.listing.digest() == read(root).listing.digest(), pattern


FAULTS = {
    "folders/w21": {"train": (60, 3), "val": (15, 3)},
    "folders/robo": {"train": (40, 2), "val": (10, 2)},
    "folders/junk": {"train": (38, 2), "val": (2, 2)},
    "folders/mac": {"train": (18, 2), "val": (2, 2)},
    "folders/clsloc": {"train": (16, 2), "val": (4, 1)},
    "folders/tiny-imagenet-200": {"train": (16, 2), "val": (4, 1)},
    "webdataset/wvalid": {"train": (8, 2), "val": (8, 2)},
    "webdataset/wtraining": {"train": (8, 2), "val": (8, 2)},
    "parquet/pq_auto": {"train": (12, 2), "val": (12, 2)},
}


@pytest.mark.parametrize("name", FAULTS)
def test_inputs_from_reports(name: str, shared_data: Path) -> None:
    if not (shared_data / "faults").is_dir():
        pytest.skip("the inputs from reports are not here")
    assert counts(shared_data / "faults" / name) == FAULTS[name]


def test_real_images_under_other_names(shared_data: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    for number, folder in enumerate(sorted((shared_data / "imagenet-sample").iterdir())[:6]):
        shutil.copytree(folder, root / ("sample_training", "sample_evaluation")[number % 2] / f"c{number // 2}")
    assert {part: found[1] for part, found in counts(root).items()} == {"train": 3, "val": 3}
    with tarfile.open(fileobj=io.BytesIO((nested(root / "sample_training", tmp_path / "t.tar")).read_bytes())) as tar:
        assert len(tar.getnames()) == counts(root)["train"][0]
