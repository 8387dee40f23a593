"""`dstack state …`: the options, and nothing of the work."""

from __future__ import annotations

from typing import Annotated

import typer

from reconciler.cli import options as o
from reconciler.cli.app import new_app


def show(as_json: o.AsJson = False) -> int:
    """Say where the state lies and what it holds."""
    from reconciler.cli.state import show_state

    return show_state(as_json=as_json)


def rebuild(yes: o.Yes = False) -> int:
    """Make a new state from what the places and hosts report, after the old one was lost."""
    from reconciler.cli.state import rebuild_state

    return rebuild_state(yes=yes)


def forget(
    subject: Annotated[str, typer.Argument(metavar="PLACE|INSTANCE")],
    confirm: Annotated[str, typer.Option(metavar="NAME", help="Instead of typing the name.")] = "",
) -> int:
    """Stop counting a place or an instance that will never return."""
    from reconciler.cli.state import forget_subject

    return forget_subject(subject, confirmed=confirm)


def register(app: typer.Typer) -> None:
    """Hang `state` and its commands into `app`."""
    states = new_app("Look at, rebuild or correct the project's memory.")
    states.command("show")(show)
    states.command("rebuild")(rebuild)
    states.command("forget")(forget)
    app.add_typer(states, name="state")
