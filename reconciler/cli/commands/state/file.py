"""`dstack state pull | push | edit`: export, import and edit the state, checked each way."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from msgspec.structs import replace

from reconciler.app.stores import store_of
from reconciler.cli.exits import Fail
from reconciler.cli.project import NO_STATE, site, state_of
from reconciler.cli.terminal.streams import must_agree, say
from reconciler.state.errors import StateMoved, StateRefused
from reconciler.store.base import Store
from reconciler.store.statefile import dumps, loads
from schemas.state import State


def pull_state(file: Path | None) -> int:
    """To stdout, or into a new file that only its owner reads."""
    data = dumps(state_of(site()))
    if file is None:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        return 0
    try:
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as target:
            target.write(data)
    except FileExistsError as error:
        raise Fail(f"{file}: exists already; name another file") from error
    say(f"note: written to {file}; it may hold sealed values: keep it to yourself")
    return 0


def push_state(file: Path, *, yes: bool) -> int:
    """A pulled state back: of this lineage, and nobody wrote since it was pulled."""
    store = store_of(site())
    mine = loads(_read(file), str(file))
    stored, token = store.read()
    _refuse_older(mine, stored, file=file, store=store)
    generation = max(mine.generation, stored.generation if stored else 0) + 1
    what = f"generation {stored.generation}" if stored else "nothing"
    must_agree(f"Put {file} at {store.address} in the place of {what}?", yes=yes)
    try:
        store.write(replace(mine, generation=generation), token)
    except StateMoved as error:
        raise Fail(f"{store.address}: somebody wrote it meanwhile; pull again, and carry your change over") from error
    say(f"{store.address}: generation {generation}")
    return 0


def edit_state() -> int:
    """In $VISUAL or $EDITOR. What does not read as a state, or meets another's write, is kept in a file, not stored."""
    editor = _editor()
    store = store_of(site())
    state, token = store.read()
    if state is None:
        raise Fail(f"{store.address}: {NO_STATE}")
    before = dumps(state)
    with tempfile.NamedTemporaryFile(prefix=f"{state.project}-", suffix=".yml", delete=False) as draft:
        draft.write(before)
    path = Path(draft.name)
    try:
        code = subprocess.run([*editor, str(path)], check=False).returncode  # noqa: S603 - the user's own
    except OSError as error:
        path.unlink()
        why = (error.strerror or "not started").lower()
        raise Fail(f"{editor[0]}: {why}; set EDITOR to an editor that there is") from error
    except KeyboardInterrupt:
        raise Fail(f"interrupted; {_kept(path, before)}", code=130) from None
    if code:
        how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        raise Fail(f"{editor[0]} {how}; {_kept(path, before)}")
    try:
        after = path.read_bytes()
    except OSError as error:
        raise Fail(f"{path}: {(error.strerror or 'gone').lower()}; nothing was stored") from error
    if after == before:
        path.unlink()
        say("nothing was changed")
        return 0
    edited = _edited(after, state, path=path)
    try:
        store.write(replace(edited, generation=state.generation + 1), token)
    except (StateMoved, StateRefused) as error:
        raise Fail(f"{error}; nothing was stored; your text is kept as {path}") from error
    path.unlink()
    say(f"{store.address}: generation {state.generation + 1}")
    return 0


def _editor() -> list[str]:
    """The words of $VISUAL or $EDITOR, as a shell splits them."""
    for name in ("VISUAL", "EDITOR"):
        try:
            words = shlex.split(os.environ.get(name, ""))
        except ValueError as error:
            raise Fail(f"${name}: {str(error).lower()}: {os.environ[name]}") from error
        if words:
            return words
    return ["vi"]


def _kept(path: Path, before: bytes) -> str:
    """What became of the text: it is thrown away only where nobody changed it."""
    try:
        changed = path.read_bytes() != before
    except OSError:
        changed = False
    if not changed:
        path.unlink(missing_ok=True)
    return f"nothing was stored{f'; your text is kept as {path}' if changed else ''}"


def _edited(data: bytes, was: State, *, path: Path) -> State:
    kept = f"nothing was stored; your text is kept as {path}"
    try:
        edited = loads(data, str(path))
    except StateRefused as error:
        raise Fail(f"{error}; {kept}") from error
    for name in ("project", "lineage", "generation"):
        if getattr(edited, name) != getattr(was, name):
            raise Fail(f"{path}: `{name}` says whose state it is, and which: it is not edited; {kept}")
    return edited


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise Fail(f"{file}: cannot be read: {error.strerror}") from error


def _refuse_older(mine: State, stored: State | None, *, file: Path, store: Store) -> None:
    if stored is None:
        return
    if mine.lineage != stored.lineage:
        raise Fail(f"{file}: lineage {mine.lineage} is another world than {stored.lineage} at {store.address}")
    if mine.generation < stored.generation:
        raise Fail(
            f"{file}: generation {mine.generation}, and {store.address} is at {stored.generation}: somebody wrote "
            "since it was pulled. Pull again, and carry your change over"
        )
