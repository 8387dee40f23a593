"""Detach SSH hosts that were removed from their pool. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.planner.draft import Draft, without
from schemas.instance import Instance

GONE = "was removed from the configuration"


def departures(draft: Draft) -> Iterator[tuple[Instance, int | None]]:
    """(server, when a busy one is stopped): at once where a person said so, else whenever it is free."""
    declared = {host.place for pool in draft.pools.values() for host in pool.hosts}
    for one in list(draft.living.values()):
        if one.host is None or one.place in declared:
            continue
        pool = draft.pool_of(one)
        if pool not in draft.pools or one.id in draft.leaving or not draft.covers(id=one.id, pool=pool):
            continue
        goes_on = one.draining == GONE  # an earlier apply's permission
        if not (draft.may_end(pool) or goes_on):
            draft.cannot(f"host {one.name}", f"{GONE}, but this apply may not detach it: {without(pool)}")
            continue
        yield one, draft.now if pool in draft.may.destroy_pools else one.drain_until if goes_on else None
