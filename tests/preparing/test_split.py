"""Complete splits: the same bytes however they come about, and nothing lost when something is wrong."""

import gzip
import json
import os
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from spectral_shards.preprocess.config import SplitConfig
from spectral_shards.preprocess.errors import DestinationError, SourceError
from spectral_shards.preprocess.inspection.fidelity import fidelity
from spectral_shards.preprocess.inspection.reconstruct import SplitBlocks, rebuild, reconstruct_images
from spectral_shards.preprocess.inspection.verify import verify
from spectral_shards.preprocess.split.job import prepare, split
from spectral_shards.shards_manifest.dataset import open_split
from spectral_shards.shards_manifest.errors import FormatError
from spectral_shards.shards_manifest.manifest import MANIFEST, load_band, load_split
from spectral_shards.shards_manifest.runtime.executors import Backend
from support.pictures import class_folders, encode, huge_png, picture
from support.programs import fails, program
from support.splits import make_split, tree

OPTIONS = ("--factor", "4", "--size", "48", "--samples-per-shard", "8", "--samples-per-block", "3")


def test_any_number_of_jobs_and_any_interruption_give_the_same_bytes(photos: Path, tmp_path: Path) -> None:
    for jobs in ("1", "2"):
        done = program("spectral-prep", "split", *OPTIONS, photos, "--out", tmp_path / jobs, "--jobs", jobs)
        assert done.returncode == 0, done.stderr
    wanted = tree(tmp_path / "1")
    assert wanted == tree(tmp_path / "2")
    assert len([name for name in wanted if name.endswith(".tar")]) == 4 * (12 + 1)

    out = tmp_path / "killed"
    command = [str(Path(sys.executable).with_name("spectral-prep")), "split", *OPTIONS, str(photos), "--out", str(out)]
    kills = 0
    for rows in (1, 4, 9):
        process = subprocess.Popen([*command, "--jobs", "2"], stderr=subprocess.DEVNULL)
        while len(list(out.glob("rows/train-*.json"))) < rows and process.poll() is None:
            time.sleep(0.002)
        if process.poll() is None:
            kills += 1
            process.kill()  # the parent alone: its workers are left to end by themselves
        process.wait()
        assert (out / MANIFEST).exists() == (process.returncode == 0)
    assert kills
    before = {p.name: p.stat().st_mtime_ns for p in out.glob("rows/train-*.json")}
    done = program("spectral-prep", *command[1:], "--jobs", "2")
    assert done.returncode == 0, done.stderr
    assert tree(out) == wanted
    assert all((out / "rows" / name).stat().st_mtime_ns == when for name, when in before.items())


def test_a_finished_split_is_left_alone(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "sub4"
    assert program("spectral-prep", "split", *OPTIONS, photos, "--out", out).returncode == 0
    stamps = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file()}
    again = program("spectral-prep", "split", *OPTIONS, photos, "--out", out)
    assert again.returncode == 0
    assert "13 of 13 shard rows were there already: nothing to do" in again.stdout
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file()} == stamps


