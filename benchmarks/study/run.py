"""Train what the study lacks, and record what came out.

    python benchmarks/study/run.py ../shared/data --work build/study

Splits and runs are kept in the folder `--work`, and the same command goes on where it stopped. Each finished
experiment leaves one small file in records/, which render.py makes the tables from. On a GPU the same command trains
there.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch
from experiments import RECORDS, Data, Experiment, Group, Study, load_study

from spectral_shards.shards_manifest.dataset import open_bands
from spectral_shards.shards_manifest.manifest import canonical_json
from spectral_shards.train.ensemble.members import find_runs
from spectral_shards.train.ensemble.scoring import score_ensemble
from spectral_shards.train.runs.run_record import RunRecord, read_run

LOCKS: defaultdict[Path, threading.Lock] = defaultdict(threading.Lock)  # commands of one folder follow one another
SEED_DISTANCE = 1000  # networks of one group have seeds that follow one another


@dataclass(frozen=True)
class Task:
    """A group of networks to train with one seed.

    Attributes:
        split: folder of its split.
        out: folder of its runs.
        command: trains them.
    """

    split: Path
    out: Path
    command: tuple[str, ...]


def program(name: str) -> str:
    """Return the path of an installed program."""
    return str(Path(sys.executable).with_name(name))


def task(study: Study, data: Data, group: Group, seed: int, work: Path) -> Task:
    """Return the task of a group."""
    split = work / data.name / group.split
    slug = "_".join(option.lstrip("-") for option in group.train) or "plain"
    out = work / data.name / "runs" / group.split / slug / f"seed{seed}"
    options = (*study.train, *data.train, "--seed", str(SEED_DISTANCE * seed), *group.train)  # the last one counts
    command = (program("spectral-train"), "--shards", str(split), "--bands", group.bands, "--out", str(out), *options)
    return Task(split, out, command)


def prepare(study: Study, data: Data, split: str, source: Path, work: Path) -> None:
    """Make a split, unless it is there."""
    out = work / data.name / split
    if not (out / "manifest.json").exists():
        command = [program("spectral-prep"), "split", str(source / data.source), "--out", str(out)]
        subprocess.run([*command, *data.split, *study.splits[split]], check=True)


def train(each: Task, threads: int) -> None:
    """Train the networks of a task that are not finished."""
    each.out.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    with LOCKS[each.out], (each.out / "log.txt").open("a") as log:
        done = subprocess.run(each.command, stdout=log, stderr=log, env=environment, check=False)
    if done.returncode:
        raise click.ClickException(f"{' '.join(each.command)} failed: see {log.name}")


def last_epoch(run: Path) -> dict[str, Any]:
    """Return the last line of a run's metrics."""
    return dict(json.loads((run / "metrics.jsonl").read_text().splitlines()[-1]))


def network_record(split: Path, run: Path, record: RunRecord) -> dict[str, Any]:
    """Return what is recorded of a network: what it reached, and what its training cost."""
    options, result, bands = record.identity.options, record.result, record.identity.data.bands
    samples = last_epoch(run)["samples"]
    parts = [band.parts["train"] for band in open_bands(split, bands).each]
    return {
        "name": run.name,
        "bands": list(bands),
        "network": vars(options.network),
        "seed": options.seed,
        "epochs": options.recipe.epochs,
        "top1": result.top1,
        "top5": result.top5,
        "train_top1": result.train_top1,
        "samples": samples,
        "multiply_adds": result.multiply_adds * samples,
        "bytes": options.recipe.epochs * sum(shard.bytes for part in parts for shard in part.shards),
        "parameters": result.parameter_bytes // 4,
        "precision": options.precision,
    }


def record(study: Study, experiment: Experiment, data: Data, seed: int, work: Path) -> dict[str, Any]:
    """Return the record of a trained experiment."""
    networks, runs = [], []
    for group in experiment.groups:
        each = task(study, data, group, seed, work)
        for run in (each.out / bands.name for bands in study.networks(group)):
            runs.append(run)
            networks.append(network_record(each.split, run, read_run(run)))
    fused: dict[str, Any] = {}
    if len(runs) > 1:
        report = score_ensemble(find_runs(*runs))
        fused = {
            "rules": {f"{score.rule} of {score.space}": score.top1 for score in report.rules},
            "default": report.default.rule,
            "top1": report.default.top1,
            "top5": report.default.top5,
            "chosen": [[member.name, member.share] for member in report.chosen],
            "rank_on": report.rank_on,
            "rank_samples": report.rank_samples,
        }
    return {
        "experiment": experiment.name,
        "data": data.name,
        "seed": seed,
        "networks": networks,
        "fused": fused,
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "torch": torch.__version__.split("+")[0],
    }


