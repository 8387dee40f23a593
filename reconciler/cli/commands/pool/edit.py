"""`dstack pool create | delete | set-default`: edit the YAML; try it on a copy first."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from reconciler.app.stores import store_of
from reconciler.cli.exits import Fail
from reconciler.cli.project import project_root, site
from reconciler.cli.terminal.streams import out, say
from reconciler.config.edit.pools import Edit, EditRefused, declared, set_default
from reconciler.config.edit.pools import create_pool as created
from reconciler.config.edit.pools import delete_pool as deleted
from reconciler.config.load import Invalid, load
from reconciler.state.status import alive
from schemas.base import NAME

Result = TypeVar("Result")
COMMIT = "commit this, or main undoes it; `dstack apply` makes it so"


def create_pool(name: str) -> int:
    """A pool without anything said about it: every value is the default."""
    root = project_root()
    if not re.fullmatch(NAME, name):
        raise Fail(f"--name {name}: not a name: a-z, then up to 40 of a-z, 0-9 and -")
    known = _refusing(lambda: declared(root / ".dstack"))
    _write(root, (_refusing(lambda: created(root / ".dstack", name)),))
    if not known and name != "default-pool":
        say("note: this is the first pool that is declared, so the implied default-pool is no more")
    return 0


def delete_pool(name: str) -> int:
    """Refused while it has live instances: the state knows them."""
    root = project_root()
    _refuse_living(name)
    _write(root, (_refusing(lambda: deleted(root / ".dstack", name)),))
    return 0


def set_default_pool(name: str) -> int:
    """Exactly one pool is the default afterwards."""
    root = project_root()
    edits = _refusing(lambda: set_default(root / ".dstack", name))
    if not edits:
        say(f"pool {name} is the default already")
        return 0
    _write(root, edits)
    return 0


def _refusing(edit: Callable[[], Result]) -> Result:
    try:
        return edit()
    except EditRefused as error:
        raise Fail(str(error)) from error


def _refuse_living(name: str) -> None:
    where = site()
    if not where.project:
        return
    state, _ = store_of(where).read()
    living = [one.name for one in state.instances if one.pool == name and alive(one)] if state else []
    if living:
        raise Fail(
            f"pool {name} has live instances: {', '.join(living[:5])}{' …' if len(living) > 5 else ''}; "
            f"`dstack pool remove NAME --pool {name}` ends them"
        )


def _write(root: Path, edits: tuple[Edit, ...]) -> None:
    write_edits(root, edits)
    say(COMMIT)


def write_edits(root: Path, edits: tuple[Edit, ...]) -> None:
    """Shown, tried on a copy, then written: nothing is where the documents would not be valid."""
    show_edits(root, edits)
    put_edits(edits)


def show_edits(root: Path, edits: tuple[Edit, ...], *, quiet: bool = False) -> None:
    """As diffs, unless `quiet`. `Fail` where the documents would not be valid with them."""
    for edit in () if quiet else edits:
        out(edit.diff(root))
    _refuse_invalid(root, edits)


def put_edits(edits: tuple[Edit, ...]) -> None:
    """Each whole, or not at all. `Fail` where somebody changed the file since it was read."""
    for edit in edits:
        before = edit.path.read_bytes().decode() if edit.path.exists() else ""
        if before not in (edit.before, edit.after):
            raise Fail(f"{edit.path}: it changed meanwhile, and was left as it is now: say it again")
    for edit in edits:
        _replace(edit.path, edit.after)


def _refuse_invalid(root: Path, edits: tuple[Edit, ...]) -> None:
    """Load a copy of the documents with the edits in it: nothing that would not load is ever written."""
    with tempfile.TemporaryDirectory(prefix="dstack-edit-") as scratch:
        copy = Path(scratch) / "project"
        ignored = shutil.ignore_patterns("state", "keys")
        shutil.copytree(root / ".dstack", copy / ".dstack", ignore=ignored)
        for edit in edits:
            (copy / edit.path.relative_to(root)).write_text(edit.after, newline="")
        try:
            load(copy, home=Path.home())
        except Invalid as error:
            found = "\n".join(str(problem) for problem in error.problems)
            raise Fail(f"nothing was written: the documents would not be valid:\n{found}") from error


def _replace(path: Path, text: str) -> None:
    """Whole or not at all, with the mode that the file had."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, newline="")
        if path.exists():
            shutil.copymode(path, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
