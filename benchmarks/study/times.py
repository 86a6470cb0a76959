"""Time the networks of the study beside the baseline.

    python benchmarks/study/times.py ../shared/data --work build/study/times

What a training sample takes is measured by short trainings of every kind of network, one after another, several times
over, and compared with the baseline of the same round: other work on the machine disturbs all of them alike. The
records of the study itself are of many days. Writes times.json, which render.py reads.
"""

from __future__ import annotations

import json
import shutil
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import click
import torch
from experiments import BASELINE, TIMES, Data, Group, Study, load_study
from run import last_epoch, machine, prepare, task, train

from spectral_shards.shards_manifest.manifest import canonical_json

SAMPLES = ("--limit", "2000")
EPOCHS = 2  # the last one is timed


def kinds(study: Study, data: Data) -> dict[str, Group]:
    """Return a group for every kind of network that the study trains on a data set, the baseline first."""
    found: dict[str, Group] = {}
    for experiment in sorted(study.experiments, key=lambda each: each.name != BASELINE):
        if study.seeds(experiment, data):
            for group in experiment.groups:
                found.setdefault(study.times_key(group), replace(group, train=group.timed))
    return found


def seconds(study: Study, data: Data, group: Group, work: Path) -> float:
    """Return the seconds that a training sample takes in one short training."""
    each = task(study, data, group, 0, work)
    shutil.rmtree(each.out, ignore_errors=True)
    first = study.networks(group)[0]
    bands = "+".join(map(str, first.bands))
    more = ("--bands", bands, "--holdout-samples", "0", "--epochs", str(EPOCHS))  # the last one counts
    train(replace(each, command=(*each.command, *more)), threads=1)
    epoch = last_epoch(each.out / first.name)
    return float(epoch["train_seconds"] / (epoch["samples"] / EPOCHS))


@click.command()
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.option("--work", type=click.Path(path_type=Path), default=Path("build/study/times"), show_default=True)
@click.option("--rounds", default=3, show_default=True, help="Trainings of each network.")
@click.option("--missing", is_flag=True, help="Time only what has no time yet, and the baseline beside it.")
def main(source: Path, work: Path, rounds: int, missing: bool) -> None:
    """Time the networks of the study on the data sets in SOURCE, with one thread."""
    study = load_study()
    about: dict[str, Any] = {"machine": machine(), "torch": torch.__version__.split("+")[0], "rounds": rounds}
    earlier: dict[str, Any] = json.loads(TIMES.read_text()) if missing else {**about, "ratios": {}}
    if other := [name for name in about if earlier[name] != about[name]]:
        raise click.ClickException(f"the times that there are have another {other[0]}: time all, without --missing")
    known: dict[str, dict[str, list[float]]] = earlier["ratios"]
    found: dict[str, dict[str, list[float]]] = {}
    for data in study.data.values():
        small = replace(data, split=(*data.split, *SAMPLES))
        every, there = kinds(study, small), known.get(data.name, {})
        found[data.name] = {key: there[key] for key in every if key in there}
        groups = {key: group for place, (key, group) in enumerate(every.items()) if not place or key not in there}
        if all(key in there for key in groups):
            continue
        for split in {group.split for group in groups.values()}:
            prepare(study, small, split, source, work)
        ratios: defaultdict[str, list[float]] = defaultdict(list)
        for _ in range(rounds):
            taken = {key: seconds(study, small, group, work) for key, group in groups.items()}
            base = next(iter(taken.values()))
            for key, each in taken.items():
                ratios[key].append(round(each / base, 4))
        found[data.name] = {**ratios, **found[data.name]}
        for key, values in ratios.items():
            click.echo(f"{data.name} {key}: {median(values):.3f} ({min(values):.3f} to {max(values):.3f})")
    dates = {time.strftime("%Y-%m-%d"), *earlier.get("date", "").split(" to ")} - {""}
    TIMES.write_bytes(canonical_json({**about, "date": " to ".join(sorted({min(dates), max(dates)})), "ratios": found}))


if __name__ == "__main__":
    main()