def machine() -> str:
    """Return the GPU, or the model of the CPU and its cores, that this runs on."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    cpu = Path("/proc/cpuinfo")
    models = re.findall(r"model name\s*: (.+)", cpu.read_text()) if cpu.exists() else []
    return f"{len(os.sched_getaffinity(0))} cores of {models[0] if models else platform.processor()}"


def missing(study: Study, only: Sequence[str], on: Sequence[str]) -> list[tuple[Experiment, Data, int]]:
    """Return what has no record yet, in order.

    What has several seeds comes first, the first seed of all of it on all data before the second one, so that an early
    end leaves whole tables; the other tables come last.
    """
    found = [
        ((experiment.table != "cost", len(study.seeds(experiment, data)) == 1, number), experiment, data, seed)
        for data in study.data.values()
        for experiment in study.experiments
        for number, seed in enumerate(study.seeds(experiment, data))
        if (not only or experiment.name in only) and (not on or data.name in on)
    ]
    found.sort(key=lambda each: each[0])
    return [
        (experiment, data, seed)
        for _, experiment, data, seed in found
        if not record_path(experiment.name, data.name, seed).exists()
    ]


def remake(study: Study, work: Path) -> None:
    """Make the records that there are again, from their runs."""
    for data in study.data.values():
        for experiment in study.experiments:
            for seed in study.seeds(experiment, data):
                path = record_path(experiment.name, data.name, seed)
                if path.exists():
                    kept = {name: json.loads(path.read_text())[name] for name in ("date", "machine", "torch")}
                    path.write_bytes(canonical_json({**record(study, experiment, data, seed, work), **kept}))


def record_path(experiment: str, data: str, seed: int) -> Path:
    """Return the file of a record."""
    return RECORDS / f"{data}-{experiment}-{seed}.json"


@click.command()
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.option("--work", type=click.Path(path_type=Path), default=Path("build/study"), show_default=True)
@click.option("--only", multiple=True, help="Do only this experiment; may be repeated.")
@click.option("--data", "on", multiple=True, help="Do only what is on this data; may be repeated.")
@click.option("--jobs", default=2, show_default=True, help="Commands at once.")
@click.option("--threads", default=1, show_default=True, help="Threads of a command.")
@click.option("--dry-run", is_flag=True, help="Print what is missing.")
@click.option("--again", is_flag=True, help="Make the records that there are again from their runs; train nothing.")
def main(
    source: Path,
    work: Path,
    only: tuple[str, ...],
    on: tuple[str, ...],
    jobs: int,
    threads: int,
    dry_run: bool,
    again: bool,
) -> None:
    """Train what the study lacks on the data sets in SOURCE."""
    study = load_study()
    if again:
        remake(study, work)
        return
    todo = missing(study, only, on)
    for experiment, data, seed in todo:
        if dry_run:
            click.echo(f"{data.name} {experiment.name} seed {seed}")
    if dry_run:
        return
    RECORDS.mkdir(exist_ok=True)
    for name, split in dict.fromkeys((data.name, group.split) for each, data, _ in todo for group in each.groups):
        prepare(study, study.data[name], split, source, work)
    with ThreadPoolExecutor(jobs) as pool:
        started: dict[tuple[str, ...], Any] = {}
        waiting = []
        for experiment, data, seed in todo:
            tasks = [task(study, data, group, seed, work) for group in experiment.groups]
            for each in tasks:
                if each.command not in started:
                    started[each.command] = pool.submit(train, each, threads)
            waiting.append((experiment, data, seed, [started[each.command] for each in tasks]))
        for experiment, data, seed, futures in waiting:
            try:
                for future in futures:
                    future.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
            path = record_path(experiment.name, data.name, seed)
            path.write_bytes(canonical_json(record(study, experiment, data, seed, work)))
            click.echo(f"{path.name}: {summary(json.loads(path.read_text()))}")


def summary(found: dict[str, Any]) -> str:
    """Return a record in one line."""
    alone = ", ".join(f"{network['name']} {network['top1']:.2%}" for network in found["networks"])
    return f"{alone}; fused {found['fused']['top1']:.2%}" if found["fused"] else alone


if __name__ == "__main__":
    main()
