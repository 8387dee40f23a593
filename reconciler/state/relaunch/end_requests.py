"""End requests of `pool add`: what was ready, removed, or failed without a retry is not launched again. Pure.

`count` of a request is how many of its instances are still wanted. An instance that settled its part is no longer
linked to the request, in the same write.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from msgspec.structs import replace

from reconciler.state.drains import INSTANCE_DRAINED
from reconciler.state.status import INTERRUPTED
from schemas.instance import Instance
from schemas.state import State, Wish

FORGOTTEN = "forgotten"
"""Begins the reason of an instance that `state forget` took out of the state."""


def end_requests(state: State, *, now: int | None) -> State:
    """The state without the parts of requests that are over: ready once, or failed and not to be tried again.

    A launch that was refused, or never sent, settles nothing: another offer is tried for it. Without `now`, no request
    ends because its time is over.
    """
    if not state.wishes:
        return state
    wishes = {wish.id: wish for wish in state.wishes}
    return _without(state, lambda one: one.wish in wishes and _over(one, wishes[one.wish], now=now))


def leave_request(state: State, instance: str) -> State:
    """The state in which nothing is launched in place of that instance for a request (a person removed it)."""
    return _without(state, lambda one: one.id == instance and one.ready_at is None)


def requested(state: State, name: str, *, pool: str = "") -> Wish | None:
    """The open request of that id, or for an instance of that name, in `pool` where one is given."""
    found = (each for each in state.wishes if name and name in (each.id, each.name) and pool in ("", each.pool))
    return next(found, None)


def retries(wish: Wish, *, reason: str, now: int | None) -> bool:
    """Whether another instance is launched in place of one that ended for `reason` before it was ready."""
    if now is not None and wish.retry.duration is not None and now >= wish.at + wish.retry.duration:
        return False
    return wish.retry.interruption if reason.startswith(INTERRUPTED) else wish.retry.error


def _over(one: Instance, wish: Wish, *, now: int | None) -> bool:
    if one.ready_at is not None:
        return True
    if one.refused or one.phase not in ("terminating", "terminated"):
        return False
    by_name = one.reason.startswith((INSTANCE_DRAINED, FORGOTTEN))  # a person ended this very instance
    return by_name or not retries(wish, reason=one.reason, now=now)


def _without(state: State, settled: Callable[[Instance], bool]) -> State:
    done = Counter(one.wish for one in state.instances if one.wish and settled(one))
    if not done:
        return state
    left = (replace(wish, count=wish.count - done[wish.id]) for wish in state.wishes)
    return replace(
        state,
        wishes=tuple(wish for wish in left if wish.count > 0),
        instances=tuple(replace(one, wish="") if one.wish and settled(one) else one for one in state.instances),
    )
