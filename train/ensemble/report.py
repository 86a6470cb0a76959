"""The report of an ensemble as Markdown tables and as a plot."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from ...shards_manifest.runtime.cli_runner import human_seconds
from .rules import RANK_ON, RULES, SPACES
from .scoring import Accuracy, ChosenMember, ClassGain, EnsembleReport, MemberScore, ModelCost, RuleScore

SHOWN = 5  # classes that gain the most, and that lose the most

Row = TypeVar("Row")


@dataclass(frozen=True)
class ReportColumn(Generic[Row]):
    """A column of a table.

    Attributes:
        title: its heading.
        format: of its cells, as of str.format with one value.
        value: returns the value of a row.
    """

    title: str
    format: str
    value: Callable[[Row], object]


MEMBERS: tuple[ReportColumn[MemberScore], ...] = (
    ReportColumn("member", "{}", lambda member: member.name),
    ReportColumn("top-1", "{:.2%}", lambda member: member.top1),
    ReportColumn("top-5", "{:.2%}", lambda member: member.top5),
)
CHOSEN: tuple[ReportColumn[ChosenMember], ...] = (
    ReportColumn("chosen set", "{}", lambda member: member.name),
    ReportColumn("bands", "{}", lambda member: ", ".join(map(str, member.bands))),
    ReportColumn("share of the weights", "{:.1%}", lambda member: member.share),
)
RULE_SCORES: tuple[ReportColumn[RuleScore], ...] = (
    ReportColumn("members", "{}", lambda score: len(score.weights) - score.weights.count(0)),
    ReportColumn("of", "{}", lambda score: SPACES[score.space].title),
    ReportColumn("top-1", "{:.2%}", lambda score: score.top1),
    ReportColumn("top-5", "{:.2%}", lambda score: score.top5),
)
COSTS: tuple[ReportColumn[ModelCost], ...] = (
    ReportColumn("", "{}", lambda cost: cost.name),
    ReportColumn("top-1", "{:.2%}", lambda cost: cost.top1),
    ReportColumn("size, MiB", "{:.2f}", lambda cost: cost.parameter_bytes / 2**20),
    ReportColumn("multiply-adds", "{:.3f} G", lambda cost: cost.multiply_adds / 1e9),
    ReportColumn("training", "{}", lambda cost: human_seconds(cost.seconds)),
)
CLASSES: tuple[ReportColumn[ClassGain], ...] = (
    ReportColumn("class", "{}", lambda entry: entry.name),
    ReportColumn("samples", "{}", lambda entry: entry.samples),
    ReportColumn("best member", "{:.1%}", lambda entry: entry.best),
    ReportColumn("fused", "{:.1%}", lambda entry: entry.fused),
    ReportColumn("gain", "{:+.1f}", lambda entry: 100 * (entry.fused - entry.best)),
)
CURVE: tuple[ReportColumn[tuple[int, Accuracy]], ...] = (
    ReportColumn("members fused, largest share first", "{}", lambda point: point[0]),
    ReportColumn("top-1", "{:.2%}", lambda point: point[1].top1),
    ReportColumn("top-5", "{:.2%}", lambda point: point[1].top5),
)


def markdown(report: EnsembleReport) -> str:
    """Return the members, the rules, the chosen set, the costs, the classes, and the curve, as Markdown."""
    lines = [f"# {report.dataset} in {report.factor} bands", *_sentences(report)]
    lines += _table(MEMBERS, report.members)
    lines += _table((ReportColumn("weights", "{}", partial(rule_title, report)), *RULE_SCORES), report.rules)
    lines += _table(CHOSEN, report.chosen)
    lines += _table(COSTS, report.costs.shown)
    if len(report.classes) > 1:
        lines += _table(CLASSES, _extremes(report))
    lines += _table(CURVE, enumerate(report.curve, 1))
    return "\n".join(lines) + "\n"


def overview(report: EnsembleReport) -> str:
    """Return what a terminal shows: the members with their shares, and what the models give and cost."""
    shares = {member.name: member.share for member in report.chosen}
    share = ReportColumn[MemberScore](
        "share of the weights", "{}", lambda member: f"{shares[member.name]:.1%}" if member.name in shares else "-"
    )
    lines = [f"{report.dataset} in {report.factor} bands", *_sentences(report)]
    lines += ["", *_aligned((*MEMBERS, share), report.members), "", *_aligned(COSTS, report.costs.shown)]
    return "\n".join(lines) + "\n"


def _sentences(report: EnsembleReport) -> list[str]:
    lines = [f"{report.samples} val samples; {RANK_ON[report.rank_on].sentence.format(report.rank_samples)}."]
    if report.missing:
        lines.append(f"Missing bands: {', '.join(map(str, report.missing))}.")
    if report.differing:
        lines.append(f"The members differ in {', '.join(report.differing)}.")
    if report.repeated:
        lines.append(repeated(report))
    if report.fell_back:
        lines.append(fallback(report))
    return lines


def rule_title(report: EnsembleReport, score: RuleScore) -> str:
    """Return what the report calls a rule."""
    return RULES[score.rule].title + (" (default)" if score is report.default else "")


def repeated(report: EnsembleReport) -> str:
    """Return the sentence for a report with members that are the same network."""
    each = ", ".join(f"{name} is {other} again" for name, other in report.repeated.items())
    return f"The same network, of the same data, options and seed: {each}. It adds nothing."


def fallback(report: EnsembleReport) -> str:
    """Return the sentence for a report that fell back to the best member."""
    return (
        f"{report.rank_samples} samples do not show that fusing helps: by cross-validation on them a chosen set is no "
        f"better than {report.order[0]}, which is taken alone."
    )


def _table(columns: Sequence[ReportColumn[Row]], rows: Iterable[Row]) -> list[str]:
    """Return an empty line and the lines of a table."""
    return [
        "",
        _line(column.title for column in columns),
        "|".join(["", *("---" for _ in columns), ""]),
        *(_line(column.format.format(column.value(row)) for column in columns) for row in rows),
    ]


def _aligned(columns: Sequence[ReportColumn[Row]], rows: Iterable[Row]) -> list[str]:
    """Return the lines of a table for a terminal: the first column to the left, the others to the right."""
    cells = [[column.title for column in columns]]
    cells += [[column.format.format(column.value(row)) for column in columns] for row in rows]
    first, *others = (max(map(len, column)) for column in zip(*cells, strict=True))
    return [
        "  ".join([name.ljust(first), *(cell.rjust(width) for cell, width in zip(rest, others, strict=True))]).rstrip()
        for name, *rest in cells
    ]


def _line(cells: Iterable[str]) -> str:
    texts = (cell.replace("|", "\\|") for cell in cells)
    return "|".join(["", *(f" {text} " if text else " " for text in texts), ""])


def _extremes(report: EnsembleReport) -> list[ClassGain]:
    """Return the classes that fusing helps most, and those that it harms most, by their gain."""
    gains = sorted(report.classes, key=lambda entry: (entry.best - entry.fused, entry.name))
    return gains if len(gains) <= 2 * SHOWN else gains[:SHOWN] + gains[-SHOWN:]


def plot(report: EnsembleReport) -> bytes:
    """Return a PNG of the accuracy of each member, and of the chosen set as members are added."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.2), constrained_layout=True)
    chosen = {member.name for member in report.chosen}
    names = [member.name for member in report.members]
    left.bar(
        names,
        [100 * member.top1 for member in report.members],
        color=["#4878a8" if name in chosen else "#c8c8c8" for name in names],
    )
    left.set(xlabel="member (grey: not chosen)", ylabel="top-1 accuracy, %", title="Single members")
    crowded = sum(map(len, names)) > 40
    left.tick_params(axis="x", labelsize=7 if crowded else 10, labelrotation=90 if crowded else 0)
    curve = [100 * accuracy.top1 for accuracy in report.curve]
    right.plot(range(1, len(curve) + 1), curve, marker=".", label=RULES[report.default.rule].title)
    costs = report.costs
    lines = [(costs.best, ":"), (costs.every, "--"), *([(costs.baseline, "-.")] if costs.baseline else [])]
    for cost, style in lines:
        right.axhline(100 * cost.top1, color="grey", linestyle=style, label=cost.name)
    title = f"Ensemble of {SPACES[report.default.space].title}"
    right.set(xlabel="members fused, largest share first", ylabel="top-1 accuracy, %", title=title)
    right.xaxis.get_major_locator().set_params(integer=True)
    right.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    pyplot.close(figure)
    return buffer.getvalue()
