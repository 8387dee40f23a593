"""How long each cloud instance may run without another apply: the lease that the next contact writes. Pure.

The host does the counting (`backends/boot/deadman.sh`): what runs there, and results that wait, keep it by themselves.
"""

from __future__ import annotations

from collections import defaultdict

from reconciler.state.status import UNREADABLE, bought, idle_since
from schemas.base import Price
from schemas.instance import Instance
from schemas.lease import Lease
from schemas.pool import Pool
from schemas.state import State


def leases(state: State, *, now: int) -> dict[str, Lease]:
    """instance id -> its lease; none for one that nobody owns, or whose answer is none: its timer ends it."""
    mine = [one for one in state.instances if bought(one) and one.phase != "terminated" and not one.orphan]
    mine = [one for one in mine if not one.unreachable_why.startswith(UNREADABLE)]
    if not mine:
        return {}
    pools = {pool.name: pool for pool in state.applied.desired.pools} if state.applied else {}
    held = _floors(mine, pools)
    return {one.id: _lease(one, pools.get(one.pool), held=one.id in held, now=now) for one in mine}


def _lease(one: Instance, pool: Pool | None, *, held: bool, now: int) -> Lease:
    """Whatever is never idle for too long is held for as long as its pool may be unattended."""
    if held or one.idle_duration is None or one.prevent_destroy:
        span = pool.unattended if pool is not None else one.unattended
        return Lease(rule="unattended", span=span, hold=one.hold, lifetime=one.max_lifetime)
    since = idle_since(one) or now
    span = one.idle_duration
    if one.reserved_for and one.reserved_until is not None:
        span = max(span, one.reserved_until - since)
    return Lease(rule="idle", span=span, idle_for=max(0, now - since), hold=one.hold, lifetime=one.max_lifetime)


def _floors(instances: list[Instance], pools: dict[str, Pool]) -> set[str]:
    """Ids that `nodes` would keep if all were idle: declared, cheap, young ones (`planner.rules.scale_down`)."""
    members: dict[str, list[Instance]] = defaultdict(list)
    for one in instances:
        if one.pool in pools and pools[one.pool].floor:
            members[one.pool].append(one)
    return {one.id for name, each in members.items() for one in sorted(each, key=_goes)[-pools[name].floor :]}


def _goes(one: Instance) -> tuple[bool, Price, int, int, str]:
    """Which go first."""
    price = one.price if one.price is not None else Price(0)
    return (one.origin == "declared", -price, idle_since(one) or 0, len(one.name), one.name)
