"""The loader of bands, as scripts use it: epochs, states, ranks, parts, several bands at once."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from spectral_shards.shards_manifest.dataset import open_band
from spectral_shards.shards_manifest.errors import FormatError, ShardError
from spectral_shards.shards_manifest.shard.reader import BlockReader
from spectral_shards.train.data.loader import BandLoader, LoaderOptions
from spectral_shards.train.errors import TrainError
from support.pictures import encode
from support.programs import program
from support.splits import ROOT, SUB4, make_split
from support.trainings import QUICK

Pairs = list[tuple[torch.Tensor, torch.Tensor]]


def same(first: Pairs, second: Pairs) -> bool:
    return all(torch.equal(x, a) and torch.equal(y, b) for (x, y), (a, b) in zip(first, second, strict=True))


def taken(loader: BandLoader, count: int) -> Pairs:
    return list(itertools.islice(iter(loader), count))


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_epochs_follow_each_other_and_can_be_chosen(sub4: Path, workers: int) -> None:
    loader = BandLoader(sub4 / "01", batch_size=20, seed=3, workers=workers)
    assert (len(loader), loader.samples, loader.batch_size) == (4, 81, 20)
    epochs = [list(loader) for _ in range(3)]
    assert all(len(epoch) == 4 for epoch in epochs)
    x, y = epochs[0][0]
    assert (x.shape, x.dtype, y.shape, y.dtype) == ((20, 3, 12, 12), torch.int8, (20,), torch.int64)
    assert not same(epochs[0], epochs[1])
    loader.set_epoch(1)
    assert same(list(loader), epochs[1])
    assert same(list(loader), epochs[2])  # what the threads had read ahead
    loader.set_epoch(0)
    assert same(taken(loader, 2), epochs[0][:2])
    assert same(list(loader), epochs[0])  # an iteration that was left is begun again
    assert not same(epochs[0], list(BandLoader(sub4 / "01", batch_size=20, seed=4, workers=workers)))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_state_goes_on_in_the_middle_for_any_ranks(sub4: Path, workers: int) -> None:
    loader = BandLoader(str(sub4 / "00"), batch_size=20, workers=workers)
    whole = [list(loader) for _ in range(2)]
    loader.set_epoch(1)
    taken(loader, 3)
    state = loader.state_dict()
    assert state == {"seed": 0, "epoch": 1, "samples": 60}
    for world_size in (1, 3):
        shares = []
        for rank in range(world_size):
            other = BandLoader(sub4 / "00", "train", 20, 0, rank, world_size, workers)
            other.load_state_dict(state)
            shares.append(list(other))
            assert other.state_dict() == {"seed": 0, "epoch": 2, "samples": 0}
        joined = [
            (torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])) for parts in zip(*shares, strict=True)
        ]
        assert same(joined, whole[1][3:])
    with pytest.raises(TrainError, match="batches of 20 with seed 5 cannot go on after 60 samples of epoch 2"):
        BandLoader(sub4 / "00", batch_size=20, seed=5).load_state_dict(state)


def test_val_and_the_holdout_have_every_sample_once_in_stored_order(sub4: Path) -> None:
    store, manifest = band = open_band(str(sub4 / "02"))
    reader = BlockReader(store, manifest, "val")
    wanted = np.concatenate([reader.read(block)[0] for block in range(len(reader.samples))])
    for world_size in (1, 2):
        loaders = [BandLoader(band, "val", 4, rank=rank, world_size=world_size) for rank in range(world_size)]
        for _ in range(2):
            pairs = [list(loader) for loader in loaders]
            assert [len(each) for each in pairs] == [len(loader) for loader in loaders]
            assert np.array_equal(torch.cat([x for each in pairs for x, _ in each]).numpy(), wanted)
        counts = [sum(len(y) for _, y in each) for each in pairs]
        assert loaders[0].rank_starts == [sum(counts[:rank]) for rank in range(world_size)]
    loader = BandLoader(band, "val", 4)
    taken(loader, 1)
    other = BandLoader(band, "val", 4)
    other.load_state_dict(loader.state_dict())
    assert same(list(other), list(BandLoader(band, "val", 4))[1:])


def test_the_holdout_is_what_train_leaves(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for number in range(1100):  # a twentieth has to be 50 or more
        path = tmp_path / "images" / "train" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(random.integers(0, 256, (16, 16, 3), np.uint8), "PNG"))
    out = make_split(
        tmp_path / "images", tmp_path / "sub4", factor=4, size=16, samples_per_block=8, val_per_class=1, bands=(0, 1)
    )
    options = LoaderOptions(holdout_samples=1000)
    parts = {part: BandLoader(out / "00", part, 16, options=options) for part in ("train", "holdout")}
    every = BandLoader(out / "00", "train", 16)
    assert 50 <= parts["holdout"].samples <= every.samples // 20
    assert parts["train"].samples + parts["holdout"].samples == every.samples
    seen = {part: [row.numpy().tobytes() for x, _ in loader for row in x] for part, loader in parts.items()}
    assert len(seen["holdout"]) == parts["holdout"].samples
    assert not set(seen["train"]) & set(seen["holdout"])
    for part in ("train", "holdout"):  # of several bands as of one
        split, *bands = (list(BandLoader(data, part, 16, options=options)) for data in (out, out / "00", out / "01"))
        for number, band in enumerate(bands):
            assert same([(x[:, number], y) for x, y in split], band)


def test_all_bands_of_a_split_at_once(sub4: Path) -> None:
    for part in ("train", "val"):
        split = list(BandLoader(sub4, part, 20, workers=2))
        bands = [list(BandLoader(sub4 / f"{number:02d}", part, 20)) for number in range(4)]
        assert split[0][0].shape[1:] == (4, 3, 12, 12)
        for number, band in enumerate(bands):
            assert same([(x[:, number], y) for x, y in split], band)


def test_the_bands_of_a_split_share_the_open_files(sub4: Path) -> None:
    script = "import sys; from spectral_shards import BandLoader; print(len(list(BandLoader(sys.argv[1], workers=2))))"
    few = f'ulimit -n 32; exec "{sys.executable}" -c "{script}" "{sub4}"'  # for 4 bands, 2 threads, 4 shards
    done = subprocess.run(["bash", "-c", few], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


def test_lost_samples_are_counted_and_said_once(sub4: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    band = Path(shutil.copytree(sub4 / "00", tmp_path / "00"))
    (band / "train-000002.tar").unlink()
    with pytest.raises(ShardError, match=r"train-000002\.tar is missing"):
        list(BandLoader(band, batch_size=9))
    loader = BandLoader(band, batch_size=9, options=LoaderOptions(skip_bad_shards=True))
    for epoch in (1, 2):
        assert [len(y) for _, y in loader] == [9] * 9
        assert loader.lost == 24 * epoch
    assert capsys.readouterr().out.count("train-000002.tar is missing: copy the band again: going on without it") == 1
    whole = Path(shutil.copytree(sub4, tmp_path / "whole"))
    (whole / "01" / "train-000002.tar").unlink()
    bands = BandLoader(whole, batch_size=9, options=LoaderOptions(skip_bad_shards=True))
    side_by_side = [batch for _ in range(2) for batch in bands]
    assert bands.lost == 24 * 2
    for folder in ("00", "02", "03"):
        (whole / folder / "train-000002.tar").unlink()
    for number in range(4):  # in the place of what is missing in one band, all have the same other samples
        alone = BandLoader(whole / f"0{number}", batch_size=9, options=LoaderOptions(skip_bad_shards=True))
        assert same([(x[:, number], y) for x, y in side_by_side], [batch for _ in range(2) for batch in alone])


def test_threads_end_with_the_loader(sub4: Path) -> None:
    before = set(threading.enumerate())
    with BandLoader(sub4 / "00", batch_size=9, workers=2) as loader:
        taken(loader, 1)
        assert len(set(threading.enumerate()) - before) == 2
    assert set(threading.enumerate()) <= before
    short = BandLoader(sub4 / "00", batch_size=9, workers=2, options=LoaderOptions(epochs=1))
    long = BandLoader(sub4 / "00", batch_size=9, workers=2)
    assert same(list(short), list(long))
    assert same(list(short), list(long))  # an epoch more than it was told of
    short.close()
    long.close()
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"part": "test"}, "there is no part 'test': choose train, holdout, val"),
        ({"part": "holdout"}, "the part 'holdout' needs holdout_samples"),
        ({"batch_size": 0}, "batch_size 0: choose 1 or more"),
        ({"rank": 2, "world_size": 2}, "there is no rank 2 among 2: ranks count from 0"),
        ({"options": LoaderOptions(last_batch="keep")}, "last_batch 'keep': choose drop, wrap"),
    ],
)
def test_one_sentence_for_a_wrong_argument(sub4: Path, arguments: dict[str, object], sentence: str) -> None:
    with pytest.raises(TrainError, match=sentence):
        BandLoader(sub4 / "00", **arguments)  # type: ignore[arg-type]


def test_what_cannot_be_loaded(sub4: Path, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="or one that is not finished"):
        BandLoader(tmp_path)
    other = Path(shutil.copytree(sub4, tmp_path / "sub4"))
    text = (other / "02" / "manifest.json").read_text()
    digest = open_band(str(sub4 / "02")).manifest.parts["train"].digest
    (other / "02" / "manifest.json").write_text(text.replace(digest, "0" * 64))
    with pytest.raises(FormatError, match="02 has another sample order than"):
        BandLoader(other)


def test_a_part_that_is_not_there(photos: Path, tmp_path: Path) -> None:
    out = make_split(photos, tmp_path / "sub4", factor=4, size=16, val_per_class=0, bands=(1,))
    for data in (out, out / "01", open_band(out / "01")):
        with pytest.raises(FormatError, match="has no val part: choose train"):
            BandLoader(data, "val")


def test_bands_that_do_not_belong_together(sub4: Path, photos: Path, tmp_path: Path) -> None:
    """The same samples in blocks of another size, and with other labels."""
    mixed = Path(shutil.copytree(sub4, tmp_path / "mixed"))
    shutil.rmtree(mixed / "02")
    shutil.copytree(make_split(photos, tmp_path / "other", **{**SUB4, "samples_per_block": 4}) / "02", mixed / "02")
    with pytest.raises(FormatError, match=r"has other blocks than train of .*: copy the split again"):
        BandLoader(mixed)

    relabelled = Path(shutil.copytree(photos, tmp_path / "relabelled"))
    for name, to in (("ant", "aside"), ("cat", "ant"), ("aside", "cat")):
        (relabelled / name).rename(relabelled / to)
    other = make_split(relabelled, tmp_path / "other-labels", **SUB4)
    manifest = other / "02" / "manifest.json"
    text = manifest.read_text()
    for part, there in open_band(other / "02").manifest.parts.items():
        text = text.replace(there.digest, open_band(sub4 / "02").manifest.parts[part].digest)
    manifest.write_text(text)
    shutil.rmtree(mixed)
    shutil.copytree(sub4, mixed)
    shutil.rmtree(mixed / "02")
    shutil.copytree(other / "02", mixed / "02")
    with pytest.raises(ShardError, match=r"the bands of train of .* have other labels than each other"):
        list(BandLoader(mixed))


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ("python", "own_trainer.py"),
        ("torchrun", "--nproc-per-node", "2", "own_trainer.py"),
        ("python", "lightning.py"),
    ],
    ids=" ".join,
)
def test_examples_run_beside_the_users_own_train_py(
    sub4: Path, tmp_path: Path, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files in the working directory with the names of our folders, on PYTHONPATH too, hide nothing of ours."""
    if command[-1] == "lightning.py":
        pytest.importorskip("pytorch_lightning")
    for name in ("train", "preprocess", "shards_manifest"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('not this one')\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([".", os.environ["PYTHONPATH"]]))
    *launcher, example = command
    done = program(*launcher, ROOT / "examples" / example, sub4 / "00", "20", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    last = [line for line in done.stdout.splitlines() if "top-1" in line][-1]
    assert float(last.split("top-1 ")[1].rstrip("%")) > 50  # of three classes
    for name in ("spectral-prep", "spectral-train", "spectral-ensemble"):
        assert program(name, "--help", cwd=tmp_path).returncode == 0


def test_blocks_as_they_are_give_the_same_batches_and_losses(sub4: Path, photos: Path, tmp_path: Path) -> None:
    plain = make_split(photos, tmp_path / "sub4", **SUB4, compression="none")
    for data, workers in (("01", 0), ("", 2)):
        for part in ("train", "val"):
            here, there = (
                list(BandLoader(split / data, part, batch_size=20, seed=3, workers=workers)) for split in (plain, sub4)
            )
            assert same(here, there)
    logits = []
    for split in (plain, sub4):
        run = tmp_path / split.parent.name / "run"
        done = program("spectral-train", "--shards", split / "01", *QUICK, "--out", run)
        assert done.returncode == 0, done.stderr
        logits.append((run / "val-logits.npy").read_bytes())
    assert logits[0] == logits[1]
    damaged = next((plain / "01").glob("train-000001.tar"))
    data = bytearray(damaged.read_bytes())
    data[1000] ^= 1
    damaged.write_bytes(data)
    with pytest.raises(ShardError, match=r"train-000001\.tar was altered"):
        list(BandLoader(plain / "01", batch_size=20))
