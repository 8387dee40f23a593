"""Exponential backoff for pools whose machines are never ready. Stored in the state: every apply keeps to it. Pure.

Only machines that we gave up count. What a person ended, and what its backend took away, is replaced at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec.structs import replace

from reconciler.text.durations import words
from schemas.base import Seconds
from schemas.desired import Desired
from schemas.instance import Instance
from schemas.plan import Action, Terminate
from schemas.state import LaunchBackoff, State

FIRST: Seconds = 5 * 60
"""Seconds until the next try after the first machine that was never ready; twice as long after each further one."""
LONGEST: Seconds = 6 * 3600
"""Seconds that a try is put off at most, and after which a pool without another failure begins anew."""


def given_up(actions: Iterable[Action], instances: Mapping[str, Instance]) -> tuple[Instance, ...]:
    """The instances that `actions` terminate because their host never answered."""
    ends = (one.instance for one in actions if isinstance(one, Terminate) and one.inferred)
    found = (instances[id] for id in ends if id in instances)
    return tuple(one for one in found if one.phase == "provisioning" and one.ready_at is None and not one.orphan)


def after_failures(
    known: Iterable[LaunchBackoff], failed: Iterable[Instance], *, now: int
) -> tuple[LaunchBackoff, ...]:
    """With what was given up now. Several launches that fail while a try is put off already count as one failure."""
    found = {one.pool: one for one in known}
    launches: dict[str, set[str]] = {}
    for instance in failed:
        launches.setdefault(instance.pool, set()).add(instance.launch)
    for pool, ids in launches.items():
        before = found.get(pool, LaunchBackoff(pool=pool))
        tries = before.tries if now < before.until else before.tries + 1
        until = before.until if now < before.until else now + min(LONGEST, FIRST << min(tries - 1, 10))
        found[pool] = LaunchBackoff(
            pool=pool,
            at=now,
            until=until,
            tries=tries,
            launches=before.launches + len(ids - {before.last}),
            last=max(ids),
        )
    return tuple(found.values())


def backoff_words(backoff: LaunchBackoff, *, now: int) -> str:
    """`next try in 20m: 3 launches were never ready`, and the command that tries at once."""
    count = f"{backoff.launches} launches were" if backoff.launches != 1 else "1 launch was"
    return (
        f"next try in {words(backoff.until - now)}: {count} never ready; "
        f"`dstack pool resume {backoff.pool}` lets the next apply try"
    )


def current_backoffs(state: State, *, now: int) -> State:
    """The state without backoffs that are over: a machine of the pool was ready since, or the last failure is old."""
    if not state.backoffs:
        return state
    ready: dict[str, int] = {}
    for one in state.instances:
        if one.ready_at is not None:
            ready[one.pool] = max(ready.get(one.pool, 0), one.ready_at)
    kept = tuple(
        one
        for one in state.backoffs
        if ready.get(one.pool, 0) <= one.at and now - LONGEST <= one.until <= now + LONGEST
    )
    return state if kept == state.backoffs else replace(state, backoffs=kept)


def unchanged_pools(state: State, before: Desired | None, after: Desired) -> State:
    """The state without backoffs of pools that the configuration changed: a person may have mended what was wrong."""
    if not state.backoffs or before is None:
        return state
    pools = {pool.name: pool for pool in before.pools} if before.backends == after.backends else {}
    same = {pool.name for pool in after.pools if pools.get(pool.name) == pool}
    return replace(state, backoffs=tuple(one for one in state.backoffs if one.pool in same))
