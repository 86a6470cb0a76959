"""spectral: all commands of the three programs as one."""

from __future__ import annotations

import click
import cloup
from click.shell_completion import get_completion_class

from .preprocess.cli import cli as prepare
from .report.cli import cli as report
from .shards_manifest.runtime import cli_runner
from .shards_manifest.runtime.options import CONTEXT, Choice
from .train.cli import cli as train
from .train.ensemble_cli import cli as ensemble

PROGRAM = "spectral"
SHELLS = ("bash", "zsh", "fish")


@cloup.group(context_settings=CONTEXT, epilog=cli_runner.EXIT_CODES)
@click.version_option(package_name="spectral-shards", prog_name=PROGRAM)
def cli() -> None:
    """Train image classifiers as ensembles of small spectral sub-networks.

    \b
    spectral split --factor 4 photos/    cut images into bands: sub4
    spectral train --shards sub4         train networks on them: runs/sub4
    spectral ensemble runs/sub4          fuse the networks
    spectral report sub4 runs/sub4       look at all of it: report.html
    """


@cloup.command(short_help="Print a script for completion in bash, zsh or fish.")
@click.argument("shell", type=Choice(SHELLS))
def completion(shell: str) -> None:
    """Print a script that completes commands and options in a shell.

    \b
    bash   eval "$(spectral completion bash)"             in ~/.bashrc
    zsh    eval "$(spectral completion zsh)"              in ~/.zshrc
    fish   spectral completion fish | source              in ~/.config/fish/config.fish
    """
    found = get_completion_class(shell)
    assert found is not None  # SHELLS are those that click knows
    click.echo(found(cli, {}, PROGRAM, "_SPECTRAL_COMPLETE").source())


cli.section("Prepare data", *prepare.commands.values())
cli.section("Train and fuse", train, ensemble, report)
cli.section("Shell", completion)


def main() -> None:
    """Run spectral."""
    cli_runner.run(cli, restart="--no-resume")
