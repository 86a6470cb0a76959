"""Small runs: defaults that give way, values that contradict each other, and other data than that of a run."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from spectral_shards.preprocess.config import SplitConfig
from spectral_shards.preprocess.errors import ConfigError
from spectral_shards.train import recipes
from spectral_shards.train.engine.evaluate import evaluate_checkpoint
from spectral_shards.train.engine.trainer import train_network
from spectral_shards.train.errors import TrainError
from support.pictures import class_folders, picture
from support.programs import fails, program
from support.splits import make_split
from support.trainings import QUICK, quick

# --- values that fit each other


@pytest.mark.parametrize(
    ("name", "given", "values", "note"),
    [
        ("cifar10", {"epochs": 1}, {"warmup": 0.2}, "--warmup 8 of recipe cifar10 does not fit --epochs 1: it is 0.2"),
        ("cifar10", {"epochs": 7}, {"warmup": 1.4}, "--warmup 8 of recipe cifar10 does not fit --epochs 7: it is 1.4"),
        ("imagenet1k-strong", {"epochs": 3}, {"warmup": 0.05}, "does not fit --epochs 3: it is 0.05 here"),
        ("imagenet1k", {"lr": 1e-5}, {"lr_min": 1e-7}, "--lr-min 0.0001 of recipe imagenet1k does not fit --lr 1e-05"),
        ("imagenet1k", {"lr": 2e-9}, {"lr_min": 2e-11}, "it is 2e-11 here"),
    ],
)
def test_a_default_gives_way_in_proportion(name: str, given: dict[str, Any], values: dict[str, Any], note: str) -> None:
    recipe, notes = recipes.resolve(name, **given)
    assert {key: getattr(recipe, key) for key in values} == values
    assert len(notes) == 1
    assert note in notes[0]
    assert recipes.resolve(name, **given) == (recipe, notes)
    assert recipe == recipes.load(name, **given)


@pytest.mark.parametrize("batch_size", [2, 4, 1024])
@pytest.mark.parametrize("epochs", [1, 2, 1000])
@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_can_be_made_small(name: str, epochs: int, batch_size: int) -> None:
    recipe = recipes.load(name, epochs=epochs, batch_size=batch_size, lr=1e-6)
    assert recipe.warmup <= epochs
    assert recipe.lr_min <= 1e-6
    assert recipe.grad_accum_steps <= batch_size // 2


@pytest.mark.parametrize(
    ("name", "given"),
    [("cifar10", {"epochs": 8}), ("quick", {"epochs": 1}), ("imagenet1k", {"lr": 1e-4}), ("quick", {"warmup": 15.0})],
)
def test_what_fits_stays_as_it_is(name: str, given: dict[str, Any]) -> None:
    recipe, notes = recipes.resolve(name, **given)
    assert notes == []
    assert recipe == replace(recipes.load(name), **given)


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("cifar10", {"epochs": 1, "warmup": 8.0}, "--warmup 8 is longer than --epochs 1: choose 1 or less"),
        ("quick", {"warmup": 50.0}, "--warmup 50 is longer than --epochs 15 of recipe quick: choose 15 or less"),
        ("quick", {"lr_min": 0.2, "lr": 0.1}, "--lr-min 0.2 is larger than --lr 0.1: choose 0.1 or less"),
        (
            "imagenet1k",
            {"lr_min": 0.2},
            "--lr-min 0.2 is larger than --lr 0.01 of recipe imagenet1k: choose 0.01 or less",
        ),
        (
            "quick",
            {"grad_accum_steps": 8, "batch_size": 4},
            "--grad-accum-steps 8 leaves less than two samples for each part of --batch-size 4: choose 2 or less",
        ),
        ("quick", {"grad_accum_steps": 99}, "for each part of --batch-size 128 of recipe quick: choose 64 or less"),
        ("quick", {"warmup": -1.0}, "--warmup -1 is out of range: choose 0 or more"),
        ("quick", {"warmup": float("nan")}, "--warmup nan is out of range: choose 0 or more"),
        ("quick", {"momentum": 1.0}, "--momentum 1 is out of range: choose 0 or more, and less than 1"),
        ("quick", {"optimizer": "adam"}, "--optimizer adam is out of range: choose sgd or adamw"),
        ("quick", {"schedule": "flat"}, "--schedule flat is out of range: choose cosine, step or onecycle"),
    ],
)
def test_what_the_user_set_is_checked_against_what_it_meets(name: str, given: dict[str, Any], said: str) -> None:
    with pytest.raises(TrainError) as caught:
        recipes.resolve(name, **given)
    assert str(caught.value).endswith(said)


def test_a_file_gives_way_too_and_must_not_contradict_itself(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text("epochs = 20\nwarmup = 5\nbatch_size = 64\ngrad_accum_steps = 16\nlr = 0.1\nlr_min = 0.01\n")
    recipe, notes = recipes.resolve(str(mine), epochs=2, batch_size=8, lr=0.001)
    assert (recipe.warmup, recipe.grad_accum_steps, recipe.lr_min) == (0.5, 2, 0.0001)
    assert notes == [
        f"warmup = 5 of {mine} does not fit --epochs 2: it is 0.5 here",
        f"lr_min = 0.01 of {mine} does not fit --lr 0.001: it is 0.0001 here",
        f"grad_accum_steps = 16 of {mine} does not fit --batch-size 8: it is 2 here",
    ]
    mine.write_text("epochs = 4\nwarmup = 8\n")
    with pytest.raises(TrainError, match=re.escape(f"--recipe {mine}: warmup = 8 is longer than epochs = 4: choose 4")):
        recipes.load(str(mine))
    assert recipes.load(str(mine), epochs=10).warmup == 8
    assert recipes.load(str(mine), epochs=2).warmup == 2  # never more than fits
    with pytest.raises(TrainError, match=re.escape(f"--warmup 9 is longer than epochs = 4 of {mine}")):
        recipes.load(str(mine), warmup=9.0)
    for text, said in (
        ("lr = 0.1\nlr_min = 0.2\n", "lr_min = 0.2 is larger than lr = 0.1: choose 0.1 or less"),
        (
            "batch_size = 2\ngrad_accum_steps = 2\n",
            "grad_accum_steps = 2 leaves less than two samples for each part of batch_size",
        ),
        ("momentum = -1\n", "momentum = -1 is out of range: choose 0 or more, and less than 1"),
    ):
        mine.write_text(text)
        with pytest.raises(TrainError, match=re.escape(f"--recipe {mine}: {said}")):
            recipes.load(str(mine))


@pytest.mark.parametrize(
    ("name", "given", "note"),
    [
        ("quick", {"gamma": 0.5}, "--gamma 0.5 does nothing with --schedule cosine of recipe quick"),
        ("imagenet21k", {"lr_min": 1e-6}, "--lr-min 1e-06 does nothing with --schedule step of recipe imagenet21k"),
        ("quick", {"nesterov": True, "momentum": 0.0}, "--nesterov does nothing with --momentum 0"),
        ("quick", {"nesterov": True, "optimizer": "adamw"}, "--nesterov does nothing with --optimizer adamw"),
    ],
)
def test_an_option_that_does_nothing_is_said(name: str, given: dict[str, Any], note: str) -> None:
    assert recipes.resolve(name, **given)[1] == [note]
    assert recipes.resolve(name)[1] == []


def test_shifts_fit_the_planes() -> None:
    assert recipes.resolve("quick", plane=2) == (recipes.load("quick"), [])
    recipe, notes = recipes.resolve("quick", plane=1)
    assert recipe.random_shift == 0
    assert notes == ["--random-shift 1 of recipe quick does not fit planes of 1x1: it is 0 here"]
    with pytest.raises(TrainError, match="--random-shift 9 moves planes of 8x8 out of sight: choose less than 8"):
        recipes.resolve("quick", plane=8, random_shift=9)


def test_remarks_on_few_samples() -> None:
    strong = recipes.load("imagenet1k-strong", epochs=2)
    assert recipes.remarks(strong, 81, 1) == [
        "there are 81 samples to train on: fewer than --batch-size 1024",
        "--ema 0.9998 averages over some 5,000 steps, and this run has 2: "
        "what is evaluated stays close to the untrained weights",
    ]
    assert recipes.remarks(strong, 1024, 2501) == []
    assert recipes.remarks(recipes.load("quick"), 128, 1) == []


@pytest.fixture(scope="module")
def cifar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A band named cifar10, of twelve images."""
    root = tmp_path_factory.mktemp("small")
    source = class_folders(root / "cifar10", {"a": 4, "b": 4, "c": 4})
    return make_split(source, root / "sub4", factor=4, size=16, val_per_class=1, bands=(0,)) / "00"


