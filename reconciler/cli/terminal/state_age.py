"""Say how old the state is that a command shows."""

from __future__ import annotations

import sys

from reconciler.cli.terminal.streams import say
from reconciler.system.process import now
from reconciler.text.format import rough, stamp
from schemas.state import State

OLD = 60


def say_age(state: State) -> None:
    """Nothing where it is fresh, where nothing can change any more, or where nobody reads it."""
    told = stale(state, now=now())
    if told and sys.stderr.isatty():
        say(told)


def say_observed(state: State) -> None:
    """When what is shown was observed, where anything of it may have changed since."""
    at = observed_at(state)
    if at is not None:
        say(f"note: observed_at {stamp(at)} ({rough(max(0, now() - at))} ago); `dstack apply` refreshes it")


def observed_at(state: State) -> int | None:
    """The oldest last good listing of a place with a running instance, Unix time; `None` without one."""
    used = {one.place for one in state.instances if one.phase != "terminated"}
    return min(
        (one.observed_at for one in state.places if one.name in used and one.observed_at is not None), default=None
    )


def stale(state: State, *, now: int) -> str:
    """ "" unless something is unfinished and a place that has instances last answered more than a minute ago."""
    working = {job.instance for attempt in state.attempts if attempt.live for job in attempt.jobs}
    moving = {
        one.place
        for one in state.instances
        if one.id in working or one.phase in ("pending", "provisioning", "terminating")
    }
    seen = [place.observed_at for place in state.places if place.observed_at is not None and place.name in moving]
    if not seen or now - min(seen) <= OLD:
        return ""
    return f"note: as last observed {rough(now - min(seen))} ago; `dstack apply` looks again"
