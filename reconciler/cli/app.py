"""The commands and their options. Each body lies in its own module, imported when it runs.

Only the commands that a command line can reach are built: the others would cost every start.
"""

from __future__ import annotations

from collections.abc import Sequence

import typer

from reconciler.cli.options.factory import new_app


def build(arguments: Sequence[str]) -> typer.Typer:
    """The whole command line where help or a suggestion may need it, else just what `arguments` name."""
    app = new_app("Pools of GPU instances and runs, declared in YAML; planned and applied without a server.")
    app.callback()(_root)
    first = next(iter(arguments), "")
    from reconciler.cli.options import autoscale as app_autoscale
    from reconciler.cli.options import backend as app_backend
    from reconciler.cli.options import pool as app_pool
    from reconciler.cli.options import root as app_main
    from reconciler.cli.options import state as app_state

    single = app_main.COMMANDS.get(first)
    if single is not None:
        single(app)
        # A single command would be taken for the app itself: the callback above keeps it a command.
        return app
    for register in app_main.COMMANDS.values():
        register(app)
    app_pool.register(app)
    app_state.register(app)
    app_autoscale.register(app)
    app_backend.register(app)
    return app


def _root(
    version: bool = typer.Option(False, "--version", "-V", help="Print the version."),
) -> None:
    if version:
        from reconciler.cli.version import print_version

        print_version()
        raise typer.Exit
