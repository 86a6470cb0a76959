"""Every form of source gives the bands of the ImageFolder of the same images."""

import gzip
import json
import os
import shutil
from pathlib import Path

import pytest

from spectral_shards.preprocess.config import SourceOptions, SplitConfig
from spectral_shards.preprocess.errors import ConfigError, SourceError
from spectral_shards.preprocess.listing import Listing
from spectral_shards.preprocess.sources import find_source
from spectral_shards.preprocess.split.job import prepare
from support import forms
from support.forms import MAKERS, OPTIONS, WNIDS, ilsvrc
from support.pictures import class_folders
from support.programs import fails, program
from support.splits import make_split, split_of


def scan(path: Path, **options: str | Path) -> Listing:
    return find_source(path, SourceOptions(**options)).scan()  # type: ignore[arg-type]


def reason(path: Path, **options: str | Path) -> str:
    with pytest.raises((SourceError, ConfigError)) as caught:
        scan(path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", MAKERS)
def test_every_form_gives_the_same_split(kind: str, folders: Path, wanted: dict[str, bytes], tmp_path: Path) -> None:
    source = MAKERS[kind](folders, tmp_path)
    assert find_source(source).describe() == {"kind": kind, "name": "set"}
    assert split_of(make_split(source, tmp_path / "out", **OPTIONS)) == wanted


@pytest.mark.parametrize("kind", ["class-tars-gz", "tar-of-tars-gz", "parquet"])
def test_scratch_is_expanded_once_and_gone_afterwards(
    kind: str, folders: Path, wanted: dict[str, bytes], tmp_path: Path
) -> None:
    source = MAKERS[kind](folders, tmp_path)
    command = ["spectral-prep", "split", source, "--factor", "4", "--size", "16", "--out", tmp_path / "out"]
    command += ["--samples-per-shard", "8", "--samples-per-block", "4", "--val-per-class", "2"]
    dry = program(*command, "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert not list(tmp_path.glob("out*"))
    done = program(*command, "--scratch", tmp_path / "disk", "--jobs", "2")
    assert done.returncode == 0, done.stderr
    assert split_of(tmp_path / "out") == wanted
    assert list((tmp_path / "disk").iterdir()) == []
    (tmp_path / "out" / "02" / "train-000001.tar").unlink()  # its images are needed again
    again = program(*command)
    assert again.returncode == 0, again.stderr
    assert split_of(tmp_path / "out") == wanted
    assert not list(tmp_path.glob("*scratch*"))
    checked = program("spectral-prep", "verify", tmp_path / "out", "--against", source, "--scratch", tmp_path / "disk")
    assert checked.returncode == 0, checked.stderr
    assert list((tmp_path / "disk").iterdir()) == []
    if source.is_dir():
        assert "lies within the source" in fails(*command, "--scratch", source / "scratch")


def test_scratch_goes_on_and_notices_other_files(folders: Path, tmp_path: Path) -> None:
    source = forms.class_tars_gz(folders, tmp_path / "set")
    first = find_source(source, SourceOptions(scratch=tmp_path / "disk"))
    first.stage()
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "disk").rglob("*.tar")}
    next(iter(stamps)).unlink()
    first.stage()
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "disk").rglob("*.tar")}
    assert len(stamps.items() & after.items()) == 2
    os.utime(source / "n01440764.tar.gz", ns=(1, 1))
    find_source(source, SourceOptions(scratch=tmp_path / "disk")).stage()
    assert len(list((tmp_path / "disk").iterdir())) == 2


def test_a_cluster_needs_a_scratch_that_its_workers_share(folders: Path, tmp_path: Path) -> None:
    source = forms.class_tars_gz(folders, tmp_path / "set")
    command = ("spectral-prep", "split", "--factor", "4", source, "--backend", "dask", "--out", "s3://bucket/out")
    assert "name a folder that they share with --scratch" in fails(*command)


