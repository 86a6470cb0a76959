"""The section about an ensemble: what was chosen, what it gains, and what it takes for what."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..shards_manifest.dataset import Split
from ..train.ensemble.members import FinishedRun
from ..train.ensemble.report import (
    CLASSES,
    COSTS,
    CURVE,
    MEMBERS,
    RULE_SCORES,
    ReportColumn,
    fallback,
    repeated,
    rule_title,
)
from ..train.ensemble.rules import RANK_ON
from ..train.ensemble.scoring import EnsembleReport, MemberScore, RuleScore, said_classes, score_ensemble
from .content import Chart, Gallery, Item, Section, Table, bars
from .pictures import small, val_images

Row = TypeVar("Row")

PAIRS = 6  # of classes that are taken for one another
EXAMPLES = 4  # images of a pair
MOST_CLASSES = 40


def ensemble_section(
    runs: list[FinishedRun],
    split: Split | None,
    baseline: Path | None,
    where: str,
    stage: Callable[[str], object] = lambda text: None,
) -> Section:
    """Return the section about an ensemble.

    Args:
        runs: its members.
        split: whose val part has the images; None to show none.
        baseline: run of a network that saw the whole images.
        where: the folders of the runs, for the command.
        stage: called with what is done from then on, in words.

    Raises:
        EnsembleError: the runs cannot be fused.
    """
    report = score_ensemble(runs, baseline=baseline, stage=stage)
    fused, best = report.default.top1, report.costs.best.top1
    lead = [
        f"{len(report.chosen)} of {len(report.members)} members are fused: top-1 {fused:.2%}, "
        f"{100 * (fused - best):+.2f} points to the best member alone ({best:.2%}).",
        f"{report.samples:,} images of val; {RANK_ON[report.rank_on].sentence.format(report.rank_samples)}.",
    ]
    if report.costs.baseline:
        lead.append(f"One network on whole images: {report.costs.baseline.top1:.2%}.")
    if report.repeated:
        lead.append(repeated(report))
    if report.fell_back:
        lead.append(fallback(report))
    items: list[Item] = [
        _table(COSTS, report.costs.shown, "What it gives, and costs"),
        _members(report),
        _rules(report),
        _curve(report),
        _by_cost(report, runs),
    ]
    items += _gains(report)
    items += _confusions(report, runs, split)
    command = f"spectral ensemble {where}" + (f" --baseline {shlex.quote(str(baseline))}" if baseline else "")
    facts = [(f"{fused:.2%}", f"ensemble of {len(report.chosen)} of {len(report.members)} members, top-1 on val")]
    facts.append((f"{best:.2%}", "its best member alone"))
    if report.costs.baseline:
        facts.append((f"{report.costs.baseline.top1:.2%}", "one network on whole images"))
    return Section("The ensemble", tuple(lead), tuple(items), commands=(command,), facts=tuple(facts))


def _table(columns: Sequence[ReportColumn[Row]], rows: Iterable[Row], title: str = "") -> Table:
    """Return a table by the columns of the ensemble's report."""
    cells = tuple(tuple(column.format.format(column.value(row)) for column in columns) for row in rows)
    return Table(tuple(column.title for column in columns), cells, title)


def _members(report: EnsembleReport) -> Chart:
    shares = {member.name: member.share for member in report.chosen}
    names = [member.name for member in report.members]
    heights = [member.top1 for member in report.members]
    traces = tuple(
        {
            "type": "bar",
            "name": title,
            "x": [name for name in names if (name in shares) is chosen],
            "y": [height for name, height in zip(names, heights, strict=True) if (name in shares) is chosen],
        }
        for title, chosen in (("chosen", True), ("not chosen", False))
    )
    share = ReportColumn[MemberScore](
        "share of the weights", "{}", lambda member: f"{shares[member.name]:.1%}" if member.name in shares else ""
    )
    table = _table((*MEMBERS, share), report.members)
    layout = {"xaxis": {"type": "category"}, "yaxis": {"tickformat": ".1%"}}
    return Chart("Members", tuple(t for t in traces if t["x"]), ("member", "top-1"), table, layout)


def _rules(report: EnsembleReport) -> Table:
    weights = ReportColumn[RuleScore]("weights", "{}", partial(rule_title, report))
    return _table((weights, *RULE_SCORES), report.rules, "Ways to fuse")


