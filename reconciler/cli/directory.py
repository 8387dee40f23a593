"""`-C DIR`, before or after any command: work in that folder."""

from __future__ import annotations

import os
from collections.abc import Sequence

from reconciler.cli.exits import Fail

FLAG = "-C"
ADD_SSH = ["pool", "add-ssh"]
"""Takes the flags of `ssh`, whose `-C` compresses."""


def enter(arguments: Sequence[str], *, quiet: bool = False) -> list[str]:
    """Change into the folder that `arguments` name, and return the others. `Fail` where there is no such folder.

    Several are followed one after another, as `git` does. `quiet`: a folder that is not there is not entered.
    """
    folders, others = split(arguments)
    for folder in folders:
        try:
            os.chdir(os.path.expanduser(folder))
        except OSError as error:
            if not quiet:
                raise Fail(_why(folder, error)) from None
    return others


def split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The folders of `-C DIR` and `-CDIR`, and what is left. What stands behind `--` is not ours."""
    folders: list[str] = []
    others: list[str] = []
    words = iter(arguments)
    for word in words:
        if word == "--" or others == ADD_SSH:
            others += [word, *words]
        elif word == FLAG:
            folder = next(words, None)
            if folder is None:
                raise Fail("-C needs a folder: `dstack -C DIR plan`")
            folders.append(folder)
        elif word.startswith(FLAG) and not word.startswith("--"):
            folders.append(word.removeprefix(FLAG))
        else:
            others.append(word)
    return folders, others


def _why(folder: str, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return f"-C {folder}: no such folder; what a run is to be given itself stands behind `--`"
    return f"-C {folder}: {(error.strerror or str(error)).lower()}"
