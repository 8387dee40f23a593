"""Make typer apps that share one help style and one list of exit codes."""

from __future__ import annotations

import typer

EXIT_CODES = (
    "Exit codes: 0 done or nothing to do; 1 error (usage too); 2 changes (plan --detailed-exitcode); "
    "3 still under way at the deadline (--strict: or waiting); 130 Ctrl-C."
)


CONTEXT = {"help_option_names": ["-h", "--help"]}


def new_app(help: str) -> typer.Typer:
    return typer.Typer(
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        no_args_is_help=True,
        help=help,
        epilog=EXIT_CODES,
        context_settings=CONTEXT,
    )
