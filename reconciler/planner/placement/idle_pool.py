"""Idle instances grouped into identical classes, so that each requirement checks a class once. Pure."""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter

from reconciler.planner.draft import Draft
from reconciler.planner.placement.fit import fits
from reconciler.planner.placement.host_ports import clash
from reconciler.state.drains import INSTANCE_DRAINED, POOL_DRAINED, begun, crosses
from reconciler.state.status import degraded
from reconciler.text.format import by_number
from schemas.base import Price, Seconds
from schemas.instance import Instance
from schemas.resources import Need, Where
from schemas.state import Override

_DEAR = Price("Infinity")
_NOTHING: Mapping[str, Collection[str]] = {}


@dataclass(frozen=True, eq=False, slots=True)
class Requirement:
    """What a waiting node asks for; runs of one shape are served alike. `ceiling` is in $/h.

    `unpriced`: what was confirmed without a known price (`Offer.purchase`), and may be bought at any.

    `lasts`: for how long it may run, where a drain to come or a run that is held for makes that matter; `None` is for
    ever. `ports`: those that it listens on.
    Made by `Shapes`, one per content, and compared by identity: to hash what is asked costs more than to serve it.
    """

    pool: str
    need: Need
    where: Where
    instance_name: str = ""
    reuse_only: bool = False
    ceiling: Price | None = None
    nodes: int = 1
    lasts: Seconds | None = 0
    ports: tuple[int, ...] = ()
    unpriced: tuple[str, ...] = ()


class Shapes:
    """The shapes of one plan: asked twice for the same, they give the same."""

    def __init__(self) -> None:
        self._made: dict[tuple[object, ...], Requirement] = {}

    def shape(
        self,
        *,
        pool: str,
        need: Need,
        where: Where,
        instance_name: str = "",
        reuse_only: bool = False,
        ceiling: Price | None = None,
        nodes: int = 1,
        lasts: Seconds | None = 0,
        ports: tuple[int, ...] = (),
        unpriced: tuple[str, ...] = (),
    ) -> Requirement:
        key = (pool, need, where, instance_name, reuse_only, ceiling, nodes, lasts, ports, unpriced)
        found = self._made.get(key)
        if found is None:
            found = self._made[key] = Requirement(*key)
        return found


class Alike:
    """Instances of a pool that differ in nothing that a run may ask for, but their names."""

    def __init__(
        self, sample: Instance, *, drain: Override | None, now: int, joins_nodes: bool, owned: bool = False
    ) -> None:
        self.sample, self.owned = sample, owned
        self.joins_nodes = joins_nodes
        self.free: list[Instance] = []
        self.drain, self.now = drain, now

    def fits(self, shape: Requirement) -> bool:
        if shape.nodes > 1 and not self.joins_nodes:
            return False
        if self.drain is not None and crosses(self.drain, now=self.now, lasts=shape.lasts):
            return False
        return fits(shape.need, shape.where, self.sample, cloud=False)


