"""Recipes and schedules."""

import math
import re
from pathlib import Path

import pytest

from spectral_shards.shards_manifest.errors import SpectralError
from spectral_shards.train import recipes
from spectral_shards.train.engine.lr_schedule import learning_rate
from spectral_shards.train.errors import TrainError
from support.programs import fails, program


def test_schedules() -> None:
    published = recipes.load("imagenet1k")
    assert (published.epochs, published.batch_size, published.lr, published.momentum, published.weight_decay) == (
        100,
        256,
        0.01,
        0.9,
        1e-4,
    )
    rates = [learning_rate(step, 10, published) for step in range(1001)]
    assert rates[0] == 0.01
    assert math.isclose(rates[500], (0.01 + 1e-4) / 2)
    assert math.isclose(rates[1000], 1e-4)
    assert rates == sorted(rates, reverse=True)
    warm = recipes.load("quick", warmup=2.0)
    assert [learning_rate(step, 10, warm) for step in (0, 9, 19)] == pytest.approx([0.005, 0.05, 0.1])
    steps = recipes.load("imagenet1k", schedule="step", lr=1.0, lr_min=0.0)
    assert [learning_rate(epoch * 10, 10, steps) for epoch in (0, 29, 30, 60, 99)] == pytest.approx(
        [1, 1, 0.1, 0.01, 0.001]
    )


def test_one_cycle_rises_and_falls() -> None:
    recipe = recipes.load("cifar10", epochs=10, warmup=2.0, lr=1.0)
    rates = [learning_rate(step, 10, recipe) for step in range(101)]
    assert math.isclose(rates[0], 1 / 25)
    assert math.isclose(rates[10], (1 / 25 + 1) / 2)
    assert math.isclose(rates[20], 1)
    assert rates[:21] == sorted(rates[:21])
    assert rates[20:] == sorted(rates[20:], reverse=True)
    assert rates[100] < 1e-12


def test_the_published_recipe_of_21k() -> None:
    published = recipes.load("imagenet21k")
    assert (published.epochs, published.batch_size, published.lr, published.momentum) == (100, 512, 0.001, 0.9)
    assert [learning_rate(epoch * 10, 10, published) for epoch in (0, 30, 99)] == pytest.approx([1e-3, 1e-4, 1e-6])


@pytest.mark.parametrize(
    ("dataset", "recipe"),
    [
        ("imagenet21k", "imagenet21k"),
        ("ImageNet-21K-P", "imagenet21k"),
        ("fall11_whole", "imagenet21k"),
        ("winter21_whole", "imagenet21k"),
        ("cifar10", "cifar10"),
        ("imagenet", "imagenet1k"),
        ("photos", "imagenet1k"),
    ],
)
def test_the_recipe_of_a_data_set(dataset: str, recipe: str) -> None:
    assert recipes.of_dataset(dataset) == recipe
    assert recipe in recipes.names()


@pytest.mark.parametrize(
    "field",
    [
        "grad_accum_steps",
        "clip_grad",
        "ema",
        "mixup",
        "cutmix",
        "epochs",
        "batch_size",
        "lr_min",
        "momentum",
        "label_smoothing",
        "random_shift",
    ],
)
def test_recipes_are_checked(field: str) -> None:
    with pytest.raises(SpectralError, match=f"--{field.replace('_', '-')} -1"):
        recipes.load("quick", **{field: -1})


def test_the_resolved_recipe_runs_it_again(sub4: Path, tmp_path: Path) -> None:
    command = ("spectral-train", "--shards", sub4 / "00", "--network", "cnn", "--workers", "0", "--out")
    changes = ("--epochs", "1", "--batch-size", "16", "--no-flip", "--ema", "0.5", "--weight-decay", "1e-5")
    first = program(*command, tmp_path / "a", "--recipe", "quick", *changes)
    assert first.returncode == 0, first.stderr
    assert " ".join(first.stdout.split()).startswith("recipe quick: epochs 1, batch-size 16, optimizer sgd, lr 0.1,")
    recipe = tmp_path / "a" / "recipe.toml"
    again = program(*command, tmp_path / "b", "--recipe", recipe)
    assert again.returncode == 0, again.stderr
    assert recipes.load(str(recipe)) == recipes.load(
        "quick", epochs=1, batch_size=16, flip=False, ema=0.5, weight_decay=1e-5
    )
    assert len({(tmp_path / name / "val-logits.npy").read_bytes() for name in "ab"}) == 1
    for text, said in (
        ("epochs = 1.5", "epochs = 1.5 is not a whole number"),
        ("flip = 1", "flip = 1 is not true or false"),
        ("epoch = 1", "has the unknown field epoch: choose name, epochs,"),
        ("lr = ", "is not valid TOML"),
        ("lr = -1", f"--recipe {recipe}: lr = -1 is out of range: choose more than 0"),
        (f"lr = 1{400 * '0'}", "000 is not a number"),
    ):
        recipe.write_text(text)
        with pytest.raises(TrainError, match=re.escape(said)):
            recipes.load(str(recipe))
    assert "cannot be read: No such file" in fails(*command, tmp_path / "c", "--recipe", "no.toml")
