"""Compile a pool: every value effective, pool > its profile > default."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from reconciler.config.compile.hosts import compile_hosts
from reconciler.config.compile.profile import Chosen
from reconciler.config.known_hosts import Known
from reconciler.config.problems import Problem
from reconciler.config.read import FormEntry
from schemas.access import Way, way_of
from schemas.backend_types import TYPES
from schemas.desired import BackendConfig
from schemas.documents.pool import PoolForm
from schemas.documents.span import OFF
from schemas.host import DISK_FLOOR
from schemas.pool import DAY, GRACE, Pool
from schemas.profile import Profile, Retry
from schemas.resources import Need, Where

DEFAULT_POOL = "default-pool"
DEFAULT_IDLE = 300


def compile_pool(
    form: PoolForm, *, profile: Profile | None, backends: Mapping[str, BackendConfig], known: Known
) -> Pool:
    """`profile` is the one that the pool names. `backends` are the declared ones by name; `known` pins its hosts."""
    chosen = Chosen([("pool", _layer(form)), *([(f"profile {profile.name}", profile)] if profile else [])])
    where = where_of(chosen, backends)
    low, target, high = form.nodes or (0, None, None)
    for field in ("nodes", "resources", "hold", "max_lifetime", "unattended", "unreachable_grace"):
        chosen.note(field, None, "default" if getattr(form, field) is None else "pool")
    return Pool(
        name=form.name,
        default=bool(form.default),
        formerly=form.formerly or (),
        nodes_min=low,
        nodes_target=target,
        nodes_max=high,
        need=form.resources or Need(),
        where=where,
        idle_duration=chosen.duration("idle_duration", "idle_off", DEFAULT_IDLE),
        retry=chosen.pick("retry", Retry()),
        placement=form.placement or "any",
        blocks=1 if form.blocks is None else form.blocks,
        tags=chosen.pick("tags", ()),
        connect=None if form.connect is None else msgspec.convert(form.connect, Way),
        max_lifetime=None if form.max_lifetime in (None, OFF) else form.max_lifetime,
        hold=DAY if form.hold is None else form.hold,
        unattended=_unattended(form),
        unreachable_grace=GRACE if form.unreachable_grace is None else form.unreachable_grace,
        max_hourly=form.budget.max_hourly if form.budget else None,
        paused=bool(form.paused),
        prevent_destroy=bool(form.prevent_destroy),
        allow_foreign=bool(form.allow_foreign),
        default_image=form.default_image or "",
        isolation=form.isolation or "process",
        disk_floor=DISK_FLOOR if form.disk_floor is None else form.disk_floor,
        self_termination=form.self_termination or "preferred",
        hosts=compile_hosts(form, known=known),
        unsupported=_unsupported(form, where, backends),
        sources=chosen.written(),
    )


def where_of(chosen: Chosen, backends: Mapping[str, BackendConfig]) -> Where:
    return Where(
        backends=resolve_backends(chosen.pick("backends", ()), backends),
        regions=chosen.pick("regions", ()),
        zones=chosen.pick("zones", (), shown="availability_zones"),
        instance_types=chosen.pick("instance_types", ()),
        spot=chosen.pick("spot", "on-demand", shown="spot_policy"),
        max_price=chosen.pick("max_price", None),
        reservation=chosen.pick("reservation", ""),
    )


def resolve_backends(asked: tuple[str, ...], backends: Mapping[str, BackendConfig]) -> tuple[str, ...]:
    """Names of backends; a type stands for every declared backend of it."""
    names: list[str] = []
    for each in asked:
        typed = [each] if each in backends else [name for name, config in backends.items() if config.type == each]
        names += typed or [each]
    return tuple(dict.fromkeys(names))


def waits(configs: Iterable[BackendConfig]) -> str:
    """Why the first of them that works waits for a person; "" where none does."""
    return next((one.withheld for one in configs if one.withheld and one.traits.available), "")


def unusable(where: Where, backends: Mapping[str, BackendConfig]) -> str:
    """Why none of the backends can be used; "" when one can."""
    asked = where.backends or tuple(backends)
    if any(name in backends and not backends[name].unsupported for name in asked):
        return ""
    shown = ", ".join(f"`{name}`" for name in asked)
    missing = [name for name in asked if name not in backends]
    if waiting := waits(backends[name] for name in asked if name in backends):
        return f"only the backend {shown} is allowed: {waiting}"
    only = f"only the backend{'s' if len(asked) > 1 else ''} {shown} {'are' if len(asked) > 1 else 'is'} allowed"
    missing = [name for name in missing if name not in TYPES or TYPES[name].available]
    if missing:
        return f"{only}: declare {', '.join(f'`{name}`' for name in missing)} under `backends`"
    return f"{only}: not available in this version of dstack"


def _unattended(form: PoolForm) -> int | None:
    return 3 * DAY if form.unattended is None else None if form.unattended == OFF else form.unattended


def _layer(form: PoolForm) -> Profile:
    return Profile(
        name=form.name,
        backends=form.backends or (),
        regions=form.regions or (),
        zones=form.availability_zones or (),
        instance_types=form.instance_types or (),
        spot=form.spot_policy,
        retry=form.retry,
        max_price=form.max_price,
        idle_duration=None if form.idle_duration == OFF else form.idle_duration,
        idle_off=form.idle_duration == OFF,
        reservation=form.reservation or "",
        tags=form.tags or (),
    )


def _unsupported(form: PoolForm, where: Where, backends: Mapping[str, BackendConfig]) -> tuple[str, ...]:
    found = []
    if form.ssh is None and (reason := unusable(where, backends)):
        found.append(reason)
    return tuple(found)


# ---------------------------------------------------------------- `connect`, checked against the types of backends


def backend_access(entry: FormEntry, config: BackendConfig) -> Iterator[Problem]:
    """Of a backend's own `connect`."""
    yield from _faults(entry, way_of(config.options), (config,))


def pool_access(entry: FormEntry, pool: Pool, backends: Mapping[str, BackendConfig]) -> Iterator[Problem]:
    """Of a pool's `connect`: every backend that the pool may buy of must have it."""
    if pool.connect is None or pool.hosts:
        return
    allowed = (one for name, one in backends.items() if not pool.where.backends or name in pool.where.backends)
    yield from _faults(entry, pool.connect, allowed)


def _faults(entry: FormEntry, way: Way, backends: Iterable[BackendConfig]) -> Iterator[Problem]:
    for config in backends:
        traits = config.traits
        if way.mode == "program" and traits.available and traits.bought and way.name not in traits.access:
            has = ", ".join(f"`{name}`" for name in ("direct", "jump", *traits.access))
            why = f"backend `{config.name}` ({config.type}) cannot be reached by `{way.name}`: it has {has}"
            yield entry.problem(why, "connect")
