"""What a plan can hand out: idle instances, free blocks, and what is being provisioned. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from reconciler.planner.draft import Draft
from reconciler.planner.placement.blocks import Boxes, SharedBox, backfills, machines_of, suffices
from reconciler.planner.placement.fit import fits, other_image
from reconciler.planner.placement.host_ports import clash
from reconciler.planner.placement.idle_pool import Requirement, Stock, coming, unusable
from reconciler.planner.placement.rejection import crossing, passed_by
from reconciler.state.blocks import blocks_of, left_of, shared
from schemas.instance import Instance
from schemas.offer import Offer

Region = tuple[str, str]
"""Backend, and region or network."""


class Lent(NamedTuple):
    """An idle instance that is held for a run: another one may have it that ends before `until`; None: none may."""

    instance: Instance
    until: int | None
    run: str
    """Name of the run that it is held for."""


class Supply:
    """The instances of every pool by what they may be used for. What is taken is gone for the rest of the plan."""

    def __init__(self, draft: Draft) -> None:
        self.draft = draft
        ready: list[Instance] = []
        soon: list[Instance] = []
        self.reserved: dict[str, list[Instance]] = {}
        """Run id -> the instances that were made for it."""
        self.kept_off: dict[str, Counter[str]] = {}
        """Pool -> why its instances are not used -> how many."""
        self.busy: Counter[str] = Counter()
        self.lent: dict[str, Lent] = {}
        """Instance id -> what is held for a run."""
        self.given: set[str] = set()
        """Ids of whole instances that a run has, waits for or holds."""
        self.boxes, self.coming, self.fresh, self.unnamed = Boxes(draft), Boxes(draft), Boxes(draft), Boxes(draft)
        for one in draft.living.values():
            if one.blocks != 1 and (of := shared(one)) > 1:
                self._share(one, of=of)
                continue
            if draft.jobs.get(one.id):
                self.busy[draft.pool_of(one)] += 1
                continue
            hindrance = unusable(draft, one)
            if hindrance or one.reserved_for:
                self.keep_off(draft.pool_of(one), hindrance or "reserved")
            if hindrance:
                continue
            if one.degraded:
                one = left_of(one)
            if one.reserved_for:
                self.reserved.setdefault(one.reserved_for, []).append(one)
            else:
                if one.blocks != 1:  # its host has not named its GPUs: given away whole, or waited for
                    self.unnamed.add(SharedBox(one, of=blocks_of(one.blocks, one.resources)), pool=draft.pool_of(one))
                (soon if coming(draft, one) else ready).append(one)
        self.idle, self.soon = Stock(draft, ready), Stock(draft, soon)

    def _share(self, one: Instance, *, of: int) -> None:
        """A box takes runs while any of its blocks is free; one kept for a multi-node run is that run's."""
        draft = self.draft
        box, pool = SharedBox(one, of=of, jobs=draft.jobs.get(one.id, ())), draft.pool_of(one)
        hindrance = unusable(draft, one)
        if hindrance or one.reserved_for or not box.free:
            if hindrance or box.free:
                self.keep_off(pool, hindrance or "reserved")
            else:
                self.busy[pool] += 1
            if one.reserved_for and not hindrance:
                self.reserved.setdefault(one.reserved_for, []).append(one)
            if not hindrance:  # nobody else looks at a reserved one; a full one is looked at by who may be held for
                (self.coming if coming(draft, one) else self.boxes).add(box, pool="" if one.reserved_for else pool)
            return
        (self.coming if coming(draft, one) else self.boxes).add(box, pool=pool)

    def keep_off(self, pool: str, why: str) -> None:
        self.kept_off.setdefault(pool, Counter())[why] += 1

    def first(self, shape: Requirement) -> Instance | None:
        """The cheapest whole idle instance that fits, else one that is held and free for long enough."""
        found = self.idle.first(shape)
        return found if found is not None else next(self._lendable(shape), None)

    def _lendable(self, shape: Requirement) -> Iterator[Instance]:
        for one, until, _ in self.lent.values() if self.lent else ():
            if backfills(self.draft, shape.lasts, until=until) and suits(self.draft, one, shape):
                yield one

    def by_region(self, shape: Requirement, *, mine: list[Instance]) -> dict[Region, list[Instance]]:
        """What a run of several nodes could have, its own first, then idle, then coming, cheapest first."""
        bound = self.network(mine[0]) if mine else None
        found: dict[Region, list[Instance]] = {}
        mine = [one for one in mine if not crossing(self.draft, one, shape) and self._has_room(one, shape)]
        ours = sorted(mine, key=lambda one: (coming(self.draft, one), len(one.name), one.name))
        most = 2 * shape.nodes
        now, later = self.idle.fitting(shape, most=most), self.soon.fitting(shape, most=most)
        shares, near = machines_of(self.boxes, shape), machines_of(self.coming, shape)
        hosts: set[tuple[Region, object]] = set()
        for one in (*ours, *now, *shares, *self._lendable(shape), *later, *near):
            region = self.network(one)
            if (bound is not None and region != bound) or self._same_host(one, shape, hosts):
                continue
            nodes = found.setdefault(region, [])
            if len(nodes) < most:
                nodes.append(one)
        return found

    def _same_host(self, one: Instance, shape: Requirement, hosts: set[tuple[Region, object]]) -> bool:
        """Two nodes of a run that listens on a port cannot be shares of one machine."""
        if not shape.ports or self.draft.is_cloud(one.backend) or one.host is not None:
            return False
        seen = (self.network(one), one.place) in hosts
        hosts.add((self.network(one), one.place))
        return seen

    def network(self, one: Instance) -> Region:
        """Where the nodes of a run must all be: a person's hosts in one network, all others in one region."""
        named = bool(one.network) and not self.draft.is_cloud(one.backend)
        return one.backend, f"{one.region} network {one.network}" if named else one.region

    def _has_room(self, one: Instance, shape: Requirement) -> bool:
        boxes = self.boxes if self.boxes.of(one.id) else self.coming
        box = boxes.of(one.id)
        return box is None or bool(boxes.room(box, shape))

    def take(self, instances: list[Instance]) -> None:
        """They are given to a run."""
        self.given.update(one.id for one in instances)
        for one in instances:
            self.idle.take(one)
            self.soon.take(one)
            self.lent.pop(one.id, None)

    def ordered(self, offer: Offer, shape: Requirement) -> None:
        """What is left of a machine just ordered for that shape serves the next runs."""
        blocks = self.draft.pools[shape.pool].blocks
        if blocks != 1 and (of := blocks_of(blocks, offer.resources)) > 1:
            box = SharedBox(offer, of=of)
            box.take(self.fresh.room(box, shape))
            box.ports.update(shape.ports)
            self.fresh.add(box, pool=shape.pool)

    def passed_by(self, shape: Requirement) -> str:
        """Why nothing that is there fits, with numbers."""
        others = Counter(self.kept_off.get(shape.pool, {}))
        others["busy"] = self.busy[shape.pool]
        samples, boxes = self.idle.samples(shape.pool), self.boxes.of_pool(shape.pool)
        return passed_by(self.draft, shape, samples=samples, boxes=boxes, others=others)

    def busy_fits(self, shape: Requirement) -> bool:
        """Whether something that is busy now would do."""
        draft = self.draft
        busy = (draft.living[id] for id in draft.members[shape.pool] if draft.jobs.get(id))
        return any(
            not other_image(shape.need, one)
            and not suffices(shape.need, left_of(one).resources, of=shared(one), cloud=False)
            for one in busy
        )

    def box_of(self, one: Instance) -> SharedBox | None:
        """The blocks of a shared instance; None where it is given away whole."""
        return self.boxes.of(one.id) or self.coming.of(one.id)


def suits(draft: Draft, one: Instance, shape: Requirement) -> bool:
    """Whether the run could have that instance whole, were it idle."""
    if draft.pool_of(one) != shape.pool or shape.instance_name not in ("", one.name):
        return False
    if shape.nodes > 1 and not draft.joins_nodes(one.backend):
        return False
    if crossing(draft, one, shape) or clash(draft, one, shape.ports):
        return False
    return fits(shape.need, shape.where, left_of(one), cloud=False)