def test_no_room_to_expand(folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = forms.class_tars_gz(folders, tmp_path / "set")
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert "has 1.0 kB free: name a larger disk with --scratch" in reason(source, scratch=tmp_path / "disk")


@pytest.mark.parametrize("labels", ["devkit", "wnids", "numbers"])
def test_ilsvrc_as_it_is_fetched(labels: str, folders: Path, tmp_path: Path) -> None:
    if labels == "devkit":
        pytest.importorskip("scipy")
    source, same = ilsvrc(folders, tmp_path, labels)
    options = {**OPTIONS, "val_per_class": -1}
    first, second = make_split(source, tmp_path / "one", **options), make_split(same, tmp_path / "two", **options)
    assert split_of(first) == split_of(second)
    assert json.loads((first / "manifest.json").read_text())["parts"]["val"]["samples"] == 4
    kind = json.loads((first / "rows" / "plan.json").read_text())["source"]["kind"]
    assert kind == "tar-of-tars and labelled-tar"


def test_the_devkit_may_lie_elsewhere_unpacked(folders: Path, tmp_path: Path) -> None:
    pytest.importorskip("scipy")
    source, _ = ilsvrc(folders, tmp_path, "devkit")
    packed = source / f"{forms.DEVKIT}.tar.gz"
    wanted = scan(source).digest()
    shutil.unpack_archive(packed, tmp_path / "kit", filter="data")
    packed.unlink()
    assert "has no labels beside it: put ILSVRC2012_devkit_t12.tar.gz there" in reason(source)
    kit = tmp_path / "kit" / forms.DEVKIT
    for named in (kit, kit / "data", kit / "data" / "ILSVRC2012_validation_ground_truth.txt"):
        assert scan(source, val_labels=named).digest() == wanted
    (kit / "data" / "meta.mat").write_bytes((kit / "data" / "meta.mat").read_bytes()[:300])
    assert "name a list of 'filename label' with --val-labels" in reason(source, val_labels=kit)
    assert "does not exist" in reason(source, val_labels=tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("", "lists no labels"),
        ("ILSVRC2012_val_00000001.JPEG\n", "line 1 of .* is not 'filename label'"),
        ("a.JPEG 1\na.JPEG 2\n", "gives a two labels, 1 and 2"),
        ("a.JPEG 1\nb.JPEG n01440764\n", "mixes numbers with names"),
        ("a.JPEG 99999999\n", "no index of a class"),
        ("a.JPEG 1\n", "has 2 classes but no images; the first reject is ILSVRC2012_val_00000001.JPEG: no label"),
        ("ILSVRC2012_val_00000001.JPEG 7\n", "has the label 7, but train only 3 classes"),
        ("ILSVRC2012_val_00000001.JPEG n9\n", "has the class n9, which train does not have"),
    ],
)
def test_lists_of_labels_that_do_not_fit(lines: str, message: str, folders: Path, tmp_path: Path) -> None:
    source, _ = ilsvrc(folders, tmp_path, "wnids")
    (source / "val.txt").write_text(lines)
    with pytest.raises(SourceError, match=message):
        scan(source)


def test_kaggle_list_and_missing_labels(folders: Path, tmp_path: Path) -> None:
    source, _ = ilsvrc(folders, tmp_path, "wnids")
    (source / "val.txt").unlink()
    lines = ["ImageId,PredictionString", "ILSVRC2012_val_00000001,n01484850 85 1 499 272 n01484850 1 2 3 4"]
    (source / "LOC_val_solution.csv").write_text("\n".join(lines))
    found = scan(source)
    assert len(found.parts["val"]) == 1
    assert next(reject for reject in found.rejects if "no label" in reject[1]) == (
        "val/ILSVRC2012_val_00000002.JPEG",
        "no label in LOC_val_solution.csv",
    )


