"""List every condition that a machine fails, each with both sides. Pure.

The plan's matcher (`placement.fit`) stops at the first; here each condition is asked for by itself.
"""

from __future__ import annotations

from msgspec.structs import replace

from reconciler.planner.placement.fit import (
    CLOUD_CPU,
    CLOUD_DISK,
    CLOUD_MEMORY,
    FitSubject,
    accepted,
    asked,
    has,
    other_image,
    refusal,
    shortage,
)
from schemas.explanation import FailedCondition
from schemas.pool import Pool
from schemas.resources import Need, Span, Where

ANY = Span(min=0)
FREE = Need(cpu=ANY, memory=ANY, disk=ANY)
RESOURCES = ("gpu", "container runtime", "cpu architecture", "cpu", "memory", "disk")
WHERE = ("backend", "region", "zone", "instance type", "spot", "price")


def failed(need: Need, where: Where, machine: FitSubject, *, cloud: bool, of: str = "") -> tuple[FailedCondition, ...]:
    """Every condition of a need and a `where` that the machine fails. `cloud`: it would be bought."""
    found = [
        FailedCondition(
            kind=kind, asked=asked(need, kind=kind, cloud=cloud), has=has(machine.resources, kind=kind), of=of
        )
        for kind in RESOURCES
        if shortage(_alone(need, kind, cloud=cloud), machine.resources, cloud=cloud) == kind
    ]
    if other_image(need, machine):
        found.append(
            FailedCondition(kind="image", asked=f"image {need.image}", has=machine.image or "another image", of=of)
        )
    for kind in WHERE:
        if refusal(_only(where, kind), machine) == kind:
            found.append(FailedCondition(kind=kind, asked=accepted(where, kind=kind), has=_is(machine, kind), of=of))
    return tuple(found)


def failed_of(pool: Pool, need: Need, where: Where, machine: FitSubject, *, cloud: bool) -> tuple[FailedCondition, ...]:
    """Those of the run, then those that its pool adds."""
    mine = failed(need, where, machine, cloud=cloud)
    said = {(one.kind, one.asked) for one in mine}
    theirs = failed(pool.need, pool.where, machine, cloud=cloud, of=f"pool {pool.name}") if cloud else ()
    return (*mine, *(one for one in theirs if (one.kind, one.asked) not in said))


def _alone(need: Need, kind: str, *, cloud: bool) -> Need:
    """The need of one kind of resource, so that no other hides it."""
    match kind:
        case "gpu":
            return replace(FREE, gpu=need.gpu)
        case "container runtime":
            return replace(FREE, container=need.container)
        case "cpu architecture":
            return replace(FREE, cpu_arch=need.cpu_arch)
    usual = {"cpu": CLOUD_CPU, "memory": CLOUD_MEMORY, "disk": CLOUD_DISK}[kind] if cloud else ANY
    span = getattr(need, kind)
    return replace(FREE, **{kind: span if span.asked else usual})


def _only(where: Where, kind: str) -> Where:
    fields = {
        "backend": "backends", "region": "regions", "zone": "zones", "instance type": "instance_types",
        "price": "max_price", "spot": "spot",
    }  # fmt: skip
    field = fields[kind]
    return replace(Where(spot="auto"), **{field: getattr(where, field)})


def _is(machine: FitSubject, kind: str) -> str:
    if kind == "spot":
        return "spot" if machine.spot else "on-demand"
    if kind == "price":
        return "no known price" if machine.price is None else f"${machine.price:.2f}/h"
    named = {
        "backend": machine.backend, "region": machine.region, "zone": machine.zone,
        "instance type": machine.instance_type,
    }  # fmt: skip
    return named[kind] or f"no {kind}"