def test_a_lost_or_cut_shard_is_written_again(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "sub4"
    program("spectral-prep", "split", *OPTIONS, photos, "--out", out)
    wanted = tree(out)
    (out / "02" / "train-000003.tar").unlink()
    os.truncate(out / "01" / "train-000005.tar", 1024)
    again = program("spectral-prep", "split", *OPTIONS, photos, "--out", out)
    assert "11 of 13 shard rows were there already" in again.stdout
    assert tree(out) == wanted


def test_other_options_on_the_same_destination_are_refused_by_name(photos: Path, tmp_path: Path) -> None:
    out = make_split(photos, tmp_path / "out", factor=4, size=16)
    before = tree(out)
    for change, message in (
        ({"quant_step": 4.0}, "chroma-quant-step 9.75 there, 12.0 here; quant-step 3.25 there, 4.0 here"),
        ({"chroma_quant_step": 3.25}, "chroma-quant-step 9.75 there, 3.25 here"),
        ({"samples_per_block": 32}, "samples-per-block 64 there, 32 here"),
        ({"bands": (0, 1)}, r"bands \[0, 1, 2, 3\] there, \[0, 1\] here"),
    ):
        with pytest.raises(DestinationError, match=f"holds another split .*{message}"):
            make_split(photos, out, **{"factor": 4, "size": 16, **change})
    assert tree(out) == before


def test_another_decoder_or_a_changed_source_is_refused(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "set", {"a": 4})
    out = make_split(source, tmp_path / "out", factor=4, size=16)
    plan = json.loads((out / "rows" / "plan.json").read_text())
    resizer = plan["tools"]["resizer"]
    plan["tools"]["resizer"] = "Pillow 1.0"
    (out / "rows" / "plan.json").write_text(json.dumps(plan))
    with pytest.raises(DestinationError, match=f"tools resizer Pillow 1.0 there, {re.escape(resizer)} here"):
        make_split(source, out, factor=4, size=16)
    plan["tools"]["resizer"] = resizer
    (out / "rows" / "plan.json").write_text(json.dumps(plan))
    (source / "a" / "new.jpg").write_bytes(encode(picture(9)))
    with pytest.raises(DestinationError, match="the source's list of images has changed"):
        make_split(source, out, factor=4, size=16)


def test_destinations_that_are_no_place_for_a_split(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("precious")
    command = ("spectral-prep", "split", "--factor", "4", "--size", "16", photos, "--out")
    assert "is not empty (it holds thesis.tex)" in fails(*command, tmp_path / "full")
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["thesis.tex"]
    assert "lies within the source" in fails(*command, photos / "sub4")
    assert not (photos / "sub4").exists()
    assert "cannot write to" in fails(*command, "/proc/sub4")
    assert "choose a local path or s3:" in fails(*command, "ftp://bucket/sub4")


def test_two_at_once_on_one_destination(photos: Path, tmp_path: Path) -> None:
    job = prepare(photos, SplitConfig(4, size=16, samples_per_shard=8))
    refused = []

    def second(*_: object) -> None:
        with pytest.raises(DestinationError, match="is being written by another process") as caught:
            split(job, tmp_path / "out", Backend())
        refused.append(caught)

    split(job, tmp_path / "out", Backend(jobs=1), second)
    assert len(refused) == len(job.rows)
    assert verify(str(tmp_path / "out"), 1).bad == []


def test_a_full_disk_is_one_sentence_and_the_rest_is_kept(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    wanted = tree(make_split(photos, tmp_path / "wanted", factor=4, size=48, samples_per_shard=8, samples_per_block=3))
    largest = max(len(data) for name, data in wanted.items() if name.startswith("00/"))

    def no_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest - 1, resource.RLIM_INFINITY))

    command = ("spectral-prep", "split", *OPTIONS, photos, "--out", out, "--jobs", "1")
    sentence = fails(*command, preexec_fn=no_room)
    assert "no space left to write to" in sentence
    assert "run the same command again" in sentence
    assert not (out / MANIFEST).exists()
    kept = tree(out)
    assert not [name for name in kept if name.endswith(".tmp")]
    assert all(wanted[name] == data for name, data in kept.items())
    assert program(*command).returncode == 0
    assert tree(out) == wanted


def test_a_real_full_file_system(photos: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(small)], capture_output=True).returncode:
        pytest.skip("mounting a small tmpfs needs root")
    try:
        sentence = fails("spectral-prep", "split", *OPTIONS, photos, "--out", small / "out", "--jobs", "2")
        assert "no space left to write to" in sentence
        assert list((small / "out").glob("rows/*.json"))
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_bad_images_are_listed_and_nothing_else_is_lost(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "set", {"a": 5, "b": 6})
    good = encode(picture(1))
    bad = {
        "a/text.JPEG": (b"not an image", "not an image of a known format"),
        "a/zero.JPEG": (b"", "empty file"),
        "b/cut.JPEG": (good[:-300], "does not decode"),
        "b/dot.JPEG": (encode(picture(1)[:1, :1]), "1x1 is smaller than the 2x2 phases"),
        "b/huge.png": (huge_png(), "more than 100000000 pixels"),
    }
    for name, (data, _) in bad.items():
        (source / name).write_bytes(data)
    (source / "b" / "really-a.png.JPEG").write_bytes(encode(picture(2), "PNG"))
    out = make_split(source, tmp_path / "out", factor=4, size=16, val_per_class=0, samples_per_shard=4)
    rejects = [json.loads(line) for line in (out / "rejects.jsonl").read_text().splitlines()]
    assert [r["source"] for r in rejects] == sorted(bad)
    for reject in rejects:
        assert bad[reject["source"]][1] in reject["reason"]
    manifest = load_split((out / MANIFEST).read_bytes(), "m")
    assert manifest.rejects == len(bad)
    assert manifest.parts["train"].samples == 12
    assert (out / "classes.tsv").read_text() == "0\ta\t5\t0\n1\tb\t7\t0\n"
    table = gzip.decompress((out / "samples-train.tsv.gz").read_bytes()).decode()
    assert len(table.splitlines()) == 12
    assert verify(str(out), 1).bad == []


