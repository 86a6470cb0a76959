"""spectral-ensemble: fuse the runs of a split's bands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ..shards_manifest.runtime import cli_runner as console

if TYPE_CHECKING:
    from pathlib import Path

    from .ensemble.members import Run
    from .ensemble.scoring import EnsembleReport


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="spectral-shards", prog_name="spectral-ensemble")
@click.argument("runs", type=click.Path())
@click.option(
    "--rank-on",
    default="",
    help="What bands are ranked on: held (out of train), halves (of val, each scored by the other), train, or val.  "
    "[default: held, or halves where a run held nothing out]",
)
@click.option("--baseline", type=click.Path(), help="Run of a network that saw the whole images, to compare with.")
@click.option("--export", "target", type=click.Path(), help="Write the ensemble as one model: FILE.pt2 or FILE.onnx.")
@click.option("--rule", default="", help="What --export fuses by: mean, geometric or fitted.  [default: the default's]")
def cli(runs: str, rank_on: str, baseline: str | None, target: str | None, rule: str) -> None:
    """Fuse what is there in RUNS: ensemble.md, ensemble.json and ensemble.png are written into it."""
    from ..shards_manifest.manifest import canonical_json
    from ..shards_manifest.storage.local import LocalStore
    from .ensemble.members import find_runs
    from .ensemble.report import markdown, plot
    from .ensemble.scoring import ensemble
    from .runs.run_folder import local_folder

    folder = local_folder(runs)
    if rule and not target:
        raise click.UsageError("--rule belongs to --export")
    if target:
        from .ensemble.export import check_target

        check_target(local_folder(target))
    found = find_runs(folder)
    report = ensemble(found, rank_on, local_folder(baseline) if baseline else None)
    store = LocalStore(folder)
    text = markdown(report)
    store.write("ensemble.md", text.encode())
    store.write("ensemble.json", canonical_json(report.to_json()))
    store.write("ensemble.png", plot(report))
    click.echo(text)
    best, top1 = report.best
    click.echo(
        f"ensemble of {len(report.bands)} bands: top-1 {report.default.top1:.2%}; best single band ({best}): {top1:.2%}"
    )
    click.echo(f"table, JSON and plot: {runs}/ensemble.md, .json, .png")
    if target:
        _export(report, found, local_folder(target), rule)


def _export(report: EnsembleReport, runs: list[Run], target: Path, rule: str) -> None:
    from .ensemble.export import export, whole
    from .errors import EnsembleError

    chosen = report.default
    if rule:
        same = [each for each in report.rules if each.weights == rule and each.space == "log"]
        if not same:
            there = ", ".join(each.weights for each in report.rules if each.space == "log")
            raise EnsembleError(f"--rule {rule}: choose {there}")
        chosen = same[0]
    model, about = whole([run.path for run in runs], chosen.shares, chosen.space)
    size = export(model, about, target)
    click.echo(f"{target}: {len(about['bands'])} bands, {chosen.weights} weights, {console.human_bytes(size)}")


def main() -> None:
    """Entry point."""
    console.run(cli)
