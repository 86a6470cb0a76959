"""The 21K protocol: classes by count and by list."""

import json
from pathlib import Path

import pytest

from spectral_shards.preprocess.config import SplitConfig
from spectral_shards.preprocess.errors import ConfigError, DestinationError, SourceError
from spectral_shards.preprocess.listing import Listing
from spectral_shards.preprocess.sources import find_source
from spectral_shards.preprocess.split import class_filter as chosen
from spectral_shards.preprocess.split.class_filter import choose_classes, class_note, read_class_list
from support.pictures import class_folders
from support.programs import fails, program
from support.splits import make_split


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return class_folders(tmp_path_factory.mktemp("source") / "set", {"n1": 6, "n2": 2, "n3": 9, "n4": 5})


def choose(source: Path, **options: object) -> Listing:
    return choose_classes(find_source(source).scan(), SplitConfig(4, **options))  # type: ignore[arg-type]


def test_small_classes_are_dropped_and_reported(source: Path, tmp_path: Path) -> None:
    out = make_split(source, tmp_path / "out", factor=4, size=16, min_class_images=6, val_per_class=2)
    assert (out / "classes.tsv").read_text() == "0\tn1\t4\t2\n1\tn3\t7\t2\n"
    lines = [json.loads(line) for line in (out / "rejects.jsonl").read_text().splitlines()]
    assert lines == [
        {"source": "n2/", "reason": "class dropped with 2 images: fewer than 6"},
        {"source": "n4/", "reason": "class dropped with 5 images: fewer than 6"},
    ]
    plan = json.loads((out / "rows" / "plan.json").read_text())["plan"]
    assert plan["min_class_images"] == 6
    with pytest.raises(DestinationError, match="min-class-images 6 there, 5 here"):
        make_split(source, out, factor=4, size=16, min_class_images=5, val_per_class=2)


def test_a_split_of_chosen_classes_is_that_of_a_source_with_only_these(source: Path, tmp_path: Path) -> None:
    """The same labels and the same bytes as if the other classes had never been there."""
    only = class_folders(tmp_path / "set", {"n1": 6})
    (only / "n3").symlink_to(source / "n3", target_is_directory=True)
    wanted = make_split(only, tmp_path / "only", factor=4, size=16)
    out = make_split(source, tmp_path / "out", factor=4, size=16, min_class_images=6)
    for name in ("00/train-000000.tar", "03/train-000000.tar", "samples-train.tsv.gz", "00/manifest.json"):
        assert (out / name).read_bytes() == (wanted / name).read_bytes()


def test_a_list_fixes_the_order(source: Path) -> None:
    found = choose(source, classes=("n4", "n1", "n3"))
    assert found.classes == ("n4", "n1", "n3")
    entries = found.parts["train"]
    assert entries.label.tolist() == [0] * 5 + [1] * 6 + [2] * 9
    assert [found.key(entries, i) for i in (0, 5, 19)] == ["n4/n4_000.JPEG", "n1/n1_000.JPEG", "n3/n3_008.JPEG"]
    assert ("n2/", "class dropped with 2 images: not on the list") in found.rejects


def test_classes_that_the_source_lacks(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SourceError, match=r"no images of n9, which --classes lists \(1 such classes of 2\)"):
        choose(source, classes=("n1", "n9"))
    found = choose(source, classes=("n3", "n9", "n2"), min_class_images=3)
    assert found.classes == ("n3",)
    assert ("n9/", "class dropped with 0 images: fewer than 3") in found.rejects
    assert ("n2/", "class dropped with 2 images: fewer than 3") in found.rejects
    assert ("n4/", "class dropped with 5 images: not on the list") in found.rejects
    monkeypatch.setattr(chosen, "PUBLISHED", {2: "fall11"})
    with pytest.raises(SourceError, match="as long as the published one of fall11: is the source that release"):
        choose(source, classes=("n1", "n9"))
    with pytest.raises(SourceError, match="no class is left: of 4 classes none has 99"):
        choose(source, min_class_images=99)


def test_parts_of_their_own(source: Path, tmp_path: Path) -> None:
    root = tmp_path / "both"
    class_folders(root / "train", {"n1": 3, "n2": 1, "n3": 4})
    class_folders(root / "val", {"n1": 2, "n2": 2, "n3": 2})
    found = choose(root, min_class_images=2, classes=("n3", "n2", "n1"))
    assert found.classes == ("n3", "n1")
    assert found.parts["val"].label.tolist() == [0, 0, 1, 1]


def test_lists(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("n2\n\n n1 \r\n")
    assert read_class_list(path) == ("n2", "n1")
    for text, message in (("", "is no list of classes"), ("a\nb\na\n", "lists a twice")):
        path.write_text(text)
        with pytest.raises(ConfigError, match=message):
            read_class_list(path)
    with pytest.raises(ConfigError, match=r"cannot be read \(No such file"):
        read_class_list(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="--min-class-images -1"):
        SplitConfig(4, min_class_images=-1).resolved()


def test_notes() -> None:
    def listed(count: int) -> tuple[str, ...]:
        return tuple(map(str, range(count)))

    assert class_note(SplitConfig(4), 10) == ""
    assert class_note(SplitConfig(4, min_class_images=500), 11_221) == (
        "11221 classes have 500 images or more, as published for fall11"
    )
    assert class_note(SplitConfig(4, min_class_images=500), 10_000) == (
        "10000 classes have 500 images or more (published for ImageNet-21K: 11221 for fall11, 10450 for winter21)"
    )
    assert class_note(SplitConfig(4, min_class_images=3), 9) == "9 classes have 3 images or more"
    assert class_note(SplitConfig(4, classes=listed(10_450)), 10_450) == (
        "all of the 10450 listed classes (10450 is the number published for winter21)"
    )
    assert class_note(SplitConfig(4, classes=listed(10)), 9) == "only 9 of the 10 listed classes"


def test_on_the_command_line(source: Path, tmp_path: Path) -> None:
    (tmp_path / "list").write_text("n3\nn1\nn9\n")
    command = ("spectral-prep", "split", source, "--factor", "4", "--size", "16", "--classes", "list")
    assert "Error: the source has no images of n9" in fails(*command, cwd=tmp_path)
    done = program(*command, "--min-class-images", "6", "--val-per-class", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "only 2 of the 3 listed classes" in done.stdout
    (tmp_path / "list").write_text("n1\nn3\n")
    refused = fails(*command, "--min-class-images", "6", "--val-per-class", "2", cwd=tmp_path)
    assert "classes 3 listed, SHA-256" in refused
