"""Exponential backoff for SSH hosts whose checks fail. Stored in the state: every reconciler keeps to it. Pure.

The first looks are free: a hiccup is no failure. A failure tells something of the machine that looked, too (a route,
a key, a jump of its own): another one looks at once.
"""

from __future__ import annotations

from msgspec.structs import replace

from schemas.base import Seconds
from schemas.instance import Listing
from schemas.run import LIVE_JOB
from schemas.state import Place, State

FREE = 3  # looks that may fail before any is put off
FIRST: Seconds = 30
LONGEST: Seconds = 900
WITH_WORK: Seconds = 60  # the most where a job of ours is: its end should be known soon


def put_off(state: State, *, now: int, who: str) -> frozenset[str]:
    """Names of the places that `who` need not look at now."""
    failing = [place for place in state.places if place.failing_by == who and place.failures >= FREE]
    if not failing:
        return frozenset()
    due = next_looks(state)
    return frozenset(one.name for one in failing if (one.failed_at or 0) <= now < due.get(one.name, 0))


def next_looks(state: State) -> dict[str, int]:
    """place -> when a failing server is due to be looked at again, where that is put off."""
    failing = [place for place in state.places if place.failures >= FREE and place.failed_at is not None]
    working = _working(state) if failing else frozenset()
    return {place.name: (place.failed_at or 0) + _wait(place, work=place.name in working) for place in failing}


def failed(place: Place, listing: Listing) -> Place:
    """One failed look more; the same one again changes nothing."""
    if not place.config.is_server or (place.failed_at is not None and listing.at <= place.failed_at):
        return place
    return replace(place, failures=place.failures + 1, failed_at=listing.at, failing_by=listing.by)


def answered(place: Place) -> Place:
    return replace(place, failures=0, failed_at=None, failing_by="") if place.failures else place


def _wait(place: Place, *, work: bool) -> Seconds:
    doublings = min(16, place.failures - FREE)
    return min(WITH_WORK if work else LONGEST, FIRST << doublings)


def _working(state: State) -> frozenset[str]:
    busy = {job.instance for attempt in state.attempts for job in attempt.jobs if job.status in LIVE_JOB}
    return frozenset(one.place for one in state.instances if one.id in busy)
