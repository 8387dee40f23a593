"""Refresh a state in memory, for lists that people look at: bounded in time, and nothing is written."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from reconciler.app.site import Site
from reconciler.cli.project import ports_of, state_or_empty
from reconciler.cli.terminal.state_age import say_observed
from reconciler.state.errors import StateRefused
from reconciler.state.status import alive
from reconciler.system.process import now, spawn
from schemas.run import RUN_ENDED
from schemas.state import State

WITHIN = 2.0
"""Seconds."""
AGAIN = 5.0
"""Seconds between two looks of `--watch`."""


def looked(where: Site, state: State, *, within: float = WITHIN) -> State | None:
    """`state` as backends and hosts report it now; `None` where one of them does not answer within so many seconds.

    A state in which nothing can change any more comes back as it is.
    """
    if not any(map(alive, state.instances)) and all(run.status in RUN_ENDED for run in state.runs):
        return state
    found: list[State] = []
    answered = threading.Event()

    def look() -> None:
        try:
            with suppress(StateRefused):  # the stored one is shown, with its age; the next apply says why
                found.append(_observed(where, state))
        finally:
            answered.set()

    spawn(look)
    answered.wait(within)
    return found[0] if found and not _silent(found[0]) else None


def shown_state(where: Site, *, cached: bool) -> State:
    """For a list: refreshed at a terminal, unless `cached`; else as stored. Where it is not of now, its age is said."""
    state = state_or_empty(where)
    if sys.stdout.isatty() and not cached and (fresh := looked(where, state)) is not None:
        return fresh
    say_observed(state)
    return state


def shown_live(where: Site, *, cached: bool) -> Callable[[], State]:
    """The same for a list that is shown again and again."""
    if cached or not sys.stdout.isatty():
        say_observed(state_or_empty(where))
        return lambda: state_or_empty(where)
    return watched(where, lambda: state_or_empty(where))


def watched(where: Site, read: Callable[[], State]) -> Callable[[], State]:
    """What `read` gives, refreshed every few seconds and whenever it was written."""
    kept: list[tuple[float, int, State]] = []

    def latest() -> State:
        stored = read()
        if kept and kept[0][1] == stored.generation and time.monotonic() - kept[0][0] < AGAIN:
            return kept[0][2]
        fresh = looked(where, stored) or stored
        kept[:] = [(time.monotonic(), stored.generation, fresh)]
        return fresh

    return latest


def _observed(where: Site, state: State) -> State:
    from reconciler.engine.observe import observe
    from reconciler.engine.ports import Connections
    from reconciler.state.observe.merge import absorb
    from reconciler.state.settle import conclude

    ports = ports_of(where)
    seen = observe(ports, state, Connections(ports, state.lineage), hasty=True)
    merged = absorb(state, listings=seen.listings, reports=seen.reports, now=now(), before=state)
    return conclude(merged, now=now())


def _silent(state: State) -> bool:
    """A place with instances did not answer: what is shown of them is not of now."""
    used = {one.place for one in state.instances if alive(one)}
    return any(place.error for place in state.places if place.name in used and not place.forgotten)
