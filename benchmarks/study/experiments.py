"""The experiments of the study, as experiments.toml lists them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spectral_shards.train.band_sets import BandSet, parse_band_sets
from spectral_shards.train.networks import PLANES

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HERE = Path(__file__).parent
RECORDS = HERE / "records"
TIMES = HERE / "times.json"
BASELINE = "baseline"  # the experiment that all costs are multiples of
TIMELESS = ("--seed", "--epochs", "--holdout-samples")  # do not change what a training sample takes
MOST_SEEDS = 100


@dataclass(frozen=True)
class Data:
    """A data set.

    Attributes:
        name: in records and tables.
        title: for the tables.
        source: its folder, below the folder of all data sets.
        split: options of spectral-prep split.
        train: options of spectral-train.
        seeds: how many of an experiment's seeds are done on it.
        only: names of the experiments that are done on it; empty for all that name it, or name none.
    """

    name: str
    title: str
    source: str
    split: tuple[str, ...]
    train: tuple[str, ...]
    seeds: int
    only: tuple[str, ...]

    @property
    def size(self) -> int:
        """The side of its images, in pixels."""
        return int(self.split[self.split.index("--size") + 1])


@dataclass(frozen=True)
class Group:
    """Networks that one command trains.

    Attributes:
        split: name of the split that they read.
        bands: as --bands takes it.
        train: further options of spectral-train.
    """

    split: str
    bands: str
    train: tuple[str, ...] = ()

    @property
    def inputs(self) -> str:
        """What its networks see of their bands."""
        return self.train[self.train.index("--inputs") + 1] if "--inputs" in self.train else PLANES

    @property
    def timed(self) -> tuple[str, ...]:
        """The options of spectral-train that a training sample's time depends on, `--bands` aside."""
        pairs = zip(self.train[::2], self.train[1::2], strict=True)
        return tuple(word for pair in pairs if pair[0] not in TIMELESS for word in pair)


@dataclass(frozen=True)
class Experiment:
    """Networks that are trained, and fused if there are several.

    Attributes:
        name: of its records.
        title: for the tables.
        table: the table that it belongs to.
        data: names of the data sets that it is done on.
        seeds: one result for each.
        groups: the networks.
        headline: what the README calls it; empty if it is not there.
    """

    name: str
    title: str
    table: str
    data: tuple[str, ...]
    seeds: tuple[int, ...]
    groups: tuple[Group, ...]
    headline: str


@dataclass(frozen=True)
class Study:
    """The whole file.

    Attributes:
        data: the data sets, by name.
        splits: options of spectral-prep split, by the name of the split.
        train: options that all networks are trained with.
        experiments: in the order of the tables.
    """

    data: Mapping[str, Data]
    splits: Mapping[str, tuple[str, ...]]
    train: tuple[str, ...]
    experiments: tuple[Experiment, ...] = field(default=())

    def networks(self, group: Group) -> list[BandSet]:
        """Return what each network of a group reads."""
        options = self.splits[group.split]
        bands = range(int(options[options.index("--factor") + 1]))
        return parse_band_sets(group.bands, bands, group.inputs)

    def times_key(self, group: Group) -> str:
        """Return what times.json calls the first network of a group; all of them take as long."""
        return " ".join((group.split, self.networks(group)[0].name, *group.timed))

    def seeds(self, experiment: Experiment, data: Data) -> tuple[int, ...]:
        """Return the seeds that an experiment is done with on a data set."""
        wanted = data.name in experiment.data and (not data.only or experiment.name in data.only)
        return experiment.seeds[: data.seeds] if wanted else ()


def load_study(path: Path = HERE / "experiments.toml") -> Study:
    """Return the study of a file. Raises KeyError or ValueError where it contradicts itself."""
    raw = tomllib.loads(path.read_text())
    study = Study(
        data={
            name: Data(
                name=name,
                title=each["title"],
                source=each["source"],
                split=_words(each["split"]),
                train=_words(each["train"]),
                seeds=each.get("seeds", MOST_SEEDS),
                only=tuple(each.get("only", ())),
            )
            for name, each in raw["data"].items()
        },
        splits={name: _words(options) for name, options in raw["splits"].items()},
        train=_words(raw["train"]),
        experiments=tuple(_experiment(each, tuple(raw["data"])) for each in raw["experiment"]),
    )
    names = [experiment.name for experiment in study.experiments]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"{path} names {', '.join(sorted(twice))} twice")
    for data in study.data.values():
        if unknown := set(data.only) - set(names):
            raise ValueError(f"{path}: {data.name} names unknown experiments: {', '.join(unknown)}")
    for experiment in study.experiments:
        if unknown := {group.split for group in experiment.groups} - set(study.splits):
            raise ValueError(f"{path}: {experiment.name} names unknown splits: {', '.join(unknown)}")
        if unknown := set(experiment.data) - set(study.data):
            raise ValueError(f"{path}: {experiment.name} names unknown data: {', '.join(unknown)}")
    return study


def _experiment(raw: Mapping[str, Any], data: tuple[str, ...]) -> Experiment:
    groups = raw["groups"]
    return Experiment(
        name=raw["name"],
        title=raw["title"],
        table=raw.get("table", "cost"),
        data=tuple(raw.get("data", data)),
        seeds=tuple(raw.get("seeds", (0,))),
        groups=tuple(Group(each["split"], each["bands"], _words(each.get("train", ""))) for each in groups),
        headline=raw.get("headline", ""),
    )


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())