@pytest.mark.parametrize("layout", ["folders", "names"])
@pytest.mark.parametrize("kind", ["webdataset", "parquet"])
def test_parts_of_shards_and_parquet(kind: str, layout: str, folders: Path, wanted: object, tmp_path: Path) -> None:
    same = tmp_path / "same" / "set"
    shutil.copytree(folders, same / "train")
    for wnid in WNIDS[:2]:
        (same / "val" / wnid).mkdir(parents=True)
        shutil.copy(folders / wnid / f"{wnid}_001.JPEG", same / "val" / wnid / f"{wnid}_v.JPEG")
    (same / "val" / WNIDS[2]).mkdir()
    source = tmp_path / "set"
    for part, word in (("train", "train"), ("val", "validation")):
        place = source / part if layout == "folders" else source
        if kind == "webdataset":
            forms.shards(same / part, place, f"set-{word}-{{:03d}}.tar")
        else:
            place = place if layout == "folders" else source / "data"
            forms.parquet(same / part, place, f"{word}-{{:05d}}-of-00002.parquet")
    options = {**OPTIONS, "val_per_class": -1}
    first, second = make_split(source, tmp_path / "one", **options), make_split(same, tmp_path / "two", **options)
    assert split_of(first) == split_of(second)


def test_numbers_as_classes(folders: Path, tmp_path: Path) -> None:
    many = class_folders(tmp_path / "many", {f"{i:02d}": 2 for i in range(11)})
    source = forms.shards(many, tmp_path / "set", classes=False)
    found = scan(source)
    assert found.classes == tuple(f"{i:02d}" for i in range(11))
    assert found.digest() == scan(many).digest()
    val = forms.shards(folders, tmp_path / "both" / "val", classes=False)
    train = forms.shards(many, val.parent / "train", classes=False)
    assert scan(train.parent).classes == found.classes  # 0 of val is 00 of train
    assert len(scan(train.parent).parts["val"]) == 18
    labelled = forms.shards(many, tmp_path / "json", classes=False, label="json")
    assert scan(labelled).digest() == found.digest()


def test_names_that_repeat(folders: Path, tmp_path: Path) -> None:
    """Shards that each number their samples from 0: all are kept, under the names of their shards."""
    flat = class_folders(tmp_path / "flat", {"a": 4})
    images = [path.read_bytes() for path in sorted((flat / "a").iterdir())]
    source = tmp_path / "set"
    source.mkdir()
    for shard in range(2):
        members = {f"{i}.jpg": image for i, image in enumerate(images)} | {f"{i}.cls": b"0" for i in range(4)}
        forms.flat_tar(members, source / f"{shard:03d}.tar")
    found = scan(source)
    assert found.parts["train"].names == b"".join(b"%03d/%d.jpg" % (s, i) for s in range(2) for i in range(4))
    without = scan(forms.parquet(folders, tmp_path / "pq", paths=False))
    assert without.key(without.parts["train"], 0).startswith("n01440764/train-00000-of-00002-0000")
    assert len(without.parts["train"]) == 18


def test_source_is_forced_or_named(folders: Path, tmp_path: Path) -> None:
    assert "--source pictures: choose folders, tars" in reason(folders, kind="pictures")
    assert "is not what --source parquet says" in reason(folders, kind="parquet")
    mixed = shutil.copytree(folders, tmp_path / "mixed")
    forms.class_tars(folders, tmp_path / "tars")
    shutil.copy(tmp_path / "tars" / "n01440764.tar", mixed)
    assert "holds both class folders and tars" in reason(mixed)
    assert scan(mixed, kind="folders").classes == tuple(WNIDS)
    assert scan(mixed, kind="tars").classes == ("n01440764",)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "readme.txt").write_text("x")
    sentence = reason(tmp_path / "notes")
    assert "holds neither class folders nor class tars nor another known form, but readme.txt; " in sentence
    assert all(f"{name}: " in sentence for name in ("tars-gz", "imagenet", "parquet"))
    one = tmp_path / "tars" / "n01440764.tar"
    assert "is a file that holds neither class tars nor key.jpg with key.cls" in reason(one)
    command = ("spectral-prep", "split", "--factor", "4", "--source", "webdataset", folders)
    assert "is not what --source webdataset says" in fails(*command, cwd=tmp_path)


