"""Find the project that a command works on, by folder, id and state."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from reconciler.app.site import Site
from reconciler.app.site import site_of as site_of
from reconciler.app.stores import store_of
from reconciler.cli.exits import Fail
from reconciler.cli.keep_here import forget_aliases as forget_aliases
from reconciler.cli.keep_here import keep_here
from reconciler.system.concurrent import Asking, unheard

if TYPE_CHECKING:
    from reconciler.app.documents import Documents
    from reconciler.engine.ports import Ports
    from reconciler.hosts.ssh.declared_hosts import SshReach
    from schemas.state import State

NO_PROJECT = "no .dstack folder here or in a parent; `dstack init` makes one"
NO_STATE = "nothing was applied yet; `dstack plan` shows what would be done, `dstack apply` does it"
LOST = "if it was lost, `dstack state rebuild` finds what lives"


def project_root(start: Path | None = None) -> Path:
    """The nearest folder that holds `.dstack`; the home folder's own holds profiles only."""
    here = (start or Path.cwd()).resolve()
    home = Path.home().resolve()
    for folder in (here, *here.parents):
        if (folder / ".dstack").is_dir() and folder != home:
            return folder
    from reconciler.config.git_revision import why_absent

    if why := why_absent(here):
        raise Fail(f"{here}: {why}")
    raise Fail(f"{here}: {NO_PROJECT}")


def site(start: Path | None = None) -> Site:
    """The project's id and store, read without judging the rest: a typo in a pool must not hide what runs."""
    from reconciler.config.identity import identity

    root = project_root(start)
    found, unreadable = identity(root)
    name = str(found.get("project", {}).get("id") or "")
    if unreadable and not name:
        raise Fail(f"{unreadable}; see `dstack validate`")
    return Site(
        root=root,
        project=name,
        state=str(found.get("state") or ""),
        authority=str(found.get("authority") or ""),
        artifacts=str(found.get("artifact_store") or ""),
        state_backend=str(found.get("state_backend") or ""),
        artifact_backend=str(found.get("artifact_backend") or ""),
    )


def state_of(where: Site) -> State:
    """What is remembered; `Fail` where nothing is."""
    if not where.project:
        raise Fail(f"{where.root / '.dstack'}: {NO_STATE}")
    store = store_of(where)
    state, _ = store.read()
    tell(store.notes)
    if state is None:
        raise Fail(f"{store.address}: {NO_STATE}; {LOST}")
    forget_aliases(state)
    keep_here(where, state)
    return state


def state_if_any(where: Site) -> State | None:
    """What is remembered; `None` where nothing is."""
    if not where.project:
        return None
    store = store_of(where)
    state, _ = store.read()
    tell(store.notes)
    if state is not None:
        keep_here(where, state)
    return state


def state_or_empty(where: Site) -> State:
    """What is remembered, for lists; where nothing is, that is said and the list is empty."""
    from reconciler.cli.terminal.streams import say
    from schemas.state import VERSION, State

    try:
        return state_of(where)
    except Fail as error:
        say(f"note: {error}")
        return State(version=VERSION, project=where.project, lineage="")


def tell(notes: list[str]) -> None:
    """What a person should hear once."""
    from reconciler.cli.terminal.streams import say

    for note in notes:
        say(f"note: {note}")
    notes.clear()


def ports_of(where: Site, *, reach: SshReach | None = None, asking: Asking = unheard) -> Ports:
    """`asking` hears whom a tick waits for (`reconciler.cli.terminal.progress`)."""
    from reconciler.app.wiring import wire
    from reconciler.cli.terminal.transfer_bar import Transfer

    told = Transfer().told
    unattended = not sys.stdin.isatty()
    return wire(where, environ=os.environ, unattended=unattended, told=told, reach=reach, asking=asking)


def documents_of(root: Path, *, known: State | None = None) -> Documents:
    """The documents, judged: raises `Invalid` with every problem. Their warnings are every plan's.

    With the state at hand, documents that are the applied ones are not compiled again. An endpoint on another machine
    is used only where it is the applied one, by the state that these documents name.
    """
    from reconciler.app import documents

    return documents.documents_of(root, home=Path.home(), known=known)
