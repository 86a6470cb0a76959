"""What people call parts: which names, and which folders and files, are which part."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectral_shards.preprocess.errors import SourceError
from spectral_shards.preprocess.sources.detect_parts import FolderSummary, PartAssignment, choose_files, choose_folders
from spectral_shards.preprocess.sources.part_names import WORDS, PartName, folder_part

FLAT, FULL, BOTH, EMPTY = (
    FolderSummary(True, False),
    FolderSummary(False, True),
    FolderSummary(True, True),
    FolderSummary(False, False),
)


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
    assert folder_part(said).exact


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
def test_which_folders_are_parts(looks: dict[str, FolderSummary], chosen: tuple[str, str, str, str] | None) -> None:
    found = choose_folders("root", list(looks), looks.__getitem__)
    wanted = chosen and PartAssignment(*((name,) if name else () for name in chosen))
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
def test_folders_that_are_refused(looks: dict[str, FolderSummary], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        choose_folders("root", list(looks), looks.__getitem__)


def test_few_folders_are_looked_into() -> None:
    """A class called train among very many: one look at it, and one at another class."""
    asked: list[str] = []

    def look(name: str) -> FolderSummary:
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
    assert choose_files("root", names.split()) == PartAssignment(*parts)


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