def test_one_compressed_class_is_no_tar_of_tars(folders: Path, tmp_path: Path) -> None:
    source = forms.class_tars_gz(folders, tmp_path / "set")
    for wnid in WNIDS[1:]:
        (source / f"{wnid}.tar.gz").unlink()
    (source / "README").write_text("x")
    assert scan(source).classes == ("n01440764",)
    assert scan(source).rejects == (("README", "not in a class"),)
    whole = tmp_path / "whole"
    whole.mkdir()
    forms.tar_of_tars_gz(folders, tmp_path / "w.tar.gz").rename(whole / "winter21_whole.tar.gz")
    assert scan(whole).classes == tuple(WNIDS)


def test_parquet_that_does_not_fit(folders: Path, tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    data = next((folders / "n01440764").iterdir()).read_bytes()
    source = tmp_path / "set"
    source.mkdir()
    parquet.write_table(pa.table({"text": ["a"], "score": [1]}), source / "a.parquet")
    assert "needs one column of images" in reason(source)
    labels = pa.array([0, None, 7, 1, 1], pa.int32())
    table = pa.table({"img": pa.array([data, data, data, None, b""]), "label": labels})
    table = table.replace_schema_metadata(
        {"huggingface": json.dumps({"info": {"features": {"label": {"_type": "ClassLabel", "names": ["x", "y"]}}}})}
    )
    parquet.write_table(table, source / "a.parquet")
    found = scan(source)
    assert len(found.parts["train"]) == 1
    assert dict(found.rejects) == {
        "a.parquet/1": "an image without a label: it is null",
        "a.parquet/2": "its label 7 is the index of no class",
        "a.parquet/3": "no image, or none that is stored in the file",
        "a.parquet/4": "no image, or none that is stored in the file",
        "y/": "class without images",
    }
    whole = (source / "a.parquet").read_bytes()
    middle = len(whole) // 2
    for damaged in (whole[:-20], b"", whole[: middle - 500] + b"\xff" * 1000 + whole[middle + 500 :], whole[400:]):
        (source / "a.parquet").write_bytes(damaged)
        if damaged[:4] != whole[:4] or len(damaged) < len(whole):
            assert "is not a complete Parquet file" in reason(source)


def test_gzip_that_is_damaged_or_a_bomb(folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = forms.class_tars_gz(folders, tmp_path / "set")
    path = source / "n01440764.tar.gz"
    whole = path.read_bytes()
    for damaged in (whole[:-9], whole[: len(whole) // 2], b"junk" + whole, whole[:500] + bytes(50) + whole[550:]):
        path.write_bytes(damaged)
        assert "n01440764.tar" in reason(source, scratch=tmp_path / "disk")
        assert not list((tmp_path / "disk").rglob("*.tmp"))
    from spectral_shards.preprocess.sources import scratch

    monkeypatch.setattr(scratch, "ALWAYS_ALLOWED", 2**20)
    path.write_bytes(gzip.compress(bytes(8 * 2**20)))
    assert "expands to more than 1.0 MB" in reason(source, scratch=tmp_path / "disk")
    assert not list((tmp_path / "disk").rglob("*.tmp"))


def test_real_images_in_every_form(shared_data: Path, tmp_path: Path) -> None:
    folders = tmp_path / "folders" / "set"
    for folder in sorted((shared_data / "imagenet-sample").iterdir())[:4]:
        shutil.copytree(folder, folders / folder.name)
    options = {**OPTIONS, "val_per_class": 0}
    wanted = split_of(make_split(folders, tmp_path / "wanted", **options))
    for kind, maker in MAKERS.items():
        (tmp_path / kind).mkdir()
        source = maker(folders, tmp_path / kind)
        assert split_of(make_split(source, tmp_path / kind / "out", **options)) == wanted, kind


def test_the_plan_refuses_val_options_with_any_val(folders: Path, tmp_path: Path) -> None:
    source, _ = ilsvrc(folders, tmp_path, "wnids")
    with pytest.raises(ConfigError, match="has a val part of its own"):
        prepare(source, SplitConfig(4, size=16, val_per_class=3))
