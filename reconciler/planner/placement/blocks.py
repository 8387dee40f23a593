"""Place runs on shared instances, in blocks of equal size. Pure.

`blocks` of an instance is how many; 0 (`auto`) is one for each of its GPUs. A run takes the fewest blocks that suffice
for it: so many of them have floor(amount x taken / all) of each resource, so that all of them together never have
more than there is. GPUs are handed out by UUID; where these are not known yet, nothing is shared.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from reconciler.planner.draft import Draft
from reconciler.planner.placement.fit import misfit, other_image, refusal, shortage
from reconciler.planner.placement.host_ports import clash
from reconciler.planner.placement.idle_pool import Requirement
from reconciler.state.blocks import blocks_of, part, part_price, shared, used
from reconciler.state.drains import crosses
from reconciler.state.status import lost_gpus
from schemas.base import Price, Seconds
from schemas.instance import Instance
from schemas.offer import Offer
from schemas.resources import Need, Resources, Where
from schemas.run import Job


def share_of_offer(need: Need, offer: Offer, *, blocks: int) -> Offer:
    """The offer at what a run's share of it costs."""
    of = blocks_of(blocks, offer.resources)
    return replace(offer, price=part_price(offer.price, blocks=fewest(need, offer.resources, of=of) or of, of=of))


def suffices(need: Need, resources: Resources, *, of: int, cloud: bool) -> str:
    """What a machine has too little of for the need, however many of its blocks; "" where some number suffices."""
    if of == 1:
        return shortage(need, resources, cloud=cloud)
    whole = shortage(need, resources, cloud=cloud)
    if fewest(need, resources, of=of):
        # What nobody asked for is a rule about machines, not about shares of them.
        return shortage(Need(), resources, cloud=cloud)
    return whole or "blocks"


def fewest(need: Need, resources: Resources, *, of: int) -> int:
    """The fewest blocks that suffice for the need; 0 where none do."""
    numbers = range(1, of + 1)
    return next((n for n in numbers if not shortage(need, part(resources, blocks=n, of=of), cloud=False)), 0)


def share_misfit(need: Need, where: Where, machine: Instance) -> str:
    """Say with numbers why no number of the machine's blocks suffices, by the rule that decides; "" if one does.

    Whether so many are free is another question.
    """
    of = shared(machine)
    blocks = fewest(need, machine.resources, of=of)
    if not blocks:
        return misfit(need, where, machine, cloud=False)
    own, price = part(machine.resources, blocks=blocks, of=of), part_price(machine.price, blocks=blocks, of=of)
    return misfit(need, where, replace(machine, resources=own, price=price), cloud=False)


def least(shape: Requirement, machine: Instance | Offer, *, of: int) -> int:
    """The fewest blocks that suffice for the shape, at a price that it accepts; 0 where none do."""
    blocks = fewest(shape.need, machine.resources, of=of)
    priced = replace(machine, price=part_price(machine.price, blocks=blocks, of=of)) if blocks else machine
    return blocks if not refusal(shape.where, priced) and not other_image(shape.need, machine) else 0


class SharedBox:
    """A shared instance (or one that was just ordered) with what is free of it.

    `owned`: it was launched for runs that wait. `runs` are those that are to share one just ordered: id and name of
    each in turn.
    """

    def __init__(
        self,
        machine: Instance | Offer,
        *,
        of: int,
        jobs: Sequence[Job] = (),
        owned: bool = False,
        runs: list[str] | None = None,
    ) -> None:
        self.machine, self.of, self.owned, self.runs = machine, of, owned, [] if runs is None else runs
        self.free = of - used(jobs, of=of)
        self.held = 0  # free blocks that only a run which ends before `held_until` may have
        self.held_until: int | None = None
        self.awaited = 0  # blocks of its jobs that a run waits for
        self.ports: set[int] = set()  # of runs that are to come here
        self.ending: Collection[str] = ()  # names of runs whose jobs here have ended by then
        gone = {gpu for job in jobs for gpu in job.gpus}
        if isinstance(machine, Instance):
            gone |= lost_gpus(machine)
        gpu = machine.resources.gpu
        self.uuids = [uuid for uuid in (gpu.uuids if gpu else ()) if uuid not in gone]
        # A block for which there are not GPUs enough is withdrawn; where they have no names yet, none is lost.
        while gpu is not None and gpu.uuids and gpu.count * self.free // of > len(self.uuids):
            self.free -= 1

    def take(self, blocks: int) -> tuple[str, ...]:
        """The UUIDs of the GPUs that come with so many blocks."""
        own = part(self.machine.resources, blocks=blocks, of=self.of).gpu
        lent = max(0, blocks - self.free)
        self.free, self.held = self.free - blocks + lent, self.held - lent
        given = tuple(self.uuids[: own.count if own else 0])
        del self.uuids[: len(given)]
        return given


