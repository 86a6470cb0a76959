"""Make the tables and the plot of docs/results.md, and the README's first table, from the records of the study.

    python benchmarks/study/render.py

No figure is typed: what stands between the two marks in each file is replaced. `--check` ends with exit code 1 where
that is not what the records give.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import click
from experiments import BASELINE, RECORDS, TIMES, Data, Experiment, Study, load_study

ROOT = Path(__file__).parents[2]
README, RESULTS = ROOT / "README.md", ROOT / "docs" / "results.md"
PLOT = RESULTS.with_name("study.png")
BEGIN, END = "<!-- study: made by benchmarks/study/render.py -->", "<!-- end of the study -->"
EQUAL_WEIGHTS = "mean of log"
COMPARED = {  # rows of the table of costs that stand in others too
    "recipe": (BASELINE, "channels", "image-half", "published"),
    "stored": (BASELINE, "channels"),
    "plane": (BASELINE, "channels"),
}
TITLES = {
    "cost": "At equal cost",
    "recipe": "How members are trained",
    "stored": "What is stored",
    "plane": "Smaller planes",
}
DEFAULT = "channels-x2-image-half-x2"  # what spectral-train does by itself


@dataclass(frozen=True)
class Row:
    """An experiment on a data set.

    Attributes:
        experiment: what was done.
        records: one for each seed that is done.
        ratios: time of a training sample of each network, as a multiple of the baseline's.
    """

    experiment: Experiment
    records: tuple[dict[str, Any], ...]
    ratios: tuple[float, ...]

    @property
    def networks(self) -> int:
        """How many networks it has."""
        return len(self.records[0]["networks"])

    def top1(self) -> list[float]:
        """Return the accuracy of each seed in %: of the chosen and weighted members, or of the only network."""
        return [100 * (each["fused"] or each["networks"][0])["top1"] for each in self.records]

    def equal_weights(self) -> list[float]:
        """Return the accuracy of each seed in % with equal weights; empty for one network."""
        return [100 * each["fused"]["rules"][EQUAL_WEIGHTS] for each in self.records if each["fused"]]

    def single(self) -> float:
        """Return the mean accuracy of its networks alone, in %."""
        return float(mean(100 * network["top1"] for each in self.records for network in each["networks"]))

    def total(self, name: str) -> float:
        """Return the sum of a cost over the networks, the mean over seeds."""
        return float(mean(sum(network[name] for network in each["networks"]) for each in self.records))

    def longest(self) -> float:
        """Return the time of the network that takes longest, in training samples of the baseline."""
        networks = zip(self.records[0]["networks"], self.ratios, strict=True)
        return max(float(network["samples"] * ratio) for network, ratio in networks)


def rows_of(study: Study, data: Data, table: str) -> list[Row]:
    """Return what has been done on a data set, in the order of the study.

    Raises:
        ClickException: the time of a network of it is not measured.
    """
    found = []
    times = json.loads(TIMES.read_text())["ratios"].get(data.name, {})
    for experiment in study.experiments:
        if experiment.table == table or experiment.name in COMPARED.get(table, ()):
            paths = [RECORDS / f"{data.name}-{experiment.name}-{seed}.json" for seed in study.seeds(experiment, data)]
            records = tuple(json.loads(path.read_text()) for path in paths if path.exists())
            if records:
                keys = [study.times_key(group) for group in experiment.groups for _ in study.networks(group)]
                if unknown := [key for key in keys if key not in times]:
                    raise click.ClickException(f"no time of {unknown[0]} on {data.name}: run benchmarks/study/times.py")
                found.append(Row(experiment, records, tuple(median(times[key]) for key in keys)))
    return found


def spread(values: Sequence[float]) -> str:
    """Return a mean with its standard deviation and count."""
    if not values:
        return ""
    return f"{mean(values):.2f}" + (f" ± {stdev(values):.2f}" if len(values) > 1 else "") + f" (n = {len(values)})"


def table(rows: Sequence[Row]) -> list[str]:
    """Return the lines of a table. Costs are multiples of the baseline's."""
    base = next((row for row in rows if row.experiment.name == BASELINE), None)
    lines = [
        "| | networks | top-1, % | equal weights | one alone | multiply-adds | longest network | bytes read |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        costs = ["", "", ""]
        if base is not None:
            costs = [
                f"{row.total('multiply_adds') / base.total('multiply_adds'):.2f}",
                f"{row.longest() / base.longest():.2f}",
                f"{row.total('bytes') / base.total('bytes'):.2f}",
            ]
        alone = f"{row.single():.2f}" if row.networks > 1 else ""
        cells = [
            row.experiment.title,
            str(row.networks),
            spread(row.top1()),
            spread(row.equal_weights()),
            alone,
            *costs,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def headline(study: Study) -> str:
    """Return the README's table."""
    shown = [data for data in study.data.values() if data.seeds > 1]
    titles = [data.title for data in shown]
    lines = ["", f"| trained | multiply-adds | time | {' | '.join(titles)} |", "|---|---|---|" + "---|" * len(titles)]
    for experiment in study.experiments:
        if experiment.headline:
            found = [_headline_cells(study, data, experiment) for data in shown]
            costs, times = (" to ".join(sorted({cells[at] for cells in found if cells[at]})) for at in (0, 1))
            if not costs:
                continue  # not done yet
            lines.append(f"| {experiment.headline} | {costs} | {times} | {' | '.join(cells[2] for cells in found)} |")
    return "\n".join([*lines, ""])


def _headline_cells(study: Study, data: Data, experiment: Experiment) -> tuple[str, str, str]:
    """Return the costs and the accuracy of an experiment on a data set; empty where there is none."""
    rows = {row.experiment.name: row for row in rows_of(study, data, "cost")}
    if experiment.name not in rows or BASELINE not in rows:
        return "", "", ""
    row, base = rows[experiment.name], rows[BASELINE]
    cost = row.total("multiply_adds") / base.total("multiply_adds")
    return f"{cost:.2f}", f"{row.longest() / base.longest():.2f}", spread(row.top1())


def tables(study: Study) -> str:
    """Return the tables of docs/results.md."""
    times = json.loads(TIMES.read_text())
    lines = ["", f"Times: {times['date']}; {times['machine']}; medians of {times['rounds']}"]
    for name, title in TITLES.items():
        for data in study.data.values():
            rows = rows_of(study, data, name)
            if any(row.experiment.table == name for row in rows):
                dates = sorted({record["date"] for row in rows for record in row.records})
                when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
                where = "; ".join(sorted({record["machine"] for row in rows for record in row.records}))
                lines += ["", f"### {title}: {data.title}", f"{when}; {where}", "", *table(rows)]
    return "\n".join([*lines, *sizes(study), ""])


def sizes(study: Study) -> list[str]:
    """Return the lines of the table of the default and the baseline against the size of the images."""
    lines = ["", "### Against the size of the images", "", "| images | planes | | baseline | default | difference |"]
    lines.append("|---|---|---|---|---|---|")
    for data in sorted(study.data.values(), key=lambda each: each.size):
        rows = {row.experiment.name: row for row in rows_of(study, data, "cost")}
        if BASELINE in rows and DEFAULT in rows:
            one, four = rows[BASELINE].top1(), rows[DEFAULT].top1()
            size = f"{data.size} | {data.size // 2} | {data.title}"
            lines.append(f"| {size} | {spread(one)} | {spread(four)} | {mean(four) - mean(one):+.2f} |")
    return lines


def plot(study: Study) -> bytes:
    """Return a PNG: accuracy against cost, a panel for each data set."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows_by_data = {data: rows_of(study, data, "cost") for data in study.data.values()}
    shown = [data for data, rows in rows_by_data.items() if any(row.experiment.name == BASELINE for row in rows)]
    if not shown:
        raise click.ClickException("no record of a baseline: run benchmarks/study/run.py")
    figure, axes = pyplot.subplots(1, len(shown), figsize=(6 * len(shown), 4.5), constrained_layout=True, squeeze=False)
    colors = {each.name: pyplot.get_cmap("tab20")(number % 20) for number, each in enumerate(study.experiments)}
    for axis, data in zip(axes[0], shown, strict=True):
        rows = rows_by_data[data]
        base = next(row for row in rows if row.experiment.name == BASELINE)
        for row in rows:
            cost = row.total("multiply_adds") / base.total("multiply_adds")
            values = row.top1()
            error = stdev(values) if len(values) > 1 else 0.0
            look = {"color": colors[row.experiment.name], "marker": "o", "capsize": 3}
            axis.errorbar([cost], [mean(values)], yerr=[error], label=row.experiment.title, **look)
        axis.set(xlabel="multiply-adds of training, baseline = 1", ylabel="top-1, %", title=data.title)
        axis.legend(fontsize=7, loc="lower right")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90, metadata={"Software": None})
    pyplot.close(figure)
    return buffer.getvalue()


@click.command()
@click.option("--check", is_flag=True, help="Change nothing: exit code 1 if the tables are not those of the records.")
def main(check: bool) -> None:
    """Replace the tables of the README and of docs/results.md."""
    study = load_study()
    same = [replaced(README, headline(study), check), replaced(RESULTS, tables(study), check)]
    if check:
        sys.exit(not all(same))
    if any(RECORDS.glob("*.json")):
        PLOT.write_bytes(plot(study))


def replaced(path: Path, text: str, check: bool) -> bool:
    """Put a text between the marks of a file, unless this is a check. Returns whether it stood there."""
    whole = path.read_text()
    before, begin, rest = whole.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise click.ClickException(f"{path} lacks the marks {BEGIN} and {END}: put them where the table has to stand")
    made = f"{before}{begin}\n{text}\n{end}{after}"
    if not check:
        path.write_text(made)
    return made == whole


if __name__ == "__main__":
    main()
