"""Layouts as people have them: which folders and files are which part, which are classes, and what is left out."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import forms
import pytest
from buckets import BUCKET, Server, environment
from conftest import encode, fails, make_split, picture, program
from hypothesis import given
from hypothesis import strategies as st

from preprocess.errors import PlanError, SourceError
from preprocess.plan import SplitPlan
from preprocess.run import Job, prepare
from preprocess.sources import SourceOptions
from preprocess.sources.choose import Chosen, Look, choose_files, choose_folders
from preprocess.sources.names import IMAGE_ENDINGS, MOST_ENDINGS, Candidates
from preprocess.sources.part_names import WORDS, PartName, folder_part
from preprocess.summary import summary

IMAGE = encode(picture(1, 20, 30))
SPLIT = ("spectral-prep", "split", "--factor", "4", "--size", "16", "--jobs", "1")
FLAT, FULL, BOTH, EMPTY = Look(True, False), Look(False, True), Look(True, True), Look(False, False)


def fill(folder: Path, count: int, ending: str = ".jpg", first: int = 0) -> Path:
    """So many files in a folder: images, and for other endings text."""
    folder.mkdir(parents=True, exist_ok=True)
    image = ending.lower() in IMAGE_ENDINGS
    for i in range(first, first + count):
        (folder / f"{folder.name}_{i:03d}{ending}").write_bytes(IMAGE if image else b"{}")
    return folder


def classes(root: Path, count: int, *names: str) -> Path:
    """An ImageFolder with so many images in each class."""
    for name in names:
        fill(root / name, count)
    return root


def read(root: Path | str, **options: object) -> Job:
    """The source as a split of it would read it."""
    source = {name: options.pop(name) for name in ("kind", "val_labels", "scratch") if name in options}
    plan = SplitPlan(4, size=16, **options)  # type: ignore[arg-type]
    return prepare(root, plan, SourceOptions(**source))  # type: ignore[arg-type]


def counts(root: Path | str, **options: object) -> dict[str, tuple[int, int]]:
    """Images and classes of each part."""
    job = read(root, **options)
    return {part: (images, job.classes[part]) for part, images in job.samples.items()}


def reason(root: Path | str, **options: object) -> str:
    """The one sentence that a source is refused with."""
    with pytest.raises((SourceError, PlanError)) as caught:
        read(root, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def rejects(root: Path | str, **options: object) -> dict[str, str]:
    return dict(read(root, **options).listing.rejects)


def train_and(out: Path, *parts: str, train: str = "train") -> Path:
    """train/ with 2 x 4 images, and each of `parts` with 2 x 3."""
    classes(out / train, 4, "ant", "bee")
    for part in parts:
        classes(out / part, 3, "ant", "bee")
    return out


# names


@pytest.mark.parametrize(
    ("name", "role", "rest"),
    [
        ("train", "train", ()),
        ("Training", "train", ()),
        ("VALID", "val", ()),
        ("validation", "val", ()),
        ("dev", "val", ()),
        ("eval", "val", ()),
        ("Evaluation", "val", ()),
        ("testing", "test", ()),
        ("val2017", "val", ()),
        ("train2012", "train", ()),
        ("imagenet21k_train", "train", ("imagenet21k",)),
        ("imagenet21k_val", "val", ("imagenet21k",)),
        ("imagenet21k_small_classes", "", ()),
        ("ILSVRC2012_img_train", "train", ("ilsvrc2012", "img")),
        ("train-images", "train", ("images",)),
        ("test set", "test", ("set",)),
        ("train_256", "train", ("256",)),
        ("training.data", "train", ("data",)),
        ("retrain", "", ()),
        ("trains", "", ()),
        ("my_train_set", "", ()),
        ("validate", "", ()),
        ("train_val", "", ()),
        ("train_a_train", "train", ("train", "a")),
        ("n01440764", "", ()),
        ("", "", ()),
        ("___", "", ()),
        ("2017", "", ()),
    ],
)
def test_the_role_of_a_folders_name(name: str, role: str, rest: tuple[str, ...]) -> None:
    assert folder_part(name) == PartName(role, rest)


@given(
    st.sampled_from(sorted(WORDS)),
    st.sampled_from([str.lower, str.upper, str.title]),
    st.sampled_from("_-. +"),
    st.from_regex(r"\A[a-z0-9]{1,8}\Z").filter(lambda word: word.rstrip("0123456789") not in WORDS),
    st.sampled_from(["", "2012", "1"]),
)
def test_a_part_word_first_or_last(word: str, case: Callable[[str], str], sign: str, other: str, digits: str) -> None:
    said = case(word) + digits
    for name in (f"{said}{sign}{other}", f"{other}{sign}{said}"):
        assert folder_part(name) == PartName(WORDS[word], (other,))
    assert folder_part(f"{other}{sign}{said}{sign}{other}") == PartName("")
    assert folder_part(other) == PartName("")
    assert folder_part(said).whole


@pytest.mark.parametrize(
    ("looks", "chosen"),
    [
        ({"train": FULL, "val": FULL}, ("train", "val", "", "")),
        ({"Training": FULL, "Test": FULL}, ("Training", "", "Test", "")),
        ({"train": FULL, "val": FULL, "test": FLAT}, ("train", "val", "test", "")),
        ({"train": FULL, "val": FLAT}, ("train", "val", "", "")),
        ({"train": FULL, "extra": FLAT}, ("train", "", "", "extra")),
        ({"s_train": FULL, "s_val": FULL, "s_small": FULL}, ("s_train", "s_val", "", "s_small")),
        ({"s_train": FULL, "s_small": FULL}, ("s_train", "", "", "s_small")),
        ({"s_train": FULL, "s_val": FLAT, "samples": FLAT}, ("s_train", "s_val", "", "samples")),
        ({"train": FULL, "train_mini": FULL, "val": FULL}, ("train", "val", "", "train_mini")),
        ({"train": FULL, "test_tube": FLAT}, ("train", "", "", "test_tube")),
        ({"train": BOTH, "val": FULL}, ("train", "val", "", "")),
        ({"train": BOTH}, ("train", "", "", "")),
        ({"train": EMPTY, "val": FULL}, ("train", "val", "", "")),
        ({"bus": FLAT, "train": FLAT, "boat": FLAT}, None),
        ({"bus": FLAT, "train": EMPTY}, None),
        ({"bus": FLAT, "Train": FLAT, "test_tube": FLAT}, None),
        ({"steam_train": FLAT, "test_tube": FLAT, "train_station": FLAT}, None),
        ({"train_station": FULL, "bus": FLAT, "test_tube": FULL}, None),
        ({"val": FULL, "test": FULL}, None),
        ({}, None),
    ],
)
def test_which_folders_are_parts(looks: dict[str, Look], chosen: tuple[str, str, str, str] | None) -> None:
    found = choose_folders("root", list(looks), looks.__getitem__)
    wanted = chosen and Chosen(*((name,) if name else () for name in chosen))
    assert found == wanted


@pytest.mark.parametrize(
    ("looks", "message"),
    [
        ({"train": FULL, "training": FULL}, "root holds one part twice, as train and as training"),
        ({"train": FULL, "val": FULL, "dev": FULL}, "root holds one part twice, as val and as dev"),
        ({"train": FULL, "Valid": FLAT, "validation": FULL}, "as Valid and as validation"),
        ({"a_train": FULL, "b_train": FULL}, "root holds one part twice, as a_train and as b_train"),
        ({"train": FLAT, "test": FLAT}, "root/train holds images, not one folder or one tar of them a class"),
        ({"train": FLAT}, "root/train holds images"),
        ({"train": FLAT, "val": FULL, "bus": FLAT}, "root/train holds images"),
        ({"train": BOTH, "bus": FLAT}, "root/train holds images"),
    ],
)
def test_folders_that_are_refused(looks: dict[str, Look], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        choose_folders("root", list(looks), looks.__getitem__)


def test_few_folders_are_looked_into() -> None:
    """A class called train among very many: one look at it, and one at another class."""
    asked: list[str] = []

    def look(name: str) -> Look:
        asked.append(name)
        return FLAT

    names = [f"n{i:08d}" for i in range(21_841)] + ["train"]
    assert choose_folders("root", names, look) is None
    assert sorted(asked) == ["n00000000", "train"]


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        ("a-0 a-1", "a-0 a-1; ; ; "),
        ("train-0 valid-0", "train-0; valid-0; ; "),
        ("training-0 training-1 test-0", "training-0 training-1; ; test-0; "),
        ("x-train-0 x-val-0 x-test-0 x-more-0", "x-train-0; x-val-0; x-test-0; x-more-0"),
        ("x-0 x-1 x-eval-0", "x-0 x-1; x-eval-0; ; "),
        ("val-0 val-1", "val-0 val-1; ; ; "),
        ("train0 train1 val0", "train0 train1; val0; ; "),
        ("test-set-train-0 test-set-val-0", "test-set-train-0; test-set-val-0; ; "),
        ("default/train/0 default/validation/0", "default/train/0; default/validation/0; ; "),
        ("test/train-0 test/dev-0", "test/train-0; test/dev-0; ; "),
        ("TRAIN_0 Val_0", "TRAIN_0; Val_0; ; "),
    ],
)
def test_which_files_are_parts(names: str, chosen: str) -> None:
    parts = [tuple(some.split()) for some in chosen.split(";")]
    assert choose_files("root", names.split()) == Chosen(*parts)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("train-0 training-0", "root holds one part twice, as train-0 and as training-0"),
        ("train-0 val-0 dev-0", "root holds one part twice, as val-0 and as dev-0"),
        ("val-0 test-0", "root holds val-0 and test-0, but no train part"),
        ("train-0 train-eval-0 val-0 x-0", "train-eval-0 in root names two parts, eval and train"),
    ],
)
def test_files_that_are_refused(names: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        choose_files("root", names.split())


# parts in folders


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


# parts in tars


def nested(folders: Path, out: Path) -> Path:
    """A tar with class/image.jpg in it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(out, "w") as tar:
        for path in sorted(p for p in folders.rglob("*") if p.is_file()):
            forms.add(tar, str(path.relative_to(folders)), path.read_bytes())
    return out


