"""What the options of all programs have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click
import cloup

from ..errors import did_you_mean

WIDTH = 100  # columns of a help text, at most
CONTEXT = {
    "help_option_names": ["-h", "--help"],
    "formatter_settings": cloup.HelpFormatter.settings(max_width=WIDTH),
}

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


class Choice(click.Choice):  # type: ignore[type-arg]  # older releases of click have no type arguments
    """One of some words. The message for another word names the nearest of them."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the word. Raises BadParameter."""
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter as error:
            hint = did_you_mean(str(value), self.choices)
            message = error.message.rstrip(".") + hint if hint else error.message
            raise click.BadParameter(message, error.ctx, error.param) from None

    def get_missing_message(self, *_: Any, **__: Any) -> str:
        """Return the choices on one line."""
        return f"Choose {', '.join(map(str, self.choices))}."


def quiet_option(command: Decorated) -> Decorated:
    """Add --quiet to a command."""
    return cloup.option("-q", "--quiet", is_flag=True, help="Print problems and the result only.")(command)


def json_option(what: str) -> Callable[[Decorated], Decorated]:
    """Return an option that prints something as JSON, for scripts.

    Args:
        what: is printed.
    """
    return cloup.option("--json", "as_json", is_flag=True, help=f"Print {what} as one JSON object, for scripts.")
