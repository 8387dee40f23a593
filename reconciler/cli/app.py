"""Build the typer app: only the commands that a command line can reach.

Only the commands that a command line can reach are built: the others would cost every start.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import typer

from reconciler.cli.options.factory import new_app


def build(arguments: Sequence[str]) -> typer.Typer:
    """The whole command line where help or a suggestion may need it, else just what `arguments` name."""
    app = new_app("Pools of GPU instances and runs, declared in YAML; planned and applied without a server.")
    app.callback()(_root)
    first = next(iter(arguments), "")
    from reconciler.cli.options import autoscale, backend, pool, root, state

    single = root.COMMANDS.get(first)
    if single is not None:
        single(app)
        # A single command would be taken for the app itself: the callback above keeps it a command.
        return app
    for register in root.COMMANDS.values():
        register(app)
    pool.register(app)
    state.register(app)
    autoscale.register(app)
    backend.register(app)
    return app


def _install(wanted: bool) -> None:
    if wanted:
        from reconciler.cli.completion.shells import install

        install(os.environ.get("SHELL", ""))
        raise typer.Exit


def _root(
    version: bool = typer.Option(False, "--version", "-V", help="Print the version."),
    directory: str = typer.Option("", "-C", metavar="DIR", help="Work in this folder; also after any command."),
    install_completion: bool = typer.Option(
        False,
        "--install-completion",
        is_eager=True,
        callback=_install,
        help="Complete commands and names in your shell from now on.",
    ),
) -> None:
    del directory, install_completion  # the first was taken before anything else was read, the other acts by itself
    if version:
        from reconciler.cli.version import print_version

        print_version()
        raise typer.Exit
