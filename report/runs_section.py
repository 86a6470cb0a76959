"""The section about runs, finished or not: how they learned, and how fast."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..shards_manifest.runtime.cli_runner import human_seconds
from ..train.band_sets import BandSet
from ..train.config import ReadOptions
from ..train.runs.metrics_log import METRICS, STEPS
from ..train.runs.run_record import RUN, RunData, RunIdentity, RunRecord, read_run
from .content import Chart, Item, Section, Table, lines

POINTS = 400  # of a line, at most


@dataclass(frozen=True)
class RunLog:
    """What a run has written so far.

    Attributes:
        path: its folder.
        name: by which it is called.
        epochs: lines of metrics.jsonl.
        steps: lines of steps.jsonl.
        record: how it ended; None while it is trained.
    """

    path: Path
    name: str
    epochs: tuple[dict[str, Any], ...]
    steps: tuple[dict[str, Any], ...]
    record: RunRecord | None


def find_logs(folder: Path) -> list[RunLog]:
    """Return the runs in a folder, or the folder's own run: those that have written something, by name."""
    paths = [folder] if (folder / METRICS).exists() or (folder / STEPS).exists() else sorted(folder.iterdir())
    return [
        RunLog(path, path.name, _read(path / METRICS), _read(path / STEPS), _record(path))
        for path in paths
        if path.is_dir() and ((path / METRICS).exists() or (path / STEPS).exists())
    ]


def _record(path: Path) -> RunRecord | None:
    return read_run(path) if (path / RUN).exists() else None


def _read(path: Path) -> tuple[dict[str, Any], ...]:
    """Return the lines of a log. One that is being written may end within a line."""
    if not path.exists():
        return ()
    found = []
    for line in path.read_text().splitlines():
        try:
            found.append(json.loads(line, parse_constant=lambda _: None))  # a loss that is not finite is not drawn
        except json.JSONDecodeError:
            break
    return tuple(found)


def runs_section(logs: Sequence[RunLog], find_split: Callable[[RunData], str]) -> Section:
    """Return the section about some runs.

    Args:
        logs: what they have written.
        find_split: returns where the split of a run's data is; nothing if it is not at hand.
    """
    done = sum(log.record is not None for log in logs)
    lead = [f"{len(logs)} {'run' if len(logs) == 1 else 'runs'}, {done} finished."]
    if done < len(logs):
        lead.append("The others are shown as far as they are.")
    charts = [
        _chart(logs, "Loss of the steps", "loss, nats", "loss", steps=True),
        _chart(logs, "Accuracy on val", "top-1", "val_top1", percent=True),
        _chart(logs, "Accuracy on the samples of an epoch", "top-1", "train_top1", percent=True),
        _chart(logs, "Loss on val", "loss, nats", "val_loss"),
        _chart(logs, "Learning rate", "learning rate", "lr", steps=True),
        _throughput(logs),
        _chart(logs, "Waiting for data", "share of the time", "data_wait", percent=True),
    ]
    items: tuple[Item, ...] = (_table(logs), *(chart for chart in charts if chart.traces))
    return Section("The runs", tuple(lead), items, tuple(log.name for log in logs), _commands(logs, find_split))


def _chart(
    logs: Sequence[RunLog], title: str, axis: str, field: str, steps: bool = False, percent: bool = False
) -> Chart:
    """Return a line for every run that has a field."""
    series = {}
    for log in logs:
        found = [line for line in (log.steps if steps else log.epochs) if line.get(field) is not None]
        found = found[:: -(-len(found) // POINTS) or 1]
        if found:
            series[log.name] = ([line["samples"] for line in found], [line[field] for line in found])
    return lines(title, ("samples", axis), series, {"yaxis": {"tickformat": ".1%"}} if percent else None)


def _throughput(logs: Sequence[RunLog]) -> Chart:
    series = {}
    for log in logs:
        x, y, before = [], [], 0
        for line in log.epochs:
            if line.get("train_seconds"):
                x.append(line["samples"])
                y.append((line["samples"] - before) / line["train_seconds"])
            before = line["samples"]
        if x:
            series[log.name] = (x, y)
    return lines("Speed", ("samples", "samples a second"), series)


def _table(logs: Sequence[RunLog]) -> Table:
    rows = []
    for log in logs:
        last = log.epochs[-1] if log.epochs else {}
        top1 = log.record.result.top1 if log.record else last.get("val_top1")
        wait = [line["data_wait"] for line in log.epochs if line.get("data_wait") is not None]
        rows.append(
            (
                log.name,
                str(log.record.identity.options.network) if log.record else "",
                str(last.get("epoch", 0)),
                "" if top1 is None else f"{top1:.2%}",
                human_seconds(log.record.result.seconds) if log.record else "",
                f"{sum(wait) / len(wait):.2%}" if wait else "",
                "finished" if log.record else "under way",
            )
        )
    return Table(("run", "network", "epochs", "top-1 on val", "time", "waiting", ""), tuple(rows))


def _commands(logs: Sequence[RunLog], find_split: Callable[[RunData], str]) -> tuple[str, ...]:
    """Return the commands that train the finished runs: one for those that differ in their repeats alone."""
    found: dict[tuple[object, ...], tuple[Path, RunIdentity, int]] = {}
    for log in logs:
        if log.record is None:
            continue
        data, options = log.record.identity.data, log.record.identity.options
        repeat = _repeat(log.name, BandSet(data.bands, 0, options.network.inputs).name)
        repeat = repeat if repeat <= options.seed else 0  # the folder has got another name
        options = replace(options, seed=options.seed - repeat)  # of the first of its repeats
        key = (log.path.parent, data.sha256, data.bands, options)
        path, _, networks = found.get(key, (log.path, None, 1))
        found[key] = (path, RunIdentity(data, options), max(networks, repeat + 1))
    return tuple(
        _command(path, identity, networks, find_split(identity.data)) for path, identity, networks in found.values()
    )


def _repeat(name: str, first: str) -> int:
    """Return how many networks stand before the one of a folder: 1 for 00x2, 0 for 00."""
    again = re.fullmatch(re.escape(first) + r"x([1-9]\d{0,3})", name)
    return int(again[1]) - 1 if again else 0


def _command(run: Path, identity: RunIdentity, networks: int, split: str) -> str:
    """Return the command that trains a run, and the repeats of it."""
    options = identity.options
    bands = "+".join(map(str, identity.data.bands)) + (f"x{networks}" if networks > 1 else "")
    words = [
        f"spectral train --shards {shlex.quote(split or 'SPLIT')} --bands {bands} --network {options.network.name}"
    ]
    words += [options.network.size_options] if options.network.size_options else []
    words += [f"--recipe {shlex.quote(str(run / 'recipe.toml'))} --seed {options.seed}"]
    words += [f"--holdout-samples {options.holdout_samples} --precision {options.precision}"]
    words += [f"--last-batch {options.last_batch}"] if options.last_batch != ReadOptions.last_batch else []
    return " ".join([*words, f"--out {shlex.quote(str(run.parent))}"])
