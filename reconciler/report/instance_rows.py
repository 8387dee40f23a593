"""Rows of `dstack pool ps` and `dstack pool list`. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from msgspec.structs import replace

from reconciler.report.run_rows import trouble
from reconciler.state.blocks import shared, used
from reconciler.state.drains import INSTANCE, INSTANCE_DRAINED, POOL_DRAINED, closed_pools, told
from reconciler.state.host_backoff import next_looks
from reconciler.state.status import (
    InstanceStatus,
    degraded,
    idle_since,
    instance_status,
    jobs_by_instance,
    lost_gpus,
    reap_at,
    unreachable,
)
from reconciler.text.format import rough, span
from schemas.backend_types import SSH
from schemas.instance import Instance
from schemas.pool import Pool
from schemas.resources import Resources
from schemas.run import Job
from schemas.state import Override, Place, State


@dataclass(frozen=True, kw_only=True)
class InstanceRow:
    """An instance with what is derived of it. `reap_at` is `None` unless it is idle and will go.

    `blocks` are (those in use, all) where it is shared, else (0, 1). `next_look_at`: until then a failing server is
    left alone by whoever looked at it last, at most.
    """

    instance: Instance
    status: InstanceStatus
    reason: str
    idle_since: int | None
    reap_at: int | None
    observed_at: int | None
    runs: tuple[str, ...]
    blocks: tuple[int, int] = (0, 1)
    next_look_at: int | None = None
    pool_closed: str = ""
    """Why its pool creates nothing new: paused or drained, by whom and until when."""


@dataclass(frozen=True, kw_only=True)
class PoolRow:
    """A pool with how many of its instances are idle and usable, out of how many."""

    pool: Pool
    available: int
    total: int
    created_at: int | None
    closed: str = ""
    """As `InstanceRow.pool_closed`."""


def explain_instances(state: State, *, now: int, pool: str = "") -> tuple[InstanceRow, ...]:
    """The living, in the order of their pools and names; open launches are among them (`pending`)."""
    jobs = jobs_by_instance(state.attempts)
    names = _run_names(state)
    troubles = _troubles(state)
    places = {place.name: place for place in state.places}
    looks = next_looks(state)
    floors = _at_floor(state, jobs=jobs)
    drains, closed = _drains(state, now=now), pools_closed(state, now=now)
    living = [_shown(one, state) for one in state.instances if one.phase != "terminated" and pool in ("", one.pool)]
    living += [one for one in _declared(state, places=places) if pool in ("", one.pool)]
    ordered = sorted(living, key=lambda one: (one.pool, _natural(one.name)))
    return tuple(
        _row(
            one,
            jobs=jobs,
            runs=names.get(one.id, ()),
            place=places.get(one.place),
            now=now,
            floors=floors,
            drain=drains.get(INSTANCE + one.id) or drains.get(one.pool),
            look=looks.get(one.place),
            troubles=troubles.get(one.id, ()),
            closed=closed.get(one.pool, ""),
        )
        for one in ordered
    )


def pools_closed(state: State, *, now: int) -> dict[str, str]:
    """Pool -> why it creates nothing new."""
    declared = state.applied.desired.pools if state.applied else ()
    return closed_pools(declared, state.overrides, now=now)


def explain_pools(state: State | None, *, pools: tuple[Pool, ...], now: int) -> tuple[PoolRow, ...]:
    """Each of `pools`, then those that only live instances still name."""
    living = [_shown(one, state) for one in state.instances if one.phase != "terminated"] if state else []
    jobs = jobs_by_instance(state.attempts) if state else {}
    gone = sorted({one.pool for one in living if one.pool} - {one.name for one in pools})
    closed = closed_pools(pools, state.overrides if state else (), now=now)
    listed = (*pools, *(Pool(name=name) for name in gone))
    return tuple(_pool_row(one, living=living, jobs=jobs, closed=closed.get(one.name, "")) for one in listed)


def _shown(one: Instance, state: State) -> Instance:
    """With its pool's word on other people's processes."""
    if not one.foreign:
        return one
    pools = state.applied.desired.pools if state.applied else ()
    allowed = any(pool.allow_foreign for pool in pools if pool.name == one.pool)
    lost = one.degraded if lost_gpus(one) else ""
    told = (lost, degraded(replace(one, disarmed="", unfit=""), allow_foreign=allowed))
    return replace(one, degraded="; ".join(why for why in told if why))


def _pool_row(pool: Pool, *, living: list[Instance], jobs: Mapping[str, list[Job]], closed: str) -> PoolRow:
    mine = [one for one in living if one.pool == pool.name]
    usable = [one for one in mine if _has_room(one, jobs) and _usable(one)]
    created = min((one.created_at for one in mine if one.created_at), default=None)
    return PoolRow(pool=pool, available=len(usable), total=len(mine), created_at=created, closed=closed)


def _usable(one: Instance) -> bool:
    """One that lost a GPU is: what is left of it is given work."""
    return not _flags(one if degraded(one, allow_foreign=True) else replace(one, degraded=""))


def _has_room(one: Instance, jobs: Mapping[str, list[Job]]) -> bool:
    return one.phase == "ready" and (not jobs.get(one.id) or used(jobs[one.id], of=shared(one)) < shared(one))


def _row(
    one: Instance,
    *,
    jobs: dict[str, list[Job]],
    runs: tuple[str, ...],
    place: Place | None,
    now: int,
    floors: frozenset[str],
    drain: Override | None,
    look: int | None,
    troubles: tuple[str, ...],
    closed: str,
) -> InstanceRow:
    status = instance_status(one, jobs)
    idle = status == "idle"
    kept = one.pool in floors
    goes = None if kept or not idle else one.terminate_at or reap_at(one, since=idle_since(one))
    reason = _reason(one, status=status, place=place, now=now, kept=kept, drain=drain)
    reason = "; ".join(filter(None, (reason, *troubles)))
    if look is not None and place is not None:
        reason += f"; {place.failures} looks failed, {_next_look(look, now=now)}"
    return InstanceRow(
        instance=one,
        status=status,
        reason=reason,
        next_look_at=look,
        pool_closed=closed,
        idle_since=idle_since(one) if idle else None,
        reap_at=goes,
        observed_at=place.observed_at if place else None,
        runs=runs,
        blocks=(used(jobs.get(one.id, ()), of=shared(one)), shared(one)),
    )


def _next_look(at: int, *, now: int) -> str:
    if at <= now:
        return "looked at again by the next apply"
    return f"looked at again in {rough(at - now)} (`dstack apply --retry-hosts`: now)"


def _declared(state: State, *, places: Mapping[str, Place]) -> Iterator[Instance]:
    """Declared servers that are not attached (yet), as if they were instances: why is what people look for."""
    there = {one.place for one in state.instances if one.phase != "terminated"}
    for pool in state.applied.desired.pools if state.applied else ():
        for host in pool.hosts:
            place = places.get(host.place)
            error = place.error if place else ""
            if host.place in there:
                continue
            refused = error.startswith(("checks failed: ", "quarantined: "))
            yield Instance(
                id=host.place,
                name=host.name,
                pool=pool.name,
                backend=SSH.name,
                place=host.place,
                region=host.region,
                resources=Resources(cpus=0, memory=0),
                price=host.price,
                host=host,
                reason="not attached yet: `dstack apply`" if not error else error if error.startswith("checks") else "",
                quarantined=error.removeprefix("quarantined: ") if error.startswith("quarantined: ") else "",
                unreachable_since=place.failing_since if place and error and not refused else None,
                unreachable_why=error,
            )


def _at_floor(state: State, *, jobs: dict[str, list[Job]]) -> frozenset[str]:
    """Pools that are at their minimum, so that nothing idle of them goes."""
    pools = state.applied.desired.pools if state.applied else ()
    alive: dict[str, int] = {}
    for one in state.instances:
        if one.phase in ("pending", "provisioning", "ready"):
            alive[one.pool] = alive.get(one.pool, 0) + 1
    return frozenset(pool.name for pool in pools if alive.get(pool.name, 0) <= _floor(pool) and _floor(pool))


def _floor(pool: Pool) -> int:
    return max(pool.nodes_min, pool.nodes_target or 0)


def _flags(one: Instance) -> list[str]:
    worse = "; ".join(dict.fromkeys(why for why in (one.degraded, one.disarmed, one.unfit) if why))
    told = {"quarantined": one.quarantined, "degraded": worse, "draining": one.draining, "orphan": one.orphan}
    found = [f"{name}: {why}" for name, why in told.items() if why]
    return [*(["unreachable"] if unreachable(one) else []), *found]


OURS = (f"draining: {POOL_DRAINED}", f"draining: {INSTANCE_DRAINED}")


def _drains(state: State, *, now: int) -> dict[str, Override]:
    """By pool and by `instance ID`: the drain in force, else the one that begins next."""
    found: dict[str, Override] = {}
    for each in sorted(state.overrides, key=lambda each: each.begins or each.at, reverse=True):
        if each.kind == "drain" and (each.until is None or each.until > now):
            found[each.subject] = each
    return found


def _reason(
    one: Instance, *, status: InstanceStatus, place: Place | None, now: int, kept: bool, drain: Override | None
) -> str:
    """Why it is as it is, the worst first."""
    doubted = bool(one.quarantined) and one.quarantined == one.unreachable_why
    said = [_unreachable(one, now=now)] if unreachable(one) and not doubted else []
    if place is not None and place.error and one.host is not None:
        known = (unreachable(one) or one.quarantined) and not place.answered_by
        said += [] if known else [place.error]
    elif place is not None and place.error:
        said.append(f"place unknown: {place.error}")
    said += [flag for flag in _flags(one) if flag != "unreachable" and not (drain and flag.startswith(OURS))]
    said += [told(drain, whole=True)] if drain else []
    if one.reason:
        said.append(one.reason)
    if status == "idle" and not said:
        said.append(_idle_reason(one, kept=kept))
    if status == "holding":
        said.append("results not collected yet")
    return "; ".join(part for part in said if part)


def _unreachable(one: Instance, *, now: int) -> str:
    since = rough(now - (one.unreachable_since or now))
    why = f": {one.unreachable_why}" if one.unreachable_why else ""
    return f"unreachable for {since}{why}"


def _idle_reason(one: Instance, *, kept: bool) -> str:
    if one.host is not None:
        return ""
    if kept:
        return "kept: the pool's minimum"
    return f"idle duration {span(one.idle_duration)} ({one.idle_source})"


def _run_names(state: State) -> dict[str, tuple[str, ...]]:
    """instance id -> names of the runs whose jobs it has."""
    named = {run.id: run.spec.name for run in state.runs}
    found: dict[str, tuple[str, ...]] = {}
    for attempt in state.attempts:
        for job in attempt.jobs:
            if job.status in ("assigned", "running", "ended"):
                name = named.get(attempt.run, attempt.run)
                found[job.instance] = tuple(dict.fromkeys((*found.get(job.instance, ()), name)))
    return found


def _troubles(state: State) -> dict[str, tuple[str, ...]]:
    """Instance id -> what keeps replicas of services on it from serving: `web: exit 3, restarted 4 times`."""
    specs = {run.id: run.spec for run in state.runs if run.spec.type == "service"}
    found: dict[str, tuple[str, ...]] = {}
    for attempt in state.attempts:
        spec = specs.get(attempt.run)
        for job in attempt.jobs if spec is not None and attempt.live and not attempt.stopping else ():
            if spec is not None and (why := trouble(job, spec)):
                found[job.instance] = (*found.get(job.instance, ()), f"{spec.name}: {why}")
    return found


def _natural(name: str) -> tuple[str, int]:
    """`gpu-10` after `gpu-9`."""
    head, _, number = name.rpartition("-")
    return (head, int(number)) if number.isdigit() else (name, -1)
