"""How the commands end: one sentence and exit code 2 for a problem, no traceback."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

import click

from ..errors import SpectralError

TERMINATED = 143
EXIT_CODES = (
    "Exit codes: 0 done; 1 what was checked is damaged; 2 a problem, and one sentence that says what to do; "
    "130 Ctrl-C; 143 SIGTERM."
)
EMPTY_OPTION = re.compile(r"--[a-z0-9-]+=")
INTERRUPTED = "Interrupted: run the same command again to go on"
EXAMPLES = {  # arguments of each command, for messages about what is missing
    "split": "--factor 4 photos/",
    "info": "sub4",
    "verify": "sub4",
    "preview": "sub4",
    "train": "--shards sub4",
    "ensemble": "runs/sub4",
    "report": "sub4 runs/sub4",
    "completion": "bash",
}


def run(command: Callable[..., Any], restart: str = "") -> None:
    """Run a click command as a program.

    Args:
        command: Of click.
        restart: The option with which the same command would begin again rather than go on.

    Raises:
        SystemExit: Always, with 0, 2 for a problem that the user can act on, 130 for Ctrl-C, 143 for a SIGTERM that
            the command turned into SystemExit, else with what the command returns.
    """
    interrupted = f"{INTERRUPTED}, without {restart}" if restart in sys.argv[1:] else INTERRUPTED
    try:
        _check_words(sys.argv[1:])
        code = command(standalone_mode=False)
    except SystemExit as ended:
        if ended.code == TERMINATED:
            click.echo(interrupted, err=True)
        raise
    except click.ClickException as error:
        if isinstance(error, click.MissingParameter) and error.ctx and error.ctx.command.name in EXAMPLES:
            example = f"For example: {error.ctx.command_path} {EXAMPLES[error.ctx.command.name]}"
            error = click.MissingParameter(example, error.ctx, error.param, error.param_hint, error.param_type)
        error.show()
        raise SystemExit(2) from None
    except (click.Abort, KeyboardInterrupt):
        click.echo(interrupted, err=True)
        raise SystemExit(130) from None
    except SpectralError as error:
        click.echo(f"Error: {error}", err=True)
        raise SystemExit(2) from None
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        click.echo(f"Error: {error.strerror or error}{where}", err=True)
        raise SystemExit(2) from None
    raise SystemExit(code if isinstance(code, int) else 0)


def _check_words(words: Sequence[str]) -> None:
    """Raise UsageError for an empty word: it comes of a variable that is not set, and would count as no option."""
    for before, word in zip(("", *words), words, strict=False):
        option = before if before.startswith("--") else ""
        if EMPTY_OPTION.fullmatch(word):
            option, word = word[:-1], ""
        if not word:
            where = f" after {option}" if option else ""
            raise click.UsageError(f"there is an empty word{where}: write a value, or leave it out")


def speaker(quiet: bool) -> Callable[[str], None]:
    """Return what prints information that a quiet command leaves out."""
    return (lambda text: None) if quiet else click.echo


def counted(count: int, noun: str) -> str:
    """Return a count with its noun: 1 reject, 2 rejects."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def human_bytes(count: float) -> str:
    """Return a byte count for people, in decimal units: 76.2 kB."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(count) < 1000 or unit == "TB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError


def human_seconds(count: float) -> str:
    """Return a time for people: 43 s, 12 min 5 s, 20 h 3 min, 3 d 4 h."""
    for size, unit, smaller, part in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if round(count / smaller) * smaller >= size:
            whole, rest = divmod(round(count / smaller), size // smaller)
            return f"{whole} {unit} {rest} {part}" if rest else f"{whole} {unit}"
    return f"{count:.0f} s"
