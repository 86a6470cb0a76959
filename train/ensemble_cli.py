"""spectral-ensemble: fuse the runs of a split. ensemble_commands.py does the work."""

from __future__ import annotations

from typing import Any

import click
import cloup

from ..shards_manifest.runtime import cli_runner
from ..shards_manifest.runtime.options import CONTEXT, Choice, json_option, quiet_option
from .ensemble.rules import RANK_ON, RULES
from .errors import needs_train_extra
from .options import EnsembleOptions


@cloup.command("ensemble", context_settings=CONTEXT, epilog=cli_runner.EXIT_CODES)
@click.version_option(package_name="spectral-shards", prog_name="spectral-ensemble")
@click.argument("runs", type=click.Path(), nargs=-1, required=True)
@cloup.option("--out", type=click.Path(), help="Folder for the report.  [default: the first of RUNS]")
@cloup.option(
    "--rank-on",
    type=Choice(tuple(RANK_ON)),
    help="What members are ranked, chosen and weighted on: "
    f"{'; '.join(f'{entry.name}: {entry.help}' for entry in RANK_ON.values())}.  "
    "[default: holdout, or halves where a run has no holdout samples]",
)
@cloup.option("--baseline", type=click.Path(), help="Run of a network that saw the whole images, to compare with.")
@cloup.option("--export", type=click.Path(), help="Write the chosen set as one model: FILE.pt2 or FILE.onnx.")
@cloup.option(
    "--rule",
    type=Choice(tuple(RULES)),
    help="With --export: the rule that it chooses and fuses by.  [default: selected; geometric with --rank-on train]",
)
@cloup.option(
    "--export-members",
    "says_members",
    is_flag=True,
    help="With --export: the model also returns what each member says.",
)
@json_option("the report")
@quiet_option
def cli(**values: Any) -> None:
    """Choose which finished runs to fuse, and fuse them.

    RUNS are run folders, and folders of run folders. ensemble.md, ensemble.json and ensemble.png are written into the
    first of them, or into --out.
    """
    with needs_train_extra():
        from .ensemble_commands import fuse

        fuse(EnsembleOptions(**values))


def main() -> None:
    """Run the program."""
    cli_runner.run(cli)
