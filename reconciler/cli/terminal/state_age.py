"""Say how old the state is that a command shows."""

from __future__ import annotations

import sys

from reconciler.cli.terminal.streams import say
from reconciler.system.process import now
from reconciler.text.format import rough
from schemas.state import State

OLD = 60


def say_age(state: State) -> None:
    """Nothing where it is fresh, where nothing can change any more, or where nobody reads it."""
    told = stale(state, now=now())
    if told and sys.stderr.isatty():
        say(told)


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
