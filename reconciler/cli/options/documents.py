"""Options of the commands that set a project and a shell up."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reconciler.cli.completion import names


def validate(
    paths: Annotated[list[Path] | None, typer.Argument(metavar="PATH", help="Default: this project.")] = None,
) -> int:
    """Check folders, `.dstack` files and run configurations; every problem in one pass."""
    from reconciler.cli.commands.documents import check

    return check(tuple(paths or ()))


def schema(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Without it: the names.", autocompletion=names.schemas)
    ] = "",
) -> int:
    """Print the JSON Schema of the documents or of an output."""
    from reconciler.cli.commands.documents import print_schema

    return print_schema(name)


def completion(
    shell: Annotated[
        str,
        typer.Argument(metavar="SHELL", help="bash, zsh or fish.", autocompletion=names.one_of("bash", "zsh", "fish")),
    ],
) -> int:
    """Print what completes commands, options and names in a shell."""
    from reconciler.cli.completion.shells import print_script

    return print_script(shell)


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR")] = Path(),
    name: Annotated[str, typer.Option("--name", "-n", metavar="NAME", help="Default: the folder's name.")] = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing: this machine alone.")] = False,
) -> int:
    """Write a commented `.dstack/` to start from; asks what of this machine the project may use."""
    from reconciler.cli.commands.init import start_project

    return start_project(folder, name=name, yes=yes)