def test_nothing_usable_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "set" / "a").mkdir(parents=True)
    (tmp_path / "set" / "a" / "x.jpg").write_bytes(b"junk")
    with pytest.raises(SourceError, match="none of the images can be used; the first was rejected: not an image"):
        make_split(tmp_path / "set", tmp_path / "out", factor=4, size=16, val_per_class=0)
    assert not (tmp_path / "out" / MANIFEST).exists()


def test_an_unreadable_image_stops_the_run_rather_than_vanish(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "set", {"a": 3})
    (source / "a" / "dangling.jpg").symlink_to(tmp_path / "nowhere")
    with pytest.raises(SourceError, match=r"cannot read a/dangling\.jpg of the source \(No such file"):
        make_split(source, tmp_path / "out", factor=4, size=16, val_per_class=0)


def test_bands_alone_are_those_of_the_whole(photos: Path, tmp_path: Path) -> None:
    whole = tree(make_split(photos, tmp_path / "whole", factor=16, size=32))
    some = tree(make_split(photos, tmp_path / "some", factor=16, size=32, bands=(0, 5, 6)))
    assert {name.split("/")[0] for name in some if name.endswith(".tar")} == {"00", "05", "06"}
    for name, data in some.items():
        if name[:2].isdecimal() or name.startswith(("samples", "classes")):
            assert whole[name] == data, name


@pytest.mark.parametrize("transform", ["dct", "dct2", "none"])
@pytest.mark.parametrize("factor", [1, 4, 16, 36])
def test_images_come_back_from_their_bands(factor: int, transform: str, photos: Path, tmp_path: Path) -> None:
    options = {"factor": factor, "size": 48, "transform": transform, "val_per_class": 0}
    options |= {"quant_step": 2.0, "chroma_quant_step": 2.0}
    out = make_split(photos, tmp_path / "out", **options)  # type: ignore[arg-type]
    store, manifest = open_split(out)
    found = fidelity(out, photos, 100)
    assert (len(found.psnr), found.bad) == (96, ())
    assert found.psnr.min() > 41
    with SplitBlocks(store, manifest, "train") as blocks:
        assert sum(block.shape[1] for block in blocks) == 96
        sample = next(iter(blocks))[:, 5]
    assert rebuild(sample, manifest).shape == (48, 48, 3)
    images = list(reconstruct_images(out, "train"))
    assert len(images) == 96
    assert np.array_equal(images[5], rebuild(sample, manifest))
    with pytest.raises(FormatError, match="has no val part: choose train"):
        next(reconstruct_images(open_split(out)))
    with pytest.raises(FormatError, match="is one band: name the folder of the whole split"):
        next(reconstruct_images(out / "00", "train"))


def test_margin_crop_and_float16(photos: Path, tmp_path: Path) -> None:
    out = make_split(
        photos, tmp_path / "out", factor=4, size=32, margin=8, fit="crop", dtype="float16", val_per_class=0
    )
    band = load_band((out / "03" / MANIFEST).read_bytes(), "m")
    assert (band.geometry.plane, band.geometry.crop, band.step) == (20, 16, (1.0,) * 3)
    assert verify(str(out), 1).bad == []


def test_limit_draws_from_all_classes(photos: Path) -> None:
    job = prepare(photos, SplitConfig(4, size=16, limit=30))
    assert sum(job.samples.values()) == 30
    train = next(row for row in job.rows if row.part == "train")
    assert len(set(job.listing.parts["train"].label[train.indices].tolist())) == 3


def test_a_split_from_before_chroma_had_its_own_step_goes_on(photos: Path, tmp_path: Path) -> None:
    earlier = {"factor": 4, "size": 16, "quant_step": 5.0, "chroma_quant_step": 5.0}
    out = make_split(photos, tmp_path / "out", **earlier)
    assert "chroma_step" not in json.loads((out / "rows" / "plan.json").read_text())["plan"]
    before = tree(out)
    with pytest.raises(DestinationError, match=r"\(chroma-quant-step 5.0 there, 15.0 here\)"):
        make_split(photos, out, factor=4, size=16, quant_step=5.0)
    with pytest.raises(
        DestinationError, match=r"chroma-quant-step 5.0 there, 9.75 here; quant-step 5.0 there, 3.25 here"
    ):
        make_split(photos, out, factor=4, size=16)
    assert tree(make_split(photos, out, **earlier)) == before