class Choice(NamedTuple):
    """A box and how many of its blocks a run would take."""

    box: SharedBox
    blocks: int
    price: Price | None


class Boxes:
    """Shared machines by pool. A run goes where its share is cheapest, and among equals into the fullest box."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._by_pool: dict[str, list[SharedBox]] = {}
        self._least: dict[tuple[Requirement, object], int] = {}
        self._by_id: dict[str, SharedBox] = {}

    def add(self, box: SharedBox, *, pool: str) -> None:
        self._by_pool.setdefault(pool, []).append(box)
        if isinstance(box.machine, Instance):
            self._by_id[box.machine.id] = box

    def of(self, instance: str) -> SharedBox | None:
        return self._by_id.get(instance)

    def of_pool(self, pool: str) -> Sequence[SharedBox]:
        """Those with anything free that is not held for another run."""
        return [box for box in self._by_pool.get(pool, ()) if box.free]

    def first(self, shape: Requirement, *, owned: bool = False) -> Choice | None:
        if shape.pool not in self._by_pool:
            return None
        return min((one for one in self.fitting(shape) if one.box.owned is owned), key=_order, default=None)

    def among(self, ids: Iterable[str], shape: Requirement) -> Choice | None:
        """The first of those instances that has room."""
        found = ((box, self.room(box, shape)) for id in ids if (box := self._by_id.get(id)) is not None)
        return next((self._choice(box, blocks) for box, blocks in found if blocks), None)

    def _choice(self, box: SharedBox, blocks: int) -> Choice:
        return Choice(box, blocks, part_price(box.machine.price, blocks=blocks, of=box.of))

    def ranked(self, shape: Requirement) -> list[Choice]:
        """Those with room, as a run would choose among them."""
        return sorted(self.fitting(shape), key=_order)

    def fitting(self, shape: Requirement) -> Iterator[Choice]:
        """Those with room for the shape, in no order."""
        for box in self._by_pool.get(shape.pool, ()):
            blocks = self.room(box, shape) if box.free + box.held else 0
            if blocks:
                yield self._choice(box, blocks)

    def room(self, box: SharedBox, shape: Requirement) -> int:
        """How many blocks the shape would take of it; 0 where it does not fit in what is free."""
        machine = box.machine
        if shape.nodes > 1 and not self._draft.joins_nodes(machine.backend):
            return 0
        if clash(self._draft, machine, shape.ports, ending=box.ending) or not box.ports.isdisjoint(shape.ports):
            return 0
        if isinstance(machine, Instance):
            if shape.instance_name and shape.instance_name != machine.name:
                return 0
            drain = self._draft.own_drains.get(machine.id)
            if drain is not None and crosses(drain, now=self._draft.now, lasts=shape.lasts):
                return 0
        elif shape.instance_name or shape.reuse_only:
            return 0
        key = (shape, _kind(box))
        if key not in self._least:
            self._least[key] = least(shape, machine, of=box.of)
        blocks = self._least[key]
        return blocks if blocks <= box.free + self._lent(box, shape) else 0

    def _lent(self, box: SharedBox, shape: Requirement) -> int:
        """Blocks held for another run that this one gives back in time."""
        return box.held if box.held and backfills(self._draft, shape.lasts, until=box.held_until) else 0


MARGIN = 60
"""Seconds between the latest end of a run and the start of the run whose machine it has meanwhile."""


def backfills(draft: Draft, lasts: Seconds | None, *, until: int | None, boot: Seconds = 0) -> bool:
    """Whether a run that lasts so long at most ends before `until`; None is a time that nobody knows."""
    return lasts is not None and until is not None and draft.now + boot + lasts + MARGIN <= until


def _kind(box: SharedBox) -> object:
    """All that a shape may ask of it, but which GPUs these are."""
    one = box.machine
    gpu = replace(one.resources.gpu, uuids=()) if one.resources.gpu else None
    return (
        replace(one.resources, gpu=gpu),
        one.backend,
        one.region,
        one.zone,
        one.instance_type,
        one.spot,
        one.price,
        box.of,
    )


_DEAR = Price("Infinity")


def _order(choice: Choice) -> tuple[object, ...]:
    machine = choice.box.machine
    name = machine.name if isinstance(machine, Instance) else ""
    price = _DEAR if choice.price is None else choice.price
    return (price, choice.box.free - choice.blocks, len(name), name)


def machines_of(boxes: Boxes, shape: Requirement, *, owned: bool = True) -> list[Instance]:
    """Those with room, as a run would choose among them. `owned`: also those that were launched for others."""
    found = (choice.box for choice in boxes.ranked(shape))
    return [box.machine for box in found if isinstance(box.machine, Instance) and (owned or not box.owned)]


def cheaper_than(whole: Instance | None, choice: Choice) -> bool:
    return whole is not None and (whole.price or Price(0)) < (choice.price or Price(0))
