"""What pending runs may be given: idle and shared instances, those that are coming, those that free themselves. Pure.

Whoever takes something removes it, for all runs that come later.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from functools import cached_property
from itertools import chain

from reconciler.planner.draft import Draft
from reconciler.planner.placement.blocks import Boxes, SharedBox, machines_of
from reconciler.planner.placement.freeing import Freeing
from reconciler.planner.placement.idle_pool import Requirement, Stock, coming, unusable
from reconciler.state.blocks import blocks_of, left_of, shared
from schemas.instance import Instance
from schemas.offer import Offer


class AtHand:
    """`idle` and `boxes` can be used now, `soon` and `coming` when they are ready, `fresh` are ordered by this plan.

    `unnamed` boxes wait for the names of their GPUs. `reserved`: run id -> what is kept for it alone. `owned`: run id
    -> ids of those that were launched for it, while it waits. `kept_off` and `busy` count, by pool, the others.
    """

    def __init__(self, draft: Draft, *, waiting: Collection[str]) -> None:
        self.draft = draft
        self.reserved: dict[str, list[Instance]] = {}
        self.kept_off: dict[str, Counter[str]] = {}
        self.busy: Counter[str] = Counter()
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
            self.kept_off.setdefault(draft.pool_of(one), Counter())[hindrance or "reserved"] += 1
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
                self.kept_off.setdefault(pool, Counter())[hindrance or "reserved"] += 1
            else:
                self.busy[pool] += 1
            if one.reserved_for and not hindrance:
                self.reserved.setdefault(one.reserved_for, []).append(one)
                (self.coming if coming(draft, one) else self.boxes).add(box, pool="")  # nobody else looks there
            return
        (self.coming if coming(draft, one) else self.boxes).add(box, pool=pool)

    @cached_property
    def freeing(self) -> Freeing:
        """What is busy and will be free. Looked through only where something is to wait."""
        return Freeing(self.draft, self._busy, boxes=self.boxes)

    def fitting(self, shape: Requirement, *, most: int, owned: bool) -> Iterable[Instance]:
        """What nodes of a run may have: idle ones, then those that are coming, cheapest first.

        `owned`: also what was launched for others that wait.
        """
        now, later = (stock.fitting(shape, most=most, owned=owned) for stock in (self.idle, self.soon))
        boxes, coming = (machines_of(boxes, shape, owned=owned) for boxes in (self.boxes, self.coming))
        return (*now, *boxes, *later, *coming)

    def has_room(self, one: Instance, shape: Requirement) -> bool:
        boxes = self.boxes if self.boxes.of(one.id) else self.coming
        box = boxes.of(one.id)
        return box is None or bool(boxes.room(box, shape))

    def take(self, instances: Iterable[Instance]) -> None:
        for one in instances:
            self.idle.take(one)
            self.soon.take(one)

    def ordered(self, shape: Requirement, offer: Offer, *, blocks: int, runs: list[str]) -> None:
        """A machine of `blocks` was ordered for a run, which takes its part. `runs` are those that are to share it."""
        if (of := blocks_of(blocks, offer.resources)) > 1:
            box = SharedBox(offer, of=of, runs=runs)
            box.take(self.fresh.room(box, shape))
            self.fresh.add(box, pool=shape.pool)

    def gave(self, one: Instance, *, blocks: int) -> None:
        """So many blocks of it were assigned."""
        if "freeing" in self.__dict__:
            self.freeing.taken(one.id, blocks=blocks)

    def keep(self, one: Instance) -> None:
        """What is free of it, and will be, is for nobody else in this plan."""
        if "freeing" in self.__dict__:
            self.freeing.take(one)
        if (box := self.boxes.of(one.id) or self.coming.of(one.id)) is not None:
            box.free = 0
