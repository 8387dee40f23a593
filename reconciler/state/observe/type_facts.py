"""Give instances whose resources are unknown those of their instance type, as it is offered. Pure.

A listing of a cloud names the type of a machine and nothing more. What the state knew of it is gone after a rebuild:
without its resources no run would ever fit it, and another machine would be bought beside it.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from schemas.base import Mib
from schemas.instance import Instance
from schemas.offer import Offer
from schemas.pool import Pool
from schemas.resources import USUAL_DISK
from schemas.state import State


def with_type_facts(state: State, offers: Iterable[Offer]) -> State:
    """The same state where every living instance has its resources; `offers` is looked through only where not."""
    lacking = {one.id for one in state.instances if _lacks(one)}
    if not lacking:
        return state
    types = {(one.backend, one.instance_type) for one in state.instances if one.id in lacking}
    offered: dict[tuple[str, str], list[Offer]] = {}
    for offer in offers:
        if (offer.backend, offer.instance_type) in types:
            offered.setdefault((offer.backend, offer.instance_type), []).append(offer)
    pools = {pool.name: pool for pool in state.applied.desired.pools} if state.applied else {}
    return replace(
        state,
        instances=tuple(
            _with_facts(one, offered.get((one.backend, one.instance_type), []), pool=pools.get(one.pool))
            if one.id in lacking
            else one
            for one in state.instances
        ),
    )


def _lacks(one: Instance) -> bool:
    unknown = one.resources.cpus == 0 and one.resources.memory == 0
    return unknown and bool(one.instance_type) and one.phase != "terminated" and one.host is None and not one.orphan


def _with_facts(one: Instance, offered: list[Offer], *, pool: Pool | None) -> Instance:
    """Its price, too, where its backend does not tell it: that of the type in its region, as it was bought."""
    if not offered:
        return one
    bought = (one.region, one.spot)
    same = [each for each in offered if (each.region, each.spot) == bought and each.zone in ("", one.zone)]
    same.sort(key=lambda offer: offer.zone != one.zone)
    has = (same or offered)[0].resources
    runtime = one.resources.runtime or has.runtime
    found = replace(one, resources=replace(has, disk=has.disk or _disk(pool), runtime=runtime))
    if one.price is not None or not same:
        return found
    return replace(found, price=same[0].price, at_most=same[0].at_most)


def _disk(pool: Pool | None) -> Mib:
    """What every machine of the pool was given at least, where its type has a disk of any size."""
    return (pool.need.disk.min if pool is not None else None) or USUAL_DISK
