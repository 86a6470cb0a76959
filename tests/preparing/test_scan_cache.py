"""The scan that is saved beside the rows, and what makes it void."""

import os
import shutil
import tracemalloc
from pathlib import Path

import pytest

from spectral_shards.preprocess.config import SplitConfig
from spectral_shards.preprocess.errors import DestinationError
from spectral_shards.preprocess.listing import EntriesBuilder
from spectral_shards.preprocess.sources import find_source
from spectral_shards.preprocess.sources.class_folders import ClassFolders
from spectral_shards.preprocess.sources.class_tars import ClassTars
from spectral_shards.preprocess.split import scan_cache
from spectral_shards.preprocess.split.job import prepare, split
from spectral_shards.shards_manifest.runtime.executors import Backend
from support import forms
from support.pictures import class_folders, encode, picture
from support.programs import program
from support.splits import tree

PLAN = SplitConfig(4, size=16, val_per_class=1)


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    return class_folders(tmp_path / "folders" / "set", {"a": 3, "b": 4})


@pytest.fixture
def scanned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Says which sources were really scanned."""
    done: list[str] = []
    for kind in (ClassFolders, ClassTars):
        real = kind.scan

        def scan(self: object, *found: object, real: object = real, name: str = kind.__name__) -> object:
            done.append(name)
            return real(self, *found)  # type: ignore[operator]

        monkeypatch.setattr(kind, "scan", scan)
    return done


def run(source: Path, out: Path, plan: SplitConfig = PLAN) -> None:
    split(prepare(source, plan, out=out), out, Backend())


@pytest.mark.parametrize("kind", ["folders", "tars"])
def test_a_rerun_does_not_scan_again(kind: str, folders: Path, tmp_path: Path, scanned: list[str]) -> None:
    source = folders if kind == "folders" else forms.class_tars(folders, tmp_path / "tars" / "set")
    out = tmp_path / "out"
    run(source, out)
    assert len(scanned) == 1
    before = tree(out)
    run(source, out)
    (out / "02" / "train-000000.tar").unlink()
    run(source, out)
    assert len(scanned) == 1
    assert tree(out) == before
    shutil.rmtree(out)
    run(source, out)
    assert tree(out) == before  # equal sources, equal bytes


def test_a_change_makes_it_void(folders: Path, tmp_path: Path, scanned: list[str]) -> None:
    tars = forms.class_tars(folders, tmp_path / "tars" / "set")
    for source in (folders, tars):
        out = tmp_path / f"out-{source.parent.name}"
        run(source, out)
        scanned.clear()
        if source == folders:
            (source / "a" / "new.jpg").write_bytes(encode(picture(5)))
        else:
            stamp = (source / "a.tar").stat()
            (folders / "b" / "b_000.JPEG").rename(folders / "b" / "zzzzz.JPEG")
            shutil.rmtree(source)
            forms.class_tars(folders, source)
            assert (source / "a.tar").stat().st_mtime_ns != stamp.st_mtime_ns
        with pytest.raises(DestinationError, match="the source's list of images has changed"):
            run(source, out)
        assert scanned


def test_other_times_alone_scan_again_and_change_nothing_else(folders: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(folders, out)
    before = tree(out)
    os.utime(folders / "a", ns=(5, 5))
    run(folders, out)
    after = tree(out)
    assert {name for name in before if before[name] != after[name]} == {scan_cache.NAME}


def test_damage_is_no_scan(folders: Path, tmp_path: Path, scanned: list[str]) -> None:
    out = tmp_path / "out"
    run(folders, out)
    whole = (out / scan_cache.NAME).read_bytes()
    for damaged in (b"", whole[:50], whole[:200], whole[:-5], whole[:150] + b"\xff" * 40 + whole[190:]):
        (out / scan_cache.NAME).write_bytes(damaged)
        before = len(scanned)
        assert prepare(folders, PLAN, out=out).listing.digest()
        assert len(scanned) == before + 1


def test_deep_folders_are_not_saved(folders: Path, tmp_path: Path) -> None:
    """A file added deep down changes no time that a rerun would look at."""
    (folders / "a" / "deep").mkdir()
    (folders / "a" / "deep" / "x.jpg").write_bytes(encode(picture(7)))
    run(folders, tmp_path / "out")
    assert not (tmp_path / "out" / scan_cache.NAME).exists()


def test_a_listing_survives(folders: Path, tmp_path: Path) -> None:
    (folders / "b" / "r\udcff.jpg").write_bytes(b"x")
    tars = forms.class_tars(folders, tmp_path / "tars")
    (folders / "stray").write_bytes(b"x")
    for source in (folders, tars):
        listing = find_source(source).scan()
        again = scan_cache.unpack(scan_cache.pack(listing))
        assert again.digest() == listing.digest()
        for name in ("classes", "rejects", "numbered", "named_by_labels", "spelled", "notes"):
            assert getattr(again, name) == getattr(listing, name)
        for name in ("label", "ends", "offset", "size", "file"):
            first, second = (getattr(x.parts["train"], name) for x in (listing, again))
            assert first.tolist() == second.tolist()
            assert first.dtype == second.dtype


def test_a_scan_is_small() -> None:
    """At most 150 bytes a sample, at its peak; benchmarks/scan.py has the figures at full size."""
    samples, classes = 50_000, 100
    tracemalloc.start()
    builder = EntriesBuilder()
    for label in range(classes):
        found = ((b"n01440764_%d.JPEG" % i, 1000 * i, 100_000) for i in range(samples // classes))
        builder.add(label, found)
    entries = builder.build()
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(entries) == samples
    assert kept / samples < 60
    assert peak / samples < 150


def test_a_killed_run_keeps_its_scan(folders: Path, tmp_path: Path) -> None:
    """The saved scan is there before the first row."""
    (folders / "b" / "x.jpg").symlink_to(tmp_path / "nowhere")  # an image that cannot be read ends the run
    done = program("spectral-prep", "split", folders, "--factor", "4", "--size", "16", "--out", tmp_path / "out")
    assert done.returncode == 2
    assert sorted(path.name for path in (tmp_path / "out" / "rows").iterdir()) == ["plan.json", "scan.bin"]
