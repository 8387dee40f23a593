"""Attach declared SSH hosts that pass their checks, and keep them in step with their declaration. Pure."""

from __future__ import annotations

from reconciler.planner.draft import Draft
from reconciler.state.status import degraded
from reconciler.text.dates import clock
from reconciler.text.format import hourly
from schemas.backend_types import SSH
from schemas.base import Price
from schemas.host import Host
from schemas.instance import Instance
from schemas.offer import Offer
from schemas.plan import Launch
from schemas.pool import Pool
from schemas.resources import Resources

SOURCE = "declared host"
UNKNOWN = Resources(cpus=0, memory=0)  # until it was looked at


def attach(draft: Draft) -> None:
    """Attach what is declared and free; say why what is not."""
    if not draft.rules_documents or draft.may.destroy_all:
        return
    known = {one.place: one for one in draft.living.values() if one.host is not None}
    for pool in draft.pools.values():
        if pool.unsupported or not draft.covers(id="", pool=pool.name):
            continue
        for host in pool.hosts:
            one = known.get(host.place)
            if one is not None:
                _follow(draft, one, host=host, pool=pool)
            elif why := _hindered(draft, host, pool=pool):
                draft.cannot(f"host {host.name}", why)
            else:
                draft.actions.append(_attached(draft, host, pool=pool))


def _follow(draft: Draft, one: Instance, *, host: Host, pool: Pool) -> None:
    """The way to it, its price and its pool are as declared now."""
    if one.phase == "terminating" or one.id in draft.leaving:
        return
    if draft.pool_of(one) != pool.name:
        draft.update_instance(one, why=f"declared in pool {pool.name} now", pool=pool.name)
        one = draft.living[one.id]
    if why := _trouble(one, allow_foreign=pool.allow_foreign):
        draft.cannot(f"host {one.name}", f"given no work: {why}")
    if (one.host, one.blocks) != (host, host.blocks):
        changes = {"host": host, "blocks": host.blocks, "price": host.price}
        told = _difference(one, host)
        draft.update_instance(one, why=told or "declared otherwise", quiet=not told, **changes)


def _difference(one: Instance, host: Host) -> str:
    """What of its declaration changes who may use it, and at what price."""
    found = []
    if one.blocks != host.blocks:
        found.append(f"blocks {_blocks(one.blocks)} → {_blocks(host.blocks)}")
    if (one.price or 0) != (host.price or 0):
        was, now = (hourly(price or Price(0)) for price in (one.price, host.price))
        found.append(f"price {was} → {now}")
    return ", ".join(found)


def _blocks(number: int) -> str:
    return str(number) if number else "auto"


def _trouble(one: Instance, *, allow_foreign: bool) -> str:
    """What a person should look at, the worst first."""
    if one.quarantined:
        return f"quarantined: {one.quarantined}"
    if one.unreachable_since is not None:
        return f"no answer since {clock(one.unreachable_since)}: {one.unreachable_why}"
    return degraded(one, allow_foreign=allow_foreign)


def _hindered(draft: Draft, host: Host, *, pool: Pool) -> str:
    if host.place in draft.unknown:
        return draft.unknown[host.place]
    if pool.name in draft.closed and not pool.paused:
        return draft.closed[pool.name]
    memory = next((one for one in draft.world.state.capacity if one.place == host.place), None)
    return memory.why if memory is not None and memory.until > draft.now else ""


def _attached(draft: Draft, host: Host, *, pool: Pool) -> Launch:
    id = draft.mint()
    return Launch(
        launch=id,
        pool=pool.name,
        ids=(f"{id}-0",),
        names=(_name(draft, host.name),),
        offer=_offer(host),
        why=f"declared, at {host.address}",
        idle_duration=None,
        idle_source=SOURCE,
        hold=pool.hold,
        unattended=None,
        prevent_destroy=pool.prevent_destroy,
        blocks=host.blocks,
        host=host,
    )


def _offer(host: Host) -> Offer:
    return Offer(
        backend=SSH.name,
        region=host.region,
        instance_type=SSH.name,
        resources=UNKNOWN,
        price=host.price,
        cloud=False,
        at=host.place,
    )


def _name(draft: Draft, wanted: str) -> str:
    """Its own; another one while a machine that stood there before is not given up."""
    name, number = wanted, 1
    while name in draft.names:
        number += 1
        name = f"{wanted}-{number}"
    draft.names.add(name)
    return name


def attaching(draft: Draft, pool: Pool) -> bool:
    """Some of its servers will be there soon."""
    return any(isinstance(action, Launch) and action.pool == pool.name for action in draft.actions)


def waits(draft: Draft, pool: Pool) -> str:
    """Why a pool of servers grows by nothing: it has what is declared."""
    if attaching(draft, pool):
        return "its hosts are being attached"
    there = sum(1 for id in draft.members[pool.name] if draft.living[id].host is not None)
    every = len(pool.hosts)
    return f"{there} of its {every} hosts are attached" if there < every else "the pool has no other hosts"
