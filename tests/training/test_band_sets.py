"""Which networks a split gets: what --bands may say, the folders of their runs, and what is trained by default."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spectral_shards.train.band_sets import BandSet, parse_band_sets
from spectral_shards.train.errors import TrainError
from spectral_shards.train.networks import NetworkOptions
from spectral_shards.train.runs.checkpoint import load_checkpoint
from spectral_shards.train.runs.run_record import read_run
from support.programs import fails, program
from support.splits import make_split
from support.trainings import QUICK


def test_what_band_sets_mean() -> None:
    def parse(text: str) -> list[tuple[tuple[int, ...], int]]:
        return [(each.bands, each.repeat) for each in parse_band_sets(text, range(16))]

    assert parse("stackx2") == [(tuple(range(16)), 0), (tuple(range(16)), 1)]
    assert parse("all") == [((band,), 0) for band in range(16)]
    assert parse("0+1+6,0+2+12") == [((0, 1, 6), 0), ((0, 2, 12), 0)]
    assert parse("0-3, 7") == [((band,), 0) for band in (0, 1, 2, 3, 7)]
    assert parse("6+1,0..3,1+4..6x2") == [((1, 6), 0), ((0, 1, 2, 3), 0), ((1, 4, 5, 6), 0), ((1, 4, 5, 6), 1)]
    names = [each.name for each in parse_band_sets("0+1+6x3,7,11", range(16))]
    assert names == ["00+01+06", "00+01+06x2", "00+01+06x3", "07", "11"]
    for text, why in {
        "": "'' is not understood: write as in 0-3,7",
        "3-1": "from 3 to 1 there is no band: write the lower number first",
        "0+0": "'0+0' is not understood",
        "1..0": "from 1 to 0 there is no band: write the lower number first",
        "0+3..1": "from 3 to 1 there is no band",
        "0x0": "'0x0' is not understood",
        "0-3x2": "'0-3x2' is not understood",
        "0,,1": "'' is not understood",
        "0+16": "there is no band 16: choose from 0, 1, 2",
        "1,0-3": "names 01 twice: write 1x2 for two",
        "0+1,1+0": "names 00+01 twice",
        "0-99999999999": "there is no band 16: choose from 0, 1, 2",
        "0..99999999999": "there is no band 16: choose from 0, 1, 2",
        "9" * 5000: "is not understood",
        "0x1001": "0x1001 is more networks than one item gives: write x1000 at most",
        "all,stack": "all stands alone: beside others, write numbers, as in 0-3",
    }.items():
        with pytest.raises(TrainError, match=re.escape(why)):
            parse(text)


@given(st.lists(st.sets(st.integers(0, 35), min_size=1), min_size=1, max_size=5, unique_by=frozenset), st.data())
def test_band_sets_are_read_as_they_are_written(sets: list[set[int]], data: st.DataObject) -> None:
    repeats = [data.draw(st.integers(1, 3)) for _ in sets]
    written = ",".join(f"{'+'.join(map(str, each))}x{n}" for each, n in zip(sets, repeats, strict=True))
    wanted = [BandSet(tuple(sorted(e)), i) for e, n in zip(sets, repeats, strict=True) for i in range(n)]
    found = parse_band_sets(written, range(36))
    assert found == wanted
    assert len({each.name for each in found}) == len(found)


def test_the_command_line(sub4: Path, tmp_path: Path) -> None:
    command = ("spectral-train", "--shards", sub4, *QUICK, "--out", tmp_path / "runs")
    done = program(*command, "--bands", "0+3,2x2,0..2")
    assert done.returncode == 0, done.stderr
    names = ["00+01+02", "00+03", "02", "02x2"]
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == names
    assert f"{sub4}, bands 0+3: cnn on 6x12x12, 3 classes, 81 samples" in done.stdout
    assert "all 4 networks are in" in done.stdout
    records = [read_run(tmp_path / "runs" / name) for name in names]
    assert [record.identity.data.bands for record in records] == [(0, 1, 2), (0, 3), (2,), (2,)]
    assert [record.identity.options.seed for record in records] == [0, 0, 0, 1]
    logits = [(tmp_path / "runs" / name / "val-logits.npy").read_bytes() for name in names]
    assert len(set(logits)) == 4
    again = program(*command, "--bands", "0..2,2x2,1+3x2", "--jobs", "2")
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("is finished: top-1") == 3
    assert "5 of 5 networks done" in again.stderr
    alone = program(*command[:3], *QUICK, "--out", tmp_path / "alone", "--bands", "1+3x2")
    assert alone.returncode == 0, alone.stderr
    for name in ("01+03", "01+03x2"):
        logits = [(tmp_path / folder / name / "val-logits.npy").read_bytes() for folder in ("runs", "alone")]
        assert logits[0] == logits[1]

    checkpoint = tmp_path / "runs" / "00+03" / "checkpoint.pt"
    evaluated = program("spectral-train", "--shards", sub4, "--evaluate", checkpoint)
    assert evaluated.returncode == 0, evaluated.stderr
    assert f"top-1 {records[1].result.top1:.2%}" in evaluated.stdout
    assert "band 0+3 there, 0 here" in fails("spectral-train", "--shards", sub4 / "00", "--evaluate", checkpoint)
    assert load_checkpoint(checkpoint).network().eval()(torch.zeros(1, 6, 12, 12)).shape == (1, 3)

    other = fails(*command[:3], *QUICK, "--bands", "0+2", "--out", tmp_path / "runs", "--lr", "-1")
    assert "--lr -1" in other
    said = fails("spectral-train", "--shards", sub4 / "00", "--bands", "0")
    assert said.startswith("Error: --bands 0: ")
    assert "is one band: name the folder of the whole split" in said
    assert "there is no band 4" in fails(*command, "--bands", "0+4")


def test_the_default_is_what_the_study_recommends(sub4: Path, tmp_path: Path) -> None:
    command = ("spectral-train", "--shards", sub4, *QUICK)
    done = program(*command, "--out", tmp_path / "runs")
    assert done.returncode == 0, done.stderr
    sizes = (
        "--bands stackx2 --width 0.98, and --bands stackx2 --inputs image --width 0.49"  # all samples are trained on
    )
    said = f"by default {sizes}: 0.98 times the multiply-adds"
    assert done.stdout.startswith(said)
    every = "00+01+02+03"
    names = [every, f"{every}-image", f"{every}-imagex2", f"{every}x2"]
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == names
    kinds = [read_run(tmp_path / "runs" / name).identity.options for name in names]
    planes, image = NetworkOptions("cnn", width=0.98), NetworkOptions("cnn", width=0.49, inputs="image")
    assert [kind.network for kind in kinds] == [planes, image, image, planes]
    assert [kind.seed for kind in kinds] == [0, 0, 1, 1]
    for options in (
        ("--width", "0.98"),
        ("--inputs", "image", "--width", "0.49"),
    ):  # the same, asked for in two commands
        again = program(*command, "--out", tmp_path / "runs", "--bands", "stackx2", *options)
        assert again.stdout.count("is finished: top-1") == 2
    both = program(*command, "--out", tmp_path / "both", "--jobs", "2")
    assert both.returncode == 0, both.stderr
    for name in names:
        logits = [(tmp_path / folder / name / "val-logits.npy").read_bytes() for folder in ("runs", "both")]
        assert logits[0] == logits[1]


def test_the_default_gives_way(sub4: Path, photos: Path, tmp_path: Path) -> None:
    command = ("spectral-train", "--describe", "--shards")
    one_size = "vgg16 has one size, so by default each band gets a network (--bands all)"
    assert one_size in program(*command, sub4, "--network", "vgg16").stdout
    for option in (("--bands", "all"), ("--inputs", "planes"), ("--width", "1"), ("--stem-stride", "2")):
        done = program(*command, sub4, "--network", "resnet18", *option)
        assert "4 such networks" in done.stdout
        assert "resnet18" in done.stdout.splitlines()[0]
    some = make_split(photos, tmp_path / "some", factor=4, size=16, bands=(0, 2), transform="none")
    assert "2 such networks" in program(*command, some, "--network", "cnn").stdout
    suggested = program("spectral-train", "--shards", some, "--network", "cnn", "--budget", "1").stdout
    assert "--bands stackx4" in suggested
    assert "image" not in suggested.partition(":")[2]  # which two phases of four do not give
    for where in (some, sub4 / "01"):
        assert "by default" not in program(*command, where, "--network", "cnn").stdout


def test_an_impossible_network_is_found_before_any_is_trained(sub4: Path, photos: Path, tmp_path: Path) -> None:
    some = make_split(photos, tmp_path / "some", factor=4, size=16, bands=(0, 2), transform="none")
    for options, why in {
        ("--shards", sub4, "--bands", "all", "--network", "vgg16", "--width", "0.5"): "--width does not go with",
        ("--shards", sub4, "--bands", "stackx2", "--network", "cnn", "--width", "9"): "--width 9: choose 0.05 to 8",
        (
            "--shards",
            some,
            "--bands",
            "all",
            "--network",
            "cnn",
            "--inputs",
            "image",
        ): "--inputs image needs all 4 bands",
    }.items():
        done = program("spectral-train", *options, "--out", tmp_path / "runs")
        assert done.returncode == 2
        assert done.stderr.count("Error: ") == done.stderr.count(why) == 1
        assert not (tmp_path / "runs").exists()


def test_what_several_networks_cost(sub4: Path) -> None:
    done = program("spectral-train", "--shards", sub4, "--network", "cnn", "--describe", "--bands", "0..3x2,1")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("cnn on")] == [
        "cnn on 12x12x12, 3 classes",
        "cnn on 3x12x12, 3 classes",
    ]
    assert "2 such networks" in lines
    assert lines[-1].startswith("3 networks: 0.")


def test_jobs_of_an_array_share_the_networks(sub4: Path, tmp_path: Path) -> None:
    command = ("spectral-train", "--shards", sub4, *QUICK, "--out", tmp_path / "runs", "--bands", "all")
    for first in (0, 2):
        assert program(*command, "--share", f"{first}/3").returncode == 0
    done = sorted(path.parent.name for path in (tmp_path / "runs").glob("*/run.json"))
    assert done == ["00", "02", "03"]  # 0 and 3, and 2
    rest = program(*command, "--share", "4/5")
    assert rest.stdout == "--share 4/5: there are fewer networks than that, so there is nothing to do here\n"
    assert rest.returncode == 0
    assert program(*command, "--share", "4/5", "--describe").stdout == rest.stdout
    assert json.loads(program(*command, "--share", "4/5", "--describe", "--json").stdout) == {
        "kinds": [],
        "multiply_adds": 0,
    }
    for wrong in ("3/3", "0/" + "9" * 5000):
        assert "write I/N with I from 0 to N - 1" in fails(*command, "--share", wrong)
    assert "is one band" in fails("spectral-train", "--shards", sub4 / "00", "--share", "0/2")
    whole = program(*command, "--describe").stdout
    assert "4 such networks" in whole
    assert "2 such networks" in program(*command, "--describe", "--share", "0/3").stdout


def test_a_finished_run_of_another_kind_ends_the_command_at_once(sub4: Path, tmp_path: Path) -> None:
    command = ("spectral-train", "--shards", sub4, *QUICK, "--out", tmp_path / "runs")
    assert program(*command, "--bands", "1").returncode == 0
    sentence = fails(*command, "--bands", "0,1", "--epochs", "3")
    assert "01 holds a finished run of another kind (recipe epochs 2 there, 3 here)" in sentence
    assert not (tmp_path / "runs" / "00").exists()


def test_unfinished_runs_are_named_where_others_are_fused(runs: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(runs, tmp_path / "runs"))
    (copy / "02" / "run.json").unlink()
    done = program("spectral-ensemble", copy)
    assert "left out, as not finished: 02" in done.stdout.splitlines()
    assert "of 3 members: top-1 " in done.stdout