class Stock:
    """Instances that may be given away, cheapest class first. Whoever takes one removes it.

    `owned` are the ids of those that were launched for runs that wait: others get one of them only where `first` is
    asked for it. `ending`: instance id -> names of runs whose jobs have ended by the time that it is free.
    """

    def __init__(
        self,
        draft: Draft,
        instances: Iterable[Instance],
        *,
        owned: Container[str] = (),
        ending: Mapping[str, Collection[str]] = _NOTHING,
    ) -> None:
        self._ending = ending
        self._pools: dict[str, dict[str, list[tuple[int, Alike]]]] = {}
        self._merged: dict[tuple[str, tuple[str, ...]], list[Alike]] = {}
        self._at: dict[tuple[Requirement, bool], int] = {}
        self._gone: set[str] = set()
        self._draft = draft
        self._of: dict[str, tuple[Instance, Alike]] = {}
        for rank, alike in enumerate(_classes(draft, instances, owned=owned)):
            gpu = alike.sample.resources.gpu
            by_gpu = self._pools.setdefault(draft.pool_of(alike.sample), {})
            by_gpu.setdefault(gpu.name.lower() if gpu else "", []).append((rank, alike))
            if alike.owned:
                self._of.update({one.id: (one, alike) for one in alike.free})

    def _classes(self, shape: Requirement) -> list[Alike]:
        """Those of its pool that the asked GPU names leave, cheapest first."""
        by_gpu, need = self._pools.get(shape.pool, {}), shape.need.gpu
        names = tuple(sorted(by_gpu))
        if need is not None and not need.count.holds(0):
            names = tuple(name for name in names if name and (not need.names or name in need.names))
        key = (shape.pool, names)
        if key not in self._merged:
            ranked = sorted((entry for name in names for entry in by_gpu[name]), key=itemgetter(0))
            self._merged[key] = [alike for _, alike in ranked]
        return self._merged[key]

    def first(self, shape: Requirement, *, owned: bool = False) -> Instance | None:
        """The cheapest that fits. What a shape passed over stays passed over: stock only shrinks."""
        classes = self._classes(shape)
        if (named := shape.instance_name) or shape.ports:
            fitting = (alike for alike in classes if (named or alike.owned is owned) and alike.fits(shape))
            left = (each for alike in fitting for each in self._left(alike, shape))
            return next((each for each in left if named in ("", each.name)), None)
        at = self._at.get((shape, owned), 0)
        while at < len(classes):
            found = self._top(classes[at]) if classes[at].owned is owned else None
            if found is not None and classes[at].fits(shape):
                self._at[shape, owned] = at
                return found
            at += 1
        self._at[shape, owned] = at
        return None

    def among(self, ids: Iterable[str], shape: Requirement) -> Instance | None:
        """The first of those instances that is left and fits."""
        for id in ids:
            one, alike = self._of.get(id, (None, None))
            if one is None or alike is None or id in self._gone or self._draft.pool_of(one) != shape.pool:
                continue
            fitting = shape.instance_name in ("", one.name) and alike.fits(shape)
            if fitting and not self._clash(one, shape):
                return one
        return None

    def _top(self, alike: Alike) -> Instance | None:
        while alike.free and alike.free[-1].id in self._gone:
            alike.free.pop()
        return alike.free[-1] if alike.free else None

    def fitting(self, shape: Requirement, *, most: int | None = None, owned: bool = True) -> Iterator[Instance]:
        """Those that fit, cheapest first; at most so many of a class, which are of one region. `owned`: these, too."""
        for alike in self._classes(shape):
            if (owned or not alike.owned) and alike.fits(shape):
                yield from islice(self._left(alike, shape), most)

    def _left(self, alike: Alike, shape: Requirement) -> Iterator[Instance]:
        left = (each for each in reversed(alike.free) if each.id not in self._gone)
        return (each for each in left if not self._clash(each, shape))

    def _clash(self, one: Instance, shape: Requirement) -> bool:
        return bool(clash(self._draft, one, shape.ports, ending=self._ending.get(one.id, ())))

    def take(self, instance: Instance) -> None:
        self._gone.add(instance.id)

    def samples(self, pool: str) -> Iterator[tuple[Instance, int]]:
        """One of each class that has any left, and how many."""
        for _, alike in (entry for entries in self._pools.get(pool, {}).values() for entry in entries):
            count = sum(each.id not in self._gone for each in alike.free)
            top = self._top(alike)
            if top is not None:
                yield top, count


def _classes(draft: Draft, instances: Iterable[Instance], *, owned: Container[str]) -> list[Alike]:
    """Cheapest first; among equals those without a GPU, then the smallest."""
    found: dict[tuple[object, ...], Alike] = {}
    for one in instances:
        drain = draft.own_drains.get(one.id) if draft.own_drains else None
        key = (
            draft.pool_of(one),
            one.backend,
            one.region,
            one.zone,
            one.instance_type,
            one.spot,
            one.price,
            one.resources,
            one.image,
            drain,
            one.id in owned,
        )
        alike = found.get(key)
        if alike is None:
            joins = draft.joins_nodes(one.backend)
            alike = found[key] = Alike(one, drain=drain, now=draft.now, joins_nodes=joins, owned=one.id in owned)
        alike.free.append(one)
    for alike in found.values():
        alike.free.sort(key=lambda each: by_number(each.name), reverse=True)
    return sorted(found.values(), key=lambda alike: _order(alike.sample))


def _order(one: Instance) -> tuple[object, ...]:
    has = one.resources
    return (
        _DEAR if one.price is None else one.price,
        has.gpu.count if has.gpu else 0,
        has.cpus,
        has.memory,
        has.disk,
        one.backend,
        one.region,
        one.zone,
        one.instance_type,
        one.spot,
        len(one.name),
        one.name,
    )


# ---------------------------------------------------------------- what is at hand


def unusable(draft: Draft, instance: Instance) -> str:
    """Why it may be given no work, in a word; "" if it may, as far as health and documents are concerned."""
    if (why := draft.leaving.get(instance.id)) is not None:
        return "drained" if why.startswith((POOL_DRAINED, INSTANCE_DRAINED)) else "leaving"
    if instance.orphan:
        return "owned by nobody"
    if instance.quarantined:
        return "quarantined"
    own = draft.own_drains.get(instance.id) if draft.own_drains else None
    if own is not None and begun(own, now=draft.now):
        return "drained"
    troubled = instance.degraded or instance.disarmed or instance.foreign or instance.unfit
    if troubled and degraded(instance, allow_foreign=_shares(draft, instance)):
        return "degraded"
    if instance.unreachable_since is not None:
        return "unreachable"
    if instance.missing_since is not None:
        return "missing"
    return "in an unknown place" if instance.place in draft.unknown else ""


def _shares(draft: Draft, instance: Instance) -> bool:
    pool = draft.pools.get(draft.pool_of(instance))
    return pool is not None and pool.allow_foreign


def coming(draft: Draft, instance: Instance) -> bool:
    """It will be idle soon: asked for and not ready yet, or a job that nobody needs is still being ended on it."""
    if instance.phase in ("pending", "provisioning"):
        return True
    return bool(instance.stray_jobs) and not draft.collected(instance.stray_jobs)
