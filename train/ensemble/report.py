"""The ensemble's report as a Markdown table and as a plot."""

from __future__ import annotations

import io

from .scoring import ClassGain, EnsembleReport

SHOWN = 5  # classes that gain, and that lose, the most

NAMES = {"mean": "mean", "geometric": "geometric, p = 0.3", "fitted": "fitted log-linear"}
SPACE_NAMES = {"log": "log-probabilities", "probability": "probabilities"}
CHOSEN_ON = {
    "holdout": "ranks and fitted weights come from samples held out of train",
    "halves": "ranks and fitted weights come from the other half of val",
    "train": "ranks come from the training accuracy",
    "val": "ranks and fitted weights come from the data that is scored, which flatters",
}


def markdown(report: EnsembleReport) -> str:
    """Bands, rules, and the curve of the default rule, as Markdown."""
    lines = [
        f"# {report.dataset} in {report.factor} bands",
        f"{report.samples} val samples; {CHOSEN_ON[report.rank_on]}.",
    ]
    if report.missing:
        lines.append(f"Missing bands: {', '.join(map(str, report.missing))}.")
    if report.differing:
        lines.append(f"The runs of the bands differ in {', '.join(report.differing)}.")
    lines += ["", "| band | top-1 | top-5 |", "|---|---|---|"]
    lines += [f"| {band} | {top1:.2%} | {top5:.2%} |" for band, top1, top5, _ in report.bands]
    lines += ["", "| weights | of | top-1 | top-5 |", "|---|---|---|---|"]
    for rule in report.rules:
        mark = " (default)" if rule is report.default else ""
        lines.append(f"| {NAMES[rule.weights]}{mark} | {SPACE_NAMES[rule.space]} | {rule.top1:.2%} | {rule.top5:.2%} |")
    lines += ["", "| | top-1 | size, MiB | multiply-adds | training |", "|---|---|---|---|---|"]
    for cost in report.costs:
        size, adds = cost.parameter_bytes / 2**20, cost.multiply_adds / 1e9
        lines.append(f"| {cost.name} | {cost.top1:.2%} | {size:.2f} | {adds:.3f} G | {cost.seconds:.0f} s |")
    if len(report.classes) > 1:
        lines += ["", "| class | samples | best band | fused | gain |", "|---|---|---|---|---|"]
        lines += [_class_row(entry) for entry in _extremes(report)]
    lines += ["", "| bands fused, best first | top-1 | top-5 |", "|---|---|---|"]
    for count, (top1, top5) in enumerate(report.default.curve, 1):
        lines.append(f"| {count} | {top1:.2%} | {top5:.2%} |")
    return "\n".join(lines) + "\n"


def _extremes(report: EnsembleReport) -> list[ClassGain]:
    """The classes that fusing helps most, and those that it harms most, by their gain."""
    gains = sorted(report.classes, key=lambda entry: (entry.best - entry.fused, entry.name))
    return gains if len(gains) <= 2 * SHOWN else gains[:SHOWN] + gains[-SHOWN:]


def _class_row(entry: ClassGain) -> str:
    gain = 100 * (entry.fused - entry.best)
    name = entry.name.replace("|", "\\|")
    return f"| {name} | {entry.samples} | {entry.best:.1%} | {entry.fused:.1%} | {gain:+.1f} |"


def plot(report: EnsembleReport) -> bytes:
    """Accuracy of each band and of the ensemble as bands are added: a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.2), constrained_layout=True)
    left.bar(
        [str(band) for band, *_ in report.bands],
        [100 * top1 for _, top1, *_ in report.bands],
        color="#4878a8",
    )
    left.set(xlabel="band", ylabel="top-1 accuracy, %", title="Single bands")
    left.tick_params(axis="x", labelsize=7 if len(report.bands) > 16 else 10)
    counts = range(1, len(report.bands) + 1)
    for rule in report.rules:
        if rule.space == "log":
            right.plot(counts, [100 * top1 for top1, _ in rule.curve], marker=".", label=NAMES[rule.weights])
    right.axhline(100 * report.best[1], color="grey", linestyle=":", label="best single band")
    right.set(xlabel="bands fused, best first", ylabel="top-1 accuracy, %", title="Ensemble of log-probabilities")
    right.xaxis.get_major_locator().set_params(integer=True)
    right.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    pyplot.close(figure)
    return buffer.getvalue()
