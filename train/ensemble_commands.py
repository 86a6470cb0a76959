"""What spectral-ensemble does. ensemble_cli.py loads this when the command runs."""

from __future__ import annotations

from pathlib import Path

import click

from ..shards_manifest.manifest import canonical_json
from ..shards_manifest.runtime.cli_runner import human_bytes, speaker
from ..shards_manifest.runtime.progress import ProgressLine
from ..shards_manifest.storage.local import LocalStore
from .ensemble.export import check_target, export, load_ensemble
from .ensemble.members import FinishedRun, find_runs, unfinished_runs
from .ensemble.report import markdown, overview, plot
from .ensemble.rules import RULES, SPACES
from .ensemble.scoring import EnsembleReport, exported_score, score_ensemble
from .errors import EnsembleError
from .options import EnsembleOptions
from .runs.run_folder import local_folder


def fuse(options: EnsembleOptions) -> None:
    """Fuse the finished runs of a split, write the report, and export the chosen set if that is wanted.

    Raises:
        UsageError: if options do not go together.
        SpectralError: if anything else is wrong with the options or the runs.
    """
    folders = [local_folder(path) for path in options.runs]
    for name, given in (("--rule", options.rule), ("--export-members", options.says_members)):
        if given and not options.export:
            raise click.UsageError(f"{name} belongs to --export")
    target = local_folder(options.export) if options.export else None
    if target:
        check_target(target)
    runs = find_runs(*folders)
    baseline = local_folder(options.baseline) if options.baseline else None
    with ProgressLine("fuse", quiet=options.quiet) as progress:
        report = score_ensemble(runs, options.rank_on, baseline, progress.stage)
    store = LocalStore(local_folder(options.out) if options.out else folders[0])
    values = canonical_json(report.to_json())
    store.write("ensemble.md", markdown(report).encode())
    store.write("ensemble.json", values)
    store.write("ensemble.png", plot(report))
    say, result = speaker(options.quiet or options.as_json), speaker(options.as_json)
    say(overview(report))
    if left_out := unfinished_runs(*folders):
        say(f"left out, as not finished: {', '.join(left_out)}\n")
    result(
        f"ensemble of {len(report.chosen)} of {len(report.members)} members: top-1 {report.default.top1:.2%}; "
        f"{report.costs.best.name}: {report.costs.best.top1:.2%}; all members: {report.costs.every.top1:.2%} "
        f"of {report.samples} val samples"
    )
    say(f"all tables, JSON and plot: {store}/ensemble.md, .json, .png")
    if target:
        with ProgressLine("export", quiet=options.quiet) as progress:
            progress.stage(f"{len(report.chosen)} members as {target}")
            exported = _export(report, runs, target, options)
        result(exported)
    if options.as_json:
        click.echo(values.decode(), nl=False)


def _export(report: EnsembleReport, runs: list[FinishedRun], target: Path, options: EnsembleOptions) -> str:
    rule = options.rule
    score = exported_score(report.rules, RULES[rule]) if rule else report.default
    if score is None:
        there = ", ".join(dict.fromkeys(each.rule for each in report.rules))
        raise EnsembleError(f"--rule {rule}: choose {there}")
    model, info = load_ensemble(runs, score.weights, SPACES[score.space], options.says_members)
    size = export(model, info, target)
    names = ", ".join(member.name for member in info.members)
    return f"{target}: {len(info.members)} members ({names}), {score.rule} weights, {human_bytes(size)}"
