"""What pending runs may be given: idle and shared instances, those that are coming, those that free themselves. Pure.

Whoever takes something removes it, for all runs that come later.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from functools import cached_property
from itertools import chain
from typing import NamedTuple

from reconciler.planner.draft import Draft
from reconciler.planner.placement.blocks import Boxes, SharedBox, backfills, machines_of
from reconciler.planner.placement.fit import fits
from reconciler.planner.placement.freeing import Freeing
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


class AtHand:
    """`idle` and `boxes` can be used now, `soon` and `coming` when they are ready, `fresh` are ordered by this plan.

    `unnamed` boxes wait for the names of their GPUs. `reserved`: run id -> what is kept for it alone. `owned`: run id
    -> ids of those that were launched for it, while it waits. `kept_off` and `busy` count, by pool, the others.
    `lent`: instance id -> what is held for a run. `given`: ids of whole ones that a run has, waits for or holds.
    """

    def __init__(self, draft: Draft, *, waiting: Collection[str]) -> None:
        self.draft = draft
        self.reserved: dict[str, list[Instance]] = {}
        self.kept_off: dict[str, Counter[str]] = {}
        self.busy: Counter[str] = Counter()
        self.lent: dict[str, Lent] = {}
        self.given: set[str] = set()
        self.boxes, self.coming, self.fresh, self.unnamed = Boxes(draft), Boxes(draft), Boxes(draft), Boxes(draft)
        self.owned: dict[str, list[str]] = {}
        for one in draft.living.values():
            for run in one.made_for:
                if run in waiting:
                    self.owned.setdefault(run, []).append(one.id)
        self._owned = frozenset(chain.from_iterable(self.owned.values()))
        self._busy: list[Instance] = []
        ready: list[Instance] = []
        soon: list[Instance] = []
        for one in draft.living.values():
            if one.blocks != 1 and (of := shared(one)) > 1:
                self._share(one, of=of)
            elif draft.jobs.get(one.id):
                self.busy[draft.pool_of(one)] += 1
                self._busy.append(one)
            else:
                self._whole(one, ready=ready, soon=soon)
        self.idle, self.soon = Stock(draft, ready, owned=self._owned), Stock(draft, soon, owned=self._owned)

    def _whole(self, one: Instance, *, ready: list[Instance], soon: list[Instance]) -> None:
        draft = self.draft
        hindrance = unusable(draft, one)
        if hindrance or one.reserved_for:
            self.keep_off(draft.pool_of(one), hindrance or "reserved")
        if hindrance:
            return
        if one.degraded:
            one = left_of(one)
        if one.reserved_for:
            self.reserved.setdefault(one.reserved_for, []).append(one)
            return
        if one.blocks != 1:  # its host has not named its GPUs: given away whole, or waited for
            box = SharedBox(one, of=blocks_of(one.blocks, one.resources), owned=one.id in self._owned)
            self.unnamed.add(box, pool=draft.pool_of(one))
        (soon if coming(draft, one) else ready).append(one)

    def _share(self, one: Instance, *, of: int) -> None:
        """A box takes runs while any of its blocks is free; one kept for a gang is that gang's."""
        draft = self.draft
        box = SharedBox(one, of=of, jobs=draft.jobs.get(one.id, ()), owned=one.id in self._owned)
        pool, hindrance = draft.pool_of(one), unusable(draft, one)
        if draft.jobs.get(one.id):
            self._busy.append(one)
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

    @cached_property
    def freeing(self) -> Freeing:
        """What is busy and will be free. Looked through only where something is to wait."""
        return Freeing(self.draft, self._busy, boxes=self.boxes)

    def fitting(self, shape: Requirement, *, most: int, owned: bool) -> Iterable[Instance]:
        """What nodes of a run may have: idle ones, held ones that it gives back in time, then those that are coming.

        Cheapest first. `owned`: also what was launched for others that wait.
        """
        now, later = (stock.fitting(shape, most=most, owned=owned) for stock in (self.idle, self.soon))
        boxes, coming = (machines_of(boxes, shape, owned=owned) for boxes in (self.boxes, self.coming))
        return (*now, *boxes, *self._lendable(shape), *later, *coming)

    def first(self, shape: Requirement) -> Instance | None:
        """The cheapest whole idle instance that fits, else one that is held and free for long enough."""
        found = self.idle.first(shape)
        return found if found is not None else next(self._lendable(shape), None)

    def _lendable(self, shape: Requirement) -> Iterator[Instance]:
        for one, until, _ in self.lent.values() if self.lent else ():
            if backfills(self.draft, shape.lasts, until=until) and suits(self.draft, one, shape):
                yield one

    def network(self, one: Instance) -> Region:
        """Where the nodes of a run must all be: a person's hosts in one network, all others in one region."""
        named = bool(one.network) and not self.draft.is_cloud(one.backend)
        return one.backend, f"{one.region} network {one.network}" if named else one.region

    def keep_off(self, pool: str, why: str) -> None:
        """One more of the pool is not used, for that reason."""
        self.kept_off.setdefault(pool, Counter())[why] += 1

    def passed_by(self, shape: Requirement) -> str:
        """Why nothing that is there fits, with numbers."""
        others = Counter(self.kept_off.get(shape.pool, {}))
        others["busy"] = self.busy[shape.pool]
        samples, boxes = self.idle.samples(shape.pool), self.boxes.of_pool(shape.pool)
        return passed_by(self.draft, shape, samples=samples, boxes=boxes, others=others)

    def owned_by_others(self, one: Instance, *, run: str) -> bool:
        """It was launched for other runs that wait."""
        return one.id in self._owned and one.id not in self.owned.get(run, ())

    def box_of(self, one: Instance) -> SharedBox | None:
        """The blocks of a shared instance; None where it is given away whole."""
        return self.boxes.of(one.id) or self.coming.of(one.id)

    def has_room(self, one: Instance, shape: Requirement) -> bool:
        boxes = self.boxes if self.boxes.of(one.id) else self.coming
        box = boxes.of(one.id)
        return box is None or bool(boxes.room(box, shape))

    def take(self, instances: Iterable[Instance]) -> None:
        """They are given to a run, which has them, waits for them or holds them."""
        for one in instances:
            self.given.add(one.id)
            self.idle.take(one)
            self.soon.take(one)
            self.lent.pop(one.id, None)

    def ordered(self, shape: Requirement, offer: Offer, *, blocks: int, runs: list[str]) -> None:
        """A machine of `blocks` was ordered for a run, which takes its part. `runs` are those that are to share it."""
        if (of := blocks_of(blocks, offer.resources)) > 1:
            box = SharedBox(offer, of=of, runs=runs)
            box.take(self.fresh.room(box, shape))
            box.ports.update(shape.ports)
            self.fresh.add(box, pool=shape.pool)

    def gave(self, one: Instance, *, blocks: int) -> None:
        """So many blocks of it were assigned."""
        if "freeing" in self.__dict__:
            self.freeing.taken(one.id, blocks=blocks)

    def keep(self, one: Instance) -> None:
        """What is free of it, and will be, is for nobody else in this plan."""
        if "freeing" in self.__dict__:
            self.freeing.take(one)
        if (box := self.box_of(one)) is not None:
            box.free = box.held = 0


def suits(draft: Draft, one: Instance, shape: Requirement) -> bool:
    """Whether the run could have that instance whole, were it idle."""
    if draft.pool_of(one) != shape.pool or shape.instance_name not in ("", one.name):
        return False
    if shape.nodes > 1 and not draft.joins_nodes(one.backend):
        return False
    if crossing(draft, one, shape) or clash(draft, one, shape.ports):
        return False
    return fits(shape.need, shape.where, left_of(one), cloud=False)
