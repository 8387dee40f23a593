"""Correct times that a wrong clock left in the state: nothing that has happened is still to come. Pure.

Asked only where another clock agrees with ours. A fact of a time to come is taken to be of now; what waits for a time
waits no longer than it ever does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from msgspec.structs import replace

from reconciler.state.observe.clocks import SKEW
from schemas.base import Value
from schemas.instance import Instance
from schemas.launch import Intent
from schemas.run import Attempt, Job, Run
from schemas.state import Capacity, LaunchBackoff, Override, Pace, Place, State, Tick, Tombstone, Unowned, Wish

V = TypeVar("V", bound=Value)
LONGEST_WAIT = 3600
"""Seconds: no run, reservation or request that waits for a time by itself waits for longer."""

FACTS: Mapping[type[Value], tuple[str, ...]] = {
    Instance: (
        "created_at", "seen_at", "ready_at", "last_job_end", "terminate_at", "terminated_at", "priced_at", "ended_at",
        "trusted_at", "missing_since", "unreachable_since",
    ),
    Run: ("submitted_at", "started_at", "finished_at", "settled_at"),
    Attempt: ("assigned_at", "stop_asked_at", "released_at"),
    Job: ("started_at", "ended_at", "saved_at", "moved_at"),
    Place: ("observed_at", "failing_since", "failed_at", "leftovers_at"),
    Unowned: ("since", "removing_at"),
    Wish: ("at",),
    Override: ("at",),
    Tombstone: ("at",),
    Capacity: ("since",),
    LaunchBackoff: ("at",),
    Intent: ("opened_at",),
}  # fmt: skip
"""Fields of each record that say when something happened."""
WAITS: Mapping[type[Value], tuple[str, ...]] = {
    Instance: ("reserved_until",),
    Run: ("not_before",),
    LaunchBackoff: ("until",),
    Pace: ("at", "not_before"),
    Intent: ("send_at",),
}
"""Fields of each record that say until when something waits that nobody gave a time for."""


def dated_ahead(state: State, *, now: int) -> bool:
    """Whether an apply, or an instance that seems to be idle, is dated in a time to come."""
    latest = now + SKEW
    return any(one.at > latest for one in state.ticks) or any(
        (one.ready_at or 0) > latest or (one.last_job_end or 0) > latest for one in state.instances
    )


def without_future(state: State, *, now: int) -> State:
    """The state with no fact of a time to come; the same records where there is none."""
    attempts = tuple(
        _bounded(attempt if jobs == attempt.jobs else replace(attempt, jobs=jobs), now=now)
        for attempt in state.attempts
        for jobs in (_all(attempt.jobs, now=now),)
    )
    applied = state.applied
    return replace(
        state,
        applied=applied if applied is None or applied.at <= now + SKEW else replace(applied, at=now),
        attempts=attempts,
        instances=_all(state.instances, now=now),
        runs=_all(state.runs, now=now),
        places=_all(state.places, now=now),
        intents=tuple(_intent(one, now=now) for one in state.intents),
        wishes=_all(state.wishes, now=now),
        overrides=_all(state.overrides, now=now),
        capacity=_all(state.capacity, now=now),
        tombstones=_all(state.tombstones, now=now),
        paces=_all(state.paces, now=now),
        backoffs=_all(state.backoffs, now=now),
        unowned=_all(state.unowned, now=now),
        ticks=past_ticks(state.ticks, now=now),
    )


def past_ticks(ticks: Iterable[Tick], *, now: int) -> tuple[Tick, ...]:
    """Those that have been: one that is dated in a time to come tells nothing of when its author comes again."""
    return tuple(one for one in ticks if one.at <= now + SKEW)


def _all(records: tuple[V, ...], *, now: int) -> tuple[V, ...]:
    return tuple(_bounded(one, now=now) for one in records)


def _bounded(record: V, *, now: int) -> V:
    changes: dict[str, Any] = {}
    for name in FACTS.get(type(record), ()):
        if (getattr(record, name) or 0) > now + SKEW:
            changes[name] = now
    for name in WAITS.get(type(record), ()):
        if (getattr(record, name) or 0) > now + LONGEST_WAIT:
            changes[name] = now
    return replace(record, **changes) if changes else record


def _intent(intent: Intent, *, now: int) -> Intent:
    """One that was opened in a time to come is not sent again: its token may have expired. It is looked for."""
    if intent.opened_at <= now + SKEW:
        return intent
    return replace(_bounded(intent, now=now), request=replace(intent.request, not_after=now))
