"""Options of `dstack state …`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reconciler.cli.completion import names
from reconciler.cli.options import shared as o
from reconciler.cli.options.factory import new_app


def show(as_json: o.AsJson = False) -> int:
    """Show where the state is stored and what it holds."""
    from reconciler.cli.commands.state.show import show_state

    return show_state(as_json=as_json)


def rebuild(yes: o.Yes = False, allow_endpoint: o.AllowEndpoint = None) -> int:
    """Rebuild a lost state from backends and hosts."""
    from reconciler.cli.commands.state.show import rebuild_state

    return rebuild_state(yes=yes, allow_endpoint=tuple(allow_endpoint or ()))


def forget(
    subject: Annotated[str, typer.Argument(metavar="PLACE|INSTANCE", autocompletion=names.places_and_instances)],
    confirm: Annotated[str, typer.Option(metavar="NAME", help="Instead of typing the name.")] = "",
) -> int:
    """Stop tracking a backend region or an instance.

    What runs there keeps running and billing.
    """
    from reconciler.cli.commands.state.show import forget_subject

    return forget_subject(subject, confirmed=confirm)


def pull(file: Annotated[Path | None, typer.Argument(metavar="FILE", show_default=False)] = None) -> int:
    """Print the state, or write it to a new file."""
    from reconciler.cli.commands.state.file import pull_state

    return pull_state(file)


def push(file: Annotated[Path, typer.Argument(metavar="FILE")], yes: o.Yes = False) -> int:
    """Replace the state by a pulled one.

    Refused where somebody wrote since.
    """
    from reconciler.cli.commands.state.file import push_state

    return push_state(file, yes=yes)


def edit() -> int:
    """Edit the state in $EDITOR.

    A text that is not a valid state is not stored.
    """
    from reconciler.cli.commands.state.file import edit_state

    return edit_state()


def migrate(
    to: Annotated[str, typer.Option("--to", metavar="URL", help="s3://…, gs://…, az://… or a folder.")],
    yes: o.Yes = False,
) -> int:
    """Move the state, and all that belongs to it.

    The old state becomes read-only and points to the new one.
    """
    from reconciler.cli.commands.state.move import migrate_state

    return migrate_state(to, yes=yes)


def rollback(
    version: Annotated[str, typer.Argument(metavar="VERSION", show_default=False)] = "", yes: o.Yes = False
) -> int:
    """Restore an older version of the state.

    Without VERSION: list the versions that the bucket keeps.
    """
    from reconciler.cli.commands.state.move import list_versions, rollback_state

    return rollback_state(version, yes=yes) if version else list_versions()


def new_lineage(
    yes: o.Yes = False,
    confirm: Annotated[str, typer.Option(metavar="ID", help="Project id; where no other copy is found.")] = "",
) -> int:
    """Make a copied state independent of its original."""
    from reconciler.cli.commands.state.new_lineage import new_lineage as make_new

    return make_new(yes=yes, confirmed=confirm)


def register(app: typer.Typer) -> None:
    """Hang `state` and its commands into `app`."""
    states = new_app("Inspect, move, rebuild or repair the state.")
    states.command("show")(show)
    states.command("rebuild")(rebuild)
    states.command("forget")(forget)
    states.command("pull")(pull)
    states.command("push")(push)
    states.command("edit")(edit)
    states.command("migrate")(migrate)
    states.command("rollback")(rollback)
    states.command("new-lineage")(new_lineage)
    app.add_typer(states, name="state")
