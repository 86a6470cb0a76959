"""spectral report: the options of the command."""

from __future__ import annotations

from pathlib import Path

import click
import cloup

from ..shards_manifest.errors import SpectralError
from ..shards_manifest.runtime import cli_runner
from ..shards_manifest.runtime.options import CONTEXT, quiet_option
from ..shards_manifest.runtime.progress import ProgressLine
from ..train.errors import needs_train_extra


@cloup.command(
    "report",
    short_help="Show a split, its runs and their ensemble on one page.",
    context_settings=CONTEXT,
    epilog=cli_runner.EXIT_CODES,
)
@click.argument("paths", nargs=-1, required=True, type=click.Path())
@cloup.option("--out", type=click.Path(path_type=Path), default="report.html", show_default=True, help="File to write.")
@cloup.option(
    "--baseline", type=click.Path(path_type=Path), help="Run of a network that saw the whole images, to compare with."
)
@quiet_option
def cli(paths: tuple[str, ...], out: Path, baseline: Path | None, quiet: bool) -> None:
    """Write one HTML file about a split, its runs and their ensemble.

    PATHS are splits, run folders, and folders of run folders; with a split and its runs, the page shows images that the
    ensemble gets wrong. While runs are trained it shows them as far as they are. The file works offline.
    """
    with needs_train_extra():
        from .gather import make_page
        from .page import render

        with ProgressLine("report", quiet=quiet) as progress:
            page = make_page(paths, baseline, progress.stage)
            progress.stage("writing the page")
            text = render(page)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, "utf-8")
    except OSError as error:
        raise SpectralError(f"cannot write {out} ({error.strerror}): choose another --out") from None
    cli_runner.speaker(quiet)(f"{out}: {cli_runner.human_bytes(len(text.encode()))}, open it in a browser")
