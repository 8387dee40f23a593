"""Options of the commands that set a project and a shell up."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reconciler.cli.completion import names


def validate(
    paths: Annotated[list[Path] | None, typer.Argument(metavar="PATH", help="Default: this project.")] = None,
) -> int:
    """Check the configuration and report every problem."""
    from reconciler.cli.commands.documents import check

    return check(tuple(paths or ()))


def schema(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Without it: the names.", autocompletion=names.schemas)
    ] = "",
) -> int:
    """Print the JSON Schema of a document or an output.

    Without NAME: the names.
    """
    from reconciler.cli.commands.documents import print_schema

    return print_schema(name)


def completion(
    shell: Annotated[
        str,
        typer.Argument(metavar="SHELL", help="bash, zsh or fish.", autocompletion=names.one_of("bash", "zsh", "fish")),
    ],
) -> int:
    """Print the completion script of a shell."""
    from reconciler.cli.completion.shells import print_script

    return print_script(shell)


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR")] = Path(),
    name: Annotated[str, typer.Option("--name", "-n", metavar="NAME", help="Default: the folder's name.")] = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing: this machine alone.")] = False,
) -> int:
    """Write a first configuration into .dstack/.

    Asks for the project's name and for the AWS profiles and servers of this machine to use.
    """
    from reconciler.cli.commands.init import start_project

    return start_project(folder, name=name, yes=yes)