def pressed(tar: Path) -> Path:
    packed = tar.with_name(f"{tar.name}.gz")
    packed.write_bytes(gzip.compress(tar.read_bytes(), 1))
    tar.unlink()
    return packed


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


# shards and Parquet files


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


# labels of images that lie flat


def flat_val(out: Path, lines: str, listing: str = "val.txt", folder: str = "val") -> Path:
    """train/ of two classes, three flat images to validate on, and a list."""
    root = classes(out / "train", 4, "n01", "n02").parent
    (root / folder).mkdir(parents=True)
    for i in range(3):
        (root / folder / f"v{i}.JPEG").write_bytes(IMAGE)
    if listing:
        (root / listing).write_text(lines)
    return root


WNIDS = "v0.JPEG n02\nv1.JPEG n01\nv2.JPEG n02\n"
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
        "  val: 2 images of 2 classes, held out of train",
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


# folders of folders, and what is no class


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
    held = tmp_path / "held"
    classes(held / "val", 2, "n01", "n02")
    classes(held / "test", 2, "n01", "n02")
    for root, example in ((one, "imagenet/n01"), (two, "cats/persian"), (wrapped, "data/train"), (held, "test/n01")):
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


# files that are no images


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


def test_a_json_beside_each_image_is_no_label(tmp_path: Path) -> None:
    """In class tars; in shards it is a label that is missing."""
    folders = tmp_path / "folders"
    for name in ("00001", "00002"):
        fill(fill(folders / name, 3), 3, ".json")
    shards = forms.class_tars(folders, tmp_path / "shards")
    assert "no images" in reason(shards)
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
    candidates = Candidates("cat/")
    taken = ["a.jpg", "a.JPEG", "b/c.Png", "two.dots.tiff", "noending", "b.txt/noending", "x.jpe", "y.JFIF", "z.pnm"]
    assert all(candidates.takes(name.encode()) for name in taken)
    assert candidates.rejects() == []
    assert not any(candidates.takes(name) for name in (b"a.jpg.json", b"a.jpg~", b"b.", b"a.\xff\n", b"d.jpg/x.csv"))
    assert dict(candidates.rejects())["cat/a.\udcff\n"] == r"its ending .\xff\n is no image's"
    many = Candidates("")
    for i in range(1000):
        many.takes(b"x.%d" % i)
    lines = many.rejects()
    assert len(lines) == MOST_ENDINGS + 1
    assert lines[-1] == ("*", f"{1000 - MOST_ENDINGS} files with other endings, which are no image's")


def test_only_other_files_is_an_error_that_says_so(tmp_path: Path) -> None:
    root = tmp_path / "set"
    fill(root / "cat", 3, ".heic")
    assert "no images; the first reject is cat/*.heic: 3 files with the ending .heic" in reason(root)


# elsewhere, again, and for real


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
