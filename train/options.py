"""The command lines of spectral-train and spectral-ensemble as typed values."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from . import recipes
from .config import ReadOptions
from .networks import NetworkOptions

ASKING = {"shards", "network", "budget", "as_json", "quiet"}  # options that do not change the commands of --budget


@dataclass(frozen=True)
class RunSettings:
    """Options of a run, without its recipe and how it reads.

    Attributes:
        seed: of the weights, the order of samples and the augmentation.
        device: auto, cpu, cuda or cuda:N.
        precision: one of config.PRECISIONS.
        compile: use torch.compile.
        save_minutes: minutes between checkpoints within an epoch.
        resume: go on with an unfinished run.
        holdout_samples: samples of train that are not trained on, at most.
        tensorboard: write TensorBoard's event files too.
    """

    seed: int
    device: str
    precision: str
    compile: bool
    save_minutes: float
    resume: bool
    holdout_samples: int
    tensorboard: bool


@dataclass(frozen=True)
class LaunchOptions:
    """Which networks are trained, and where.

    Attributes:
        bands: which bands each network reads, as band_sets.parse_band_sets takes it; None for the default.
        jobs: networks at once, on each GPU of this machine or in all; None for one here, or all that a cluster has.
        backend: one of executors.BACKENDS.
        address: of the cluster; empty for what its library finds.
        share: I and N: train the I-th of every N networks, counted from 0; None for all.
    """

    bands: str | None
    jobs: int | None
    backend: str
    address: str
    share: tuple[int, int] | None = None

    @property
    def on_this_machine(self) -> bool:
        """Whether no cluster is named."""
        return self.backend == "loky"


@dataclass(frozen=True)
class TrainOptions:
    """The command line of spectral-train.

    Attributes:
        shards: path or URL of a band or of a split.
        out: run folder; None for the default.
        network: which one, and its size.
        recipe: name or file of the recipe; None for what the data set's name says.
        overrides: fields of the recipe by name; None where the user set nothing.
        run: options of the run.
        reading: how samples are read.
        launch: where bands are trained.
        describe: print what the networks cost, and train nothing.
        budget: print which networks fit this cost, and train nothing; None to train.
        evaluate: checkpoint to evaluate, in place of training.
        ten_crop: evaluate on ten crops.
        as_json: print what describe, budget or evaluate found as JSON.
        quiet: print problems and results only.
        given: names of the options that are on the command line, in its order.
        training_options: those of them that stand in the commands that `budget` prints.
    """

    shards: str
    out: str | None
    network: NetworkOptions
    recipe: str | None
    overrides: Mapping[str, Any]
    run: RunSettings
    reading: ReadOptions
    launch: LaunchOptions
    describe: bool
    budget: float | None
    evaluate: str | None
    ten_crop: bool
    as_json: bool
    quiet: bool
    given: tuple[str, ...]
    training_options: str

    @staticmethod
    def from_values(values: Mapping[str, Any], given: tuple[str, ...]) -> TrainOptions:
        """Sort the values that click parsed, by the names of their options."""
        return TrainOptions(
            shards=values["shards"],
            out=values["out"],
            network=NetworkOptions(
                values["network"], int(values["stem_stride"] or 0), values["width"], values["inputs"]
            ),
            recipe=values["recipe"],
            overrides={name: values[name] for name in recipes.OPTIONS},
            run=RunSettings(
                seed=values["seed"],
                device=values["device"],
                precision=values["precision"],
                compile=values["compile"],
                save_minutes=values["save_every"],
                resume=values["resume"],
                holdout_samples=values["holdout_samples"],
                tensorboard=values["tensorboard"],
            ),
            reading=ReadOptions(
                workers=values["workers"],
                last_batch=values["last_batch"],
                cache=values["cache"],
                cache_bytes=values["cache_size"],
                skip=values["on_bad_shard"] == "skip",
                resident=values["resident"],
            ),
            launch=LaunchOptions(
                values["bands"], values["jobs"], values["backend"], values["address"], values["share"]
            ),
            describe=values["describe"],
            budget=values["budget"],
            evaluate=values["evaluate"],
            ten_crop=values["ten_crop"],
            as_json=values["as_json"],
            quiet=values["quiet"],
            given=given,
            training_options=" ".join(_written(name, values[name]) for name in given if name not in ASKING),
        )


def _written(name: str, value: Any) -> str:
    """Return an option as it is written on the command line."""
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{flag}" if value else f"--no-{flag}"
    text = "/".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return f"--{flag} {shlex.quote(text)}"


@dataclass(frozen=True)
class EnsembleOptions:
    """The command line of spectral-ensemble.

    Attributes:
        runs: run folders, and folders of run folders.
        out: folder for the report; None for the first of `runs`.
        rank_on: one of ensemble.rules.RANK_ON; None for the default.
        baseline: run folder of a network that saw the whole images.
        export: file to write the ensemble to as one model.
        rule: one of ensemble.rules.RULES, for the export; None for the default rule.
        says_members: the exported model also returns what each member says.
        as_json: print the report as JSON.
        quiet: print the result only.
    """

    runs: tuple[str, ...]
    out: str | None
    rank_on: str | None
    baseline: str | None
    export: str | None
    rule: str | None
    says_members: bool = False
    as_json: bool = False
    quiet: bool = False
