"""The command lines: choices come from where they are defined, and values are sorted into options."""

import shlex
from collections.abc import Collection

import click
import pytest
from click.testing import CliRunner

from spectral_shards.shards_manifest.runtime.executors import BACKENDS
from spectral_shards.train import cli, ensemble_cli, networks, recipes
from spectral_shards.train.config import ON_BAD_SHARD, PRECISIONS
from spectral_shards.train.data.sampler import LAST_BATCH
from spectral_shards.train.engine import lr_schedule, optimizers
from spectral_shards.train.ensemble.rules import RANK_ON, RULES
from spectral_shards.train.errors import TrainError
from spectral_shards.train.options import TrainOptions


@pytest.mark.parametrize(
    ("command", "option", "choices"),
    [
        (cli.cli, "--network", networks.NETWORKS),
        (cli.cli, "--optimizer", recipes.OPTIMIZERS),
        (cli.cli, "--schedule", recipes.SCHEDULES),
        (cli.cli, "--precision", PRECISIONS),
        (cli.cli, "--last-batch", LAST_BATCH),
        (cli.cli, "--on-bad-shard", ON_BAD_SHARD),
        (cli.cli, "--backend", BACKENDS),
        (ensemble_cli.cli, "--rank-on", RANK_ON),
        (ensemble_cli.cli, "--rule", RULES),
    ],
)
def test_choices_are_shown_and_checked(command: click.Command, option: str, choices: Collection[str]) -> None:
    shown = CliRunner().invoke(command, ["--help"]).output
    assert f"{option} [{'|'.join(choices)}]" in shown
    refused = CliRunner().invoke(command, [option, "bogus"])
    assert refused.exit_code == 2
    assert f"'bogus' is not one of {', '.join(map(repr, choices))}." in refused.output


def test_the_engine_has_what_a_recipe_can_name() -> None:
    assert set(optimizers.BUILDERS) == set(recipes.OPTIMIZERS)
    assert set(lr_schedule.FALLS) == set(recipes.SCHEDULES)
    assert set(lr_schedule.RISES) <= set(recipes.SCHEDULES)


def parsed(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> TrainOptions:
    """What the command hands on to the work."""
    found: list[TrainOptions] = []
    monkeypatch.setattr("spectral_shards.train.commands.train", found.append)
    result = CliRunner().invoke(cli.cli, ["--shards", "sub4", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return found[0]


def test_values_are_sorted_into_options(monkeypatch: pytest.MonkeyPatch) -> None:
    options = parsed(
        *("--lr", "0.5", "--no-flip", "--cache-size", "1.5 TB", "--on-bad-shard", "skip", "--no-resume"),
        *("--save-every", "2", "--jobs", "3"),
        monkeypatch=monkeypatch,
    )
    assert {name: value for name, value in options.overrides.items() if value is not None} == {"lr": 0.5, "flip": False}
    assert set(options.overrides) == {*recipes.FIELDS} - {"name"}
    assert (options.reading.cache_bytes, options.reading.skip) == (1_500_000_000_000, True)
    assert (options.run.resume, options.run.save_minutes) == (False, 2)
    assert (options.launch.jobs, options.launch.on_this_machine) == (3, True)
    assert set(options.given) == {
        "shards",
        "lr",
        "flip",
        "cache_size",
        "on_bad_shard",
        "resume",
        "save_every",
        "jobs",
    }


def test_options_are_written_again_as_they_were_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    options = parsed(
        *("--lr", "0.5", "--no-flip", "--cache-size", "1.5 TB", "--on-bad-shard", "skip", "--no-resume", "--compile"),
        *("--save-every", "2", "--jobs", "3", "--share", "1/4", "--last-batch", "wrap", "--out", "my runs"),
        *("--backend", "ray", "--device", "cpu", "--seed", "5", "--budget", "1", "--network", "cnn", "--quiet"),
        monkeypatch=monkeypatch,
    )
    again = parsed(*shlex.split(options.training_options), monkeypatch=monkeypatch)
    asking = {"shards", "network", "budget", "quiet"}
    assert set(again.given) == set(options.given) - asking | {"shards"}
    for name in ("out", "recipe", "overrides", "run", "reading", "launch"):
        assert getattr(again, name) == getattr(options, name)


def test_a_cache_that_is_too_small_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for size in ("99MB", "much", "0", "9" * 400):
        with pytest.raises(TrainError, match=f"--cache-size {size}: write a size of 100MB or more, as in 50GB"):
            parsed("--cache-size", size, monkeypatch=monkeypatch)