def _curve(report: EnsembleReport) -> Chart:
    numbers = list(range(1, len(report.curve) + 1))
    values = [point.top1 for point in report.curve]
    fused = {"type": "scatter", "mode": "lines+markers", "name": "fused", "x": numbers, "y": values}
    traces: list[dict[str, Any]] = [fused]
    for cost in report.costs.shown[:-1]:
        ends = [1, max(len(numbers), 2)]
        line = {"type": "scatter", "mode": "lines", "name": cost.name, "x": ends, "y": [cost.top1] * 2}
        traces.append({**line, "line": {"dash": "dot"}})
    table = _table(CURVE, enumerate(report.curve, 1))
    layout = {"yaxis": {"tickformat": ".1%"}, "xaxis": {"dtick": 1 if len(numbers) < 15 else None}}
    return Chart("Accuracy by the number of members", tuple(traces), ("members fused", "top-1"), table, layout)


def _by_cost(report: EnsembleReport, runs: Sequence[FinishedRun]) -> Chart:
    """Return accuracy against the multiply-adds of an image: members, the chosen set as it grows, and the others."""
    cost = {run.name: run.result.multiply_adds / 1e9 for run in runs}
    groups: dict[str, list[tuple[str, float, float]]] = {
        "one member": [(member.name, cost[member.name], member.top1) for member in report.members]
    }
    grown = np.cumsum([cost[member.name] for member in report.chosen])
    names = [f"{n} fused" for n in range(1, len(grown) + 1)]
    curve = [point.top1 for point in report.curve[: len(grown)]]
    groups["fused"] = list(zip(names, map(float, grown), curve, strict=False))
    if report.costs.baseline:
        whole = report.costs.baseline
        groups["one network on whole images"] = [(whole.name, whole.multiply_adds / 1e9, whole.top1)]
    traces = tuple(
        {
            "type": "scatter",
            "mode": "lines+markers" if name == "fused" else "markers",
            "name": name,
            "x": [x for _, x, _ in points],
            "y": [y for _, _, y in points],
            "text": [text for text, _, _ in points],
        }
        for name, points in groups.items()
    )
    rows = tuple((text, f"{x:.3f}", f"{y:.2%}") for points in groups.values() for text, x, y in points)
    table = Table(("", "multiply-adds of an image, G", "top-1"), rows)
    axes = ("multiply-adds of an image, G", "top-1")
    return Chart("Accuracy by cost", traces, axes, table, {"yaxis": {"tickformat": ".1%"}})


def _gains(report: EnsembleReport) -> list[Item]:
    """Return the classes, those that fusing helps most first; of many, both ends."""
    ordered = sorted(report.classes, key=lambda entry: (entry.best - entry.fused, entry.name))
    if len(ordered) < 2:
        return []
    half = MOST_CLASSES // 2
    some = ordered if len(ordered) <= MOST_CLASSES else [*ordered[:half], *ordered[-half:]]
    title = "What fusing gains in each class"
    if len(ordered) > MOST_CLASSES:
        title += f": the {half} that gain most and the {half} that lose most of {len(ordered):,}"
    chart = bars(
        title, ("class", "points of top-1"), [e.name for e in some], {"gain": [100 * (e.fused - e.best) for e in some]}
    )
    return [replace(chart, table=_table(CLASSES, some))]


def _confusions(report: EnsembleReport, runs: list[FinishedRun], split: Split | None) -> list[Item]:
    """Return the pairs of classes that are confused most, with images of each."""
    labels, classes, said = runs[0].val.labels, runs[0].classes, said_classes(runs, report)
    wrong = np.flatnonzero(said != labels)
    if not len(wrong):
        return []
    keys = labels[wrong] * len(classes) + said[wrong]
    pairs, counts = np.unique(keys, return_counts=True)
    top = np.argsort(-counts, kind="stable")[:PAIRS]
    totals = np.bincount(labels, minlength=len(classes))
    found = [(int(pairs[i]) // len(classes), int(pairs[i]) % len(classes), int(counts[i])) for i in top]
    rows = tuple(
        (classes[true], classes[taken], f"{count:,}", f"{count / totals[true]:.1%}") for true, taken, count in found
    )
    items: list[Item] = [Table(("class", "taken for", "images", "of the class"), rows, "Most confused")]
    if split is not None:
        items += _galleries(
            split, [(true, taken, wrong[keys == true * len(classes) + taken]) for true, taken, _ in found], classes
        )
    return items


def _galleries(
    split: Split, found: Sequence[tuple[int, int, NDArray[np.int64]]], classes: Sequence[str]
) -> list[Gallery]:
    chosen = [[int(row) for row in rows[:EXAMPLES]] for _, _, rows in found]
    images = val_images(split, [row for rows in chosen for row in rows])
    return [
        Gallery(
            f"{classes[true]}, taken for {classes[taken]}",
            tuple(small(images[row], f"image {row} of val") for row in rows),
        )
        for (true, taken, _), rows in zip(found, chosen, strict=True)
    ]