def test_one_epoch_of_a_set_named_cifar10(cifar: Path, tmp_path: Path) -> None:
    command = ("spectral-train", "--shards", cifar, "--network", "cnn", "--workers", "0", "--out", tmp_path / "run")
    done = program(*command, "--epochs", "1", "--holdout-samples", "20")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "--warmup 8 of recipe cifar10 does not fit --epochs 1: it is 0.2 here"
    assert lines[1] == (
        "--holdout-samples 20 holds nothing out: whole blocks of 64, and at most a twentieth of 9 samples; "
        "fewer than 50 rank bands by chance"
    )
    assert "there are 9 samples to train on: fewer than --batch-size 128" in done.stderr + done.stdout
    options = json.loads((tmp_path / "run" / "run.json").read_text())["options"]["recipe"]
    assert (options["warmup"], options["name"]) == (0.2, "cifar10")
    kept = recipes.load(str(tmp_path / "run" / "recipe.toml"))
    assert kept.warmup == 0.2
    again = program(*command, "--epochs", "1")
    assert again.returncode == 2  # another holdout-samples
    assert "holdout-samples 20 there, 10000 here" in again.stderr
    again = program(*command, "--epochs", "1", "--holdout-samples", "20")
    assert "is finished" in again.stdout
    assert fails(*command, "--epochs", "1", "--warmup", "8") == (
        "Error: --warmup 8 is longer than --epochs 1: choose 1 or less"
    )


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_trains_twelve_images(name: str, cifar: Path, tmp_path: Path) -> None:
    recipe = recipes.load(name, epochs=1, batch_size=4, lr=1e-5)
    result = train_network(str(cifar), tmp_path / "run", replace(quick(), recipe=recipe), quiet=True)
    assert result.top1 is not None


