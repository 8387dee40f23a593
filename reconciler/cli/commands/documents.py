"""`dstack validate` and `schema`."""

from __future__ import annotations

from pathlib import Path

from reconciler.cli.exits import Fail, Finished
from reconciler.cli.project import project_root
from reconciler.cli.terminal.streams import out, say
from reconciler.text.format import clean, counted


def check(paths: tuple[Path, ...]) -> int:
    """0 where all is valid, warnings or not. Problems are the command's data: they go to stdout."""
    from reconciler.config.validate import validate

    chosen = paths or (project_root(),)
    for path in chosen:
        if not path.exists():
            raise Fail(f"{path}: no such file or folder")
    problems, warnings = validate(chosen)
    for warning in warnings:
        say(f"warning: {warning}")
    for problem in problems:
        out(f"{clean(str(problem))}\n")
    if problems:
        say(f"error: {counted(len(problems), 'problem')}")
        raise Finished(1)
    out("valid\n")
    return 0


def print_schema(name: str) -> int:
    """The JSON Schema, as committed; without a name, the names."""
    from difflib import get_close_matches

    from schemas.documents.generate import NAMES, text

    if not name:
        out("".join(f"{each}\n" for each in NAMES))
        return 0
    if name not in NAMES:
        close = get_close_matches(name, NAMES, n=1)
        raise Fail(f"no schema {name}; " + (f"did you mean {close[0]}?" if close else f"there are {', '.join(NAMES)}"))
    out(text(name))
    return 0
