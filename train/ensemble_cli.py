"""spectral-ensemble: fuse the runs of a split's bands."""

from __future__ import annotations

import click

from shards_manifest import console


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
def cli(runs: str, rank_on: str, baseline: str | None) -> None:
    """Fuse what is there in RUNS: ensemble.md, ensemble.json and ensemble.png are written into it."""
    from shards_manifest import LocalStore, canonical_json

    from .ensemble import ensemble
    from .report import markdown, plot
    from .runs import local_folder

    folder = local_folder(runs)
    report = ensemble(folder, rank_on, local_folder(baseline) if baseline else None)
    store = LocalStore(folder)
    text = markdown(report)
    store.write("ensemble.md", text.encode())
    store.write("ensemble.json", canonical_json(report.to_json()))
    store.write("ensemble.png", plot(report))
    click.echo(text)
    best = max(report.bands, key=lambda band: band[1])
    click.echo(
        f"ensemble of {len(report.bands)} bands: top-1 {report.default.top1:.2%}; "
        f"best single band ({best[0]}): {best[1]:.2%}"
    )
    click.echo(f"table, JSON and plot: {runs}/ensemble.md, .json, .png")


def main() -> None:
    """Entry point."""
    console.run(cli)
