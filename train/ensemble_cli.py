"""spectral-ensemble: fuse the runs of a split. commands.py does the work."""

from __future__ import annotations

import click

from ..shards_manifest.runtime import cli_runner
from .ensemble.rules import RANK_ON, RULES
from .errors import needs_train_extra
from .options import EnsembleOptions


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="spectral-shards", prog_name="spectral-ensemble")
@click.argument("runs", type=click.Path(), nargs=-1, required=True)
@click.option("--out", type=click.Path(), help="Folder for the report.  [default: the first of RUNS]")
@click.option(
    "--rank-on",
    type=click.Choice(tuple(RANK_ON)),
    help="What members are ranked, chosen and weighted on: "
    f"{'; '.join(f'{entry.name}: {entry.help}' for entry in RANK_ON.values())}.  "
    "[default: holdout, or halves where a run has no holdout samples]",
)
@click.option("--baseline", type=click.Path(), help="Run of a network that saw the whole images, to compare with.")
@click.option("--export", type=click.Path(), help="Write the chosen set as one model: FILE.pt2 or FILE.onnx.")
@click.option(
    "--rule",
    type=click.Choice(tuple(RULES)),
    help="With --export: the rule that it chooses and fuses by.  [default: the report's default]",
)
def cli(
    runs: tuple[str, ...],
    out: str | None,
    rank_on: str | None,
    baseline: str | None,
    export: str | None,
    rule: str | None,
) -> None:
    """Choose which finished runs to fuse, and fuse them.

    RUNS are run folders, and folders of run folders. ensemble.md, ensemble.json and ensemble.png are written into the
    first of them, or into --out.
    """
    with needs_train_extra():
        from .commands import fuse

        fuse(EnsembleOptions(runs, out, rank_on, baseline, export, rule))


def main() -> None:
    """Run the program."""
    cli_runner.run(cli)
