"""Make typer apps that share one help style and one list of exit codes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import typer

from reconciler.cli.options.help_format import HelpCommand, HelpGroup

Function = TypeVar("Function", bound=Callable[..., Any])

EXIT_CODES = (
    "Exit codes: 0 done or nothing to do; 1 error (usage too); 2 changes (plan --detailed-exitcode); "
    "3 still under way at the deadline (--strict: or waiting); 130 Ctrl-C."
)


CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class App(typer.Typer):
    """A typer app whose commands show help as ours do."""

    def command(self, name: str | None = None, **more: Any) -> Callable[[Function], Function]:
        """As typer's own."""
        return super().command(name, **{"cls": HelpCommand, **more})


def new_app(help: str) -> typer.Typer:
    return App(
        cls=HelpGroup,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        no_args_is_help=True,
        help=help,
        epilog=EXIT_CODES,
        context_settings=CONTEXT,
    )