# --- preparing


@pytest.mark.parametrize(
    ("options", "block"),
    [
        ({"size": 4096}, 19),
        ({"size": 4096, "dtype": "float16"}, 9),
        ({"size": 2048, "margin": 2048}, 19),
        ({"size": 2048}, 64),
        ({}, 64),
    ],
)
def test_blocks_of_large_images_are_smaller(options: dict[str, Any], block: int) -> None:
    plan = SplitConfig(4, **options).resolved()
    assert plan.samples_per_block == block
    assert plan.resolved() == plan
    with pytest.raises(
        ConfigError, match=r"--samples-per-block 65: with --size 4096 .* at most 1.0 GB: choose 19 or less"
    ):
        SplitConfig(4, size=4096, samples_per_block=65).resolved()


def test_large_images_by_default(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "set", {"a": 2})
    done = program("spectral-prep", "split", "--factor", "4", "--size", "4096", source, "--dry-run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("--samples-per-block 64 does not fit --size 4096: it is 19 here\n")


def test_val_that_a_limit_leaves_nothing_for(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "set", {"a": 6, "b": 6})
    command = (
        "spectral-prep",
        "split",
        "--factor",
        "4",
        "--size",
        "16",
        "--val-per-class",
        "3",
        "--limit",
        "4",
        source,
    )
    sentence = fails(*command, cwd=tmp_path)
    assert re.search(
        r"--val-per-class 3 leaves nothing .* in class [ab], of which --limit 4 takes [123] images", sentence
    )


def test_more_images_than_there_are(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "set", {"a": 2})
    done = program("spectral-prep", "split", "--factor", "4", "--size", "16", source, "--out", tmp_path / "sub4")
    assert done.returncode == 0, done.stderr
    assert "No val part: training from this split evaluates nothing; --val-per-class 1 or more holds" in done.stdout
    drawn = program("spectral-prep", "preview", tmp_path / "sub4", "--out", tmp_path / "x.png")
    assert drawn.returncode == 0, drawn.stderr
    assert drawn.stdout.strip().endswith("pixels, all 2 images of train")
    one = program("spectral-prep", "preview", tmp_path / "sub4", "--out", tmp_path / "x.png", "--images", "1")
    assert one.stdout.strip().endswith("pixels")


# --- what a checkpoint is evaluated on


def test_the_data_of_another_network(runs: Path, sub4: Path, tmp_path: Path) -> None:
    path = runs / "02" / "checkpoint.pt"
    classes = make_split(
        class_folders(tmp_path / "two", {"ant": 20, "wasp": 20}),
        tmp_path / "classes",
        factor=4,
        size=24,
        transform="dct2",
    )
    other = class_folders(tmp_path / "three", {"ant": 20, "bee": 20, "dog": 20})
    named = make_split(other, tmp_path / "named", factor=4, size=24, transform="dct2")
    large = make_split(other, tmp_path / "large", factor=4, size=32, transform="dct2", fit="crop")
    end = "name the bands that it was trained on"
    for shards, said in (
        (classes / "02", "3 classes there, 2 here"),
        (named / "02", "class 2 is cat there, dog here"),
        (large / "02", "fit squash there, crop here; size 24 there, 32 here; class 2 is cat there, dog here"),
        (named / "01", "band 2 there, 1 here; class 2 is cat there, dog here"),
    ):
        with pytest.raises(TrainError) as caught:
            evaluate_checkpoint(str(shards), path, quick())
        assert str(caught.value) == f"{path} was trained on other data than {shards} ({said}): {end}"


def test_the_difference_to_other_runs_is_said_in_words(runs: Path, sub4: Path, tmp_path: Path) -> None:
    source = class_folders(tmp_path / "photos", {"ant": 40, "bee": 31, "cat": 25})
    Image.fromarray(picture(99)).save(source / "ant" / "more.png")
    other = make_split(
        source, tmp_path / "sub4", factor=4, size=24, transform="dct2", samples_per_block=8, val_per_class=5
    )
    plan = replace(quick(), recipe=replace(quick().recipe, lr=0.3))
    for shards, options, said in (
        (other / "00", quick(), "other samples, or the same in another order"),
        (sub4 / "00", plan, "recipe lr 0.1 there, 0.3 here"),
        (sub4 / "00", replace(quick(), holdout_samples=3), "holdout-samples 10000 there, 3 here"),
        (sub4 / "01", quick(), "bands 0 there, 1 here"),
    ):
        with pytest.raises(TrainError, match=re.escape(f"holds a finished run of another kind ({said})")):
            train_network(str(shards), runs / "00", options, quiet=True)


def test_files_of_another_release_are_refused_and_replaced_on_request(runs: Path, sub4: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(runs / "02", tmp_path / "02"))
    command = ("spectral-train", "--shards", sub4 / "02", *QUICK, "--out", run)
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**record, "version": record["version"] - 1}))
    refused = f"{run}/run.json is of a version that this release does not know: train again, with --no-resume"
    assert refused in fails(*command)
    assert refused in fails("spectral-ensemble", run)
    assert refused in fails("spectral", "report", run)
    (run / "run.json").unlink()
    saved = torch.load(run / "checkpoint.pt", weights_only=True)
    torch.save({**saved, "version": saved["version"] - 1}, run / "checkpoint.pt")
    said = fails(*command)
    assert f"{run}/checkpoint.pt has version {saved['version'] - 1}, this release knows version" in said
    assert said.rstrip().endswith("train again, with --no-resume")
    assert program(*command, "--no-resume").returncode == 0
    assert (run / "val-logits.npy").read_bytes() == (runs / "02" / "val-logits.npy").read_bytes()
