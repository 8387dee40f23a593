"""Assign pending runs to idle instances, wait for instances that are being provisioned, or request new ones. Pure.

All nodes of a run or none; an idle instance before a new one; a reserved one for its run alone.
Each run is served whole before the next, so that nothing of lower rank takes what a higher one could use.
"""

from __future__ import annotations

from collections import Counter

from reconciler.planner.draft import Draft
from reconciler.planner.placement.blocks import Boxes, SharedBox, cheaper_than, machines_of
from reconciler.planner.placement.fit import excluded
from reconciler.planner.placement.idle_pool import Requirement, Stock, coming, unusable
from reconciler.planner.placement.rejection import crossing, passed_by, pool_crossing
from reconciler.planner.placement.reservations import release
from reconciler.planner.rules.scale_up import RESERVED, Growth, grow_for, grow_gang, shape_of
from reconciler.planner.rules.unserved_runs import unserved
from reconciler.planner.run_queue import Demand, next_number, remember, waiting
from reconciler.state.blocks import blocks_of, left_of, shared
from reconciler.state.master_port import master_port
from reconciler.text.format import by_number, few
from schemas.base import Price
from schemas.instance import Instance
from schemas.plan import Assign
from schemas.run import Run

Region = tuple[str, str]


class Server:
    """Serves demands in order from what is idle, what is coming and what may be bought."""

    def __init__(self, draft: Draft, growth: Growth) -> None:
        self.draft, self.growth = draft, growth
        ready: list[Instance] = []
        soon: list[Instance] = []
        self.reserved: dict[str, list[Instance]] = {}
        self.kept_off: dict[str, Counter[str]] = {}
        self.busy: Counter[str] = Counter()
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
                self.kept_off.setdefault(draft.pool_of(one), Counter())[hindrance or "reserved"] += 1
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
        self._refused: dict[Requirement, str] = {}

    def _share(self, one: Instance, *, of: int) -> None:
        """A box takes runs while any of its blocks is free; one kept for a gang is that gang's."""
        draft = self.draft
        box, pool = SharedBox(one, of=of, jobs=draft.jobs.get(one.id, ())), draft.pool_of(one)
        hindrance = unusable(draft, one)
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

    def serve(self, demand: Demand) -> None:
        run = demand.run
        shape = shape_of(self.growth, run)
        if shape.pool in self.draft.closed:
            self._unserved(run, self.draft.closed[shape.pool])
        elif why := pool_crossing(self.draft, run, shape) or excluded(self.draft.pools[shape.pool], shape.need):
            self._unserved(run, why)
        elif shape.nodes > 1:
            self._gang(demand, shape)
        else:
            self._single(demand, shape)

    # ------------------------------------------------------------ one node

    def _single(self, demand: Demand, shape: Requirement) -> None:
        found = self.idle.first(shape)
        choice = self.boxes.first(shape)
        if choice is not None and isinstance(choice.box.machine, Instance) and not cheaper_than(found, choice):
            self._assign(demand, [choice.box.machine], shape=shape)
            return
        if found is not None:
            self.idle.take(found)
            self._assign(demand, [found], shape=shape)
            return
        awaited = self.soon.first(shape)
        if awaited is not None:
            self.soon.take(awaited)
            self._waits(demand.run, f"waits for {awaited.name}")
            return
        if self._waits_for_a_share(demand.run, shape) or self._backs_off(demand.run, shape):
            return
        why = self._refused.get(shape) or grow_for(self.growth, demand.run, shape)
        if why:
            if shape not in self._refused:
                self._refused[shape] = why = f"{self._passed_by(shape)}; {why}"
            self._unserved(demand.run, why, shape=shape)
        else:
            self._ordered(shape)
            self._waits(demand.run, "waits for a new instance")

    def _backs_off(self, run: Run, shape: Requirement) -> bool:
        """It waits for the next try, after machines that were never ready; without a retry it fails with them."""
        pool = self.draft.pools[shape.pool]
        why = "" if shape.reuse_only or shape.instance_name else self.growth.backing_off(pool, since=run.submitted_at)
        if why:
            unserved(self.draft, run, why, shape=shape, failed=True)
        return bool(why)

    def _waits_for_a_share(self, run: Run, shape: Requirement) -> bool:
        """Of a box that comes, that another run of this plan has ordered, or whose GPUs are to be named yet."""
        choice, until = self.coming.first(shape) or self.fresh.first(shape), ""
        if choice is None:
            choice, until = self.unnamed.first(shape), ", whose host has not named its GPUs yet"
        if choice is None:
            return False
        machine = choice.box.machine
        choice.box.take(choice.blocks)
        self._waits(run, f"waits for {machine.name if isinstance(machine, Instance) else 'a new instance'}{until}")
        return True

    def _ordered(self, shape: Requirement) -> None:
        """What is left of a machine just ordered serves the next runs."""
        blocks, offer = self.draft.pools[shape.pool].blocks, self.growth.newest
        if blocks != 1 and offer is not None and (of := blocks_of(blocks, offer.resources)) > 1:
            box = SharedBox(offer, of=of)
            box.take(self.fresh.room(box, shape))
            self.fresh.add(box, pool=shape.pool)

    def _passed_by(self, shape: Requirement) -> str:
        others = Counter(self.kept_off.get(shape.pool, {}))
        others["busy"] = self.busy[shape.pool]
        return passed_by(
            self.draft,
            shape,
            samples=self.idle.samples(shape.pool),
            boxes=self.boxes.of_pool(shape.pool),
            others=others,
        )

    def _assign(self, demand: Demand, instances: list[Instance], *, shape: Requirement) -> None:
        run, draft = demand.run, self.draft
        number = next_number(draft, run, replica=demand.replica)
        attempt = f"{run.id}-{demand.replica}-{number}"
        port = master_port(attempt, taken=draft.ports)
        draft.ports.add(port)
        for instance in instances:
            draft.taken[instance.id] = run.id
        verb = _verb(len(instances), shared=any(self.boxes.of(one.id) for one in instances))
        given = [self._hand_out(instance, shape) for instance in instances]
        names = few(instance.name for instance in instances)
        why = f"{names} {verb} and fits" if len(instances) == 1 else f"all {len(instances)} nodes {verb}: {names}"
        draft.actions.append(
            Assign(
                run=run.id,
                name=run.spec.name,
                attempt=attempt,
                number=number,
                replica=demand.replica,
                pool=draft.pool_name(run.spec.pool),
                instances=tuple(instance.id for instance in instances),
                gpus=tuple(gpus for _, gpus in given),
                blocks=tuple(blocks for blocks, _ in given) if any(blocks != 1 for blocks, _ in given) else (),
                port=port,
                why=why,
            )
        )

    def _hand_out(self, one: Instance, shape: Requirement) -> tuple[int, tuple[str, ...]]:
        """The blocks and GPUs that the run gets of it; they are taken."""
        box = self.boxes.of(one.id)
        if box is None:
            return 1, one.resources.gpu.uuids if one.resources.gpu else ()
        blocks = self.boxes.room(box, shape)
        return blocks, box.take(blocks)

    # ------------------------------------------------------------ all nodes or none

    def _gang(self, demand: Demand, shape: Requirement) -> None:
        run = demand.run
        mine = self.reserved.get(run.id, [])
        at_hand = self._by_region(shape, mine=mine)
        whole = {
            region: [one for one in found if not coming(self.draft, one)][: shape.nodes]
            for region, found in at_hand.items()
        }
        complete = [found for found in whole.values() if len(found) == shape.nodes]
        if complete:
            cheapest = min(complete, key=lambda found: sum(one.price or Price(0) for one in found))
            self._take(cheapest)
            self._assign(demand, sorted(cheapest, key=lambda one: by_number(one.name)), shape=shape)
            return
        enough = [found[: shape.nodes] for found in at_hand.values() if len(found) >= shape.nodes]
        if enough:
            self._reserve(run, enough[0])
            awaited = sum(coming(self.draft, one) for one in enough[0])
            self._waits(run, f"waits for {awaited} of its {shape.nodes} nodes")
            return
        self._grow_gang(run, shape, at_hand=at_hand, mine=mine)

    def _by_region(self, shape: Requirement, *, mine: list[Instance]) -> dict[Region, list[Instance]]:
        """What the gang could have, its own first, then idle, then coming, cheapest first."""
        bound = self._network(mine[0]) if mine else None
        found: dict[Region, list[Instance]] = {}
        mine = [one for one in mine if not crossing(self.draft, one, shape) and self._has_room(one, shape)]
        ours = sorted(mine, key=lambda one: (coming(self.draft, one), len(one.name), one.name))
        most = 2 * shape.nodes
        now, later = self.idle.fitting(shape, most=most), self.soon.fitting(shape, most=most)
        for one in (*ours, *now, *machines_of(self.boxes, shape), *later, *machines_of(self.coming, shape)):
            region = self._network(one)
            if bound is None or region == bound:
                nodes = found.setdefault(region, [])
                if len(nodes) < most:
                    nodes.append(one)
        return found

    def _grow_gang(
        self, run: Run, shape: Requirement, *, at_hand: dict[Region, list[Instance]], mine: list[Instance]
    ) -> None:
        if self._backs_off(run, shape):
            return
        if shape in self._refused and not mine:
            self._unserved(run, self._refused[shape], shape=shape)
            return
        have = {region: len(found) for region, found in at_hand.items()}
        only = self._network(mine[0]) if mine else None
        why, region = grow_gang(self.growth, run, shape, have=have, only=only)
        if region is None:
            most = max(have.values(), default=0)
            why = f"{most} of {shape.nodes} nodes at hand in one region; {why}"
            if not mine:
                self._refused[shape] = why
            self._unserved(run, why, shape=shape)
            return
        self._reserve(run, at_hand.get(region, []))
        self._waits(run, f"waits for {shape.nodes - have.get(region, 0)} of its {shape.nodes} nodes")

    def _network(self, one: Instance) -> Region:
        """Where the nodes of a gang must all be: a person's hosts in one network, all others in one region."""
        named = bool(one.network) and not self.draft.is_cloud(one.backend)
        return one.backend, f"{one.region} network {one.network}" if named else one.region

    def _has_room(self, one: Instance, shape: Requirement) -> bool:
        boxes = self.boxes if self.boxes.of(one.id) else self.coming
        box = boxes.of(one.id)
        return box is None or bool(boxes.room(box, shape))

    def _take(self, instances: list[Instance]) -> None:
        for one in instances:
            self.idle.take(one)
            self.soon.take(one)

    def _reserve(self, run: Run, instances: list[Instance]) -> None:
        """Until a time, so that two gangs that each hold a half do not wait for each other for ever."""
        self._take(instances)
        for one in instances:
            if (box := self.boxes.of(one.id) or self.coming.of(one.id)) is not None:
                box.free = 0  # for the others of this plan
            if one.reserved_for != run.id:
                self.draft.update_instance(
                    one,
                    why=f"reserved for run {run.spec.name}",
                    quiet=True,
                    reserved_for=run.id,
                    reserved_until=self.draft.now + RESERVED,
                )

    # ------------------------------------------------------------ those that wait

    def _waits(self, run: Run, why: str) -> None:
        remember(self.draft, run, why)

    def _unserved(self, run: Run, why: str, *, shape: Requirement | None = None) -> None:
        unserved(self.draft, run, why, shape=shape)


def serve(draft: Draft, growth: Growth) -> None:
    """Every waiting run, in order."""
    release(draft)
    server = Server(draft, growth)
    for demand in waiting(draft):
        server.serve(demand)


def _verb(nodes: int, *, shared: bool) -> str:
    one = nodes == 1
    if shared:
        return "has room" if one else "have room"
    return "is idle" if one else "are idle"
