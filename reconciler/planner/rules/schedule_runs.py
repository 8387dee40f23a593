"""Assign pending runs to idle instances, wait for instances that are being provisioned, or request new ones. Pure.

All nodes of a run or none; an idle instance before a new one; a reserved one for its run alone.
Each run is served whole before the next, so that nothing of lower rank takes what a higher one could use.
"""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.planner.draft import Draft
from reconciler.planner.placement.blocks import backfills, cheaper_than, least
from reconciler.planner.placement.host_ports import free_port, propose_master_port, take_ports
from reconciler.planner.placement.idle_pool import Requirement, coming
from reconciler.planner.placement.reservations import release
from reconciler.planner.placement.supply import Region, Supply
from reconciler.planner.rules.hold_machines import Holds
from reconciler.planner.rules.run_shape import contended, refused_by_pool, shape_of
from reconciler.planner.rules.scale_up import RESERVED, Growth, grow_for, grow_gang, window
from reconciler.planner.run_queue import Demand, next_number, remember, waiting
from reconciler.text.format import by_number, few
from schemas.base import Price
from schemas.instance import Instance
from schemas.plan import Assign
from schemas.run import Run

BOOT = 600
"""Seconds that a new machine may need until its run begins."""


class Server:
    """Serves demands in order from what is idle, what is coming and what may be bought."""

    def __init__(self, draft: Draft, growth: Growth) -> None:
        self.draft, self.growth = draft, growth
        self.supply, self.timed = Supply(draft), contended(draft)
        self.holds = Holds(self.supply, growth)
        self._refused: dict[Requirement, str] = {}

    def serve(self, demand: Demand) -> None:
        run = demand.run
        shape = shape_of(self.growth, run, timed=self.timed)
        why = refused_by_pool(self.draft, run, shape)
        if not demand.covered:  # another apply starts it: what it could have now or soon is not for those after it
            _ = why or self.holds.hold(run, shape)
        elif why:
            self._unserved(run, why)
        elif shape.nodes > 1:
            self._gang(demand, shape)
        else:
            self._single(demand, shape)

    # ------------------------------------------------------------ one node

    def _single(self, demand: Demand, shape: Requirement) -> None:
        found = self.supply.first(shape)
        choice = self.supply.boxes.first(shape)
        if choice is not None and isinstance(choice.box.machine, Instance) and not cheaper_than(found, choice):
            self._assign(demand, [choice.box.machine], shape=shape)
            return
        if found is not None:
            self._assign(demand, [found], shape=shape)
            return
        awaited = self.supply.soon.first(shape)
        if awaited is not None:
            self.supply.take([awaited])
            take_ports(self.draft, awaited, shape.ports, run=demand.run.spec.name)
            self._waits(demand.run, f"waits for {awaited.name}")
            return
        if self._waits_for_a_share(demand.run, shape):
            return
        why = self._refused.get(shape) or self._grow(demand.run, shape)
        if why:
            if shape not in self._refused:
                self._refused[shape] = why = f"{self.supply.passed_by(shape)}; {why}"
            self._unserved(demand.run, why, shape=shape)
        else:
            self._ordered(demand.run, shape)
            self._waits(demand.run, "waits for a new instance")

    def _waits_for_a_share(self, run: Run, shape: Requirement) -> bool:
        """Of a box that comes, that another run of this plan has ordered, or whose GPUs are to be named yet."""
        choice, until = self.supply.coming.first(shape) or self.supply.fresh.first(shape), ""
        if choice is None:
            choice, until = self.supply.unnamed.first(shape), ", whose host has not named its GPUs yet"
        if choice is None:
            return False
        machine = choice.box.machine
        choice.box.take(choice.blocks)
        choice.box.ports.update(shape.ports)
        self._waits(run, f"waits for {machine.name if isinstance(machine, Instance) else 'a new instance'}{until}")
        return True

    def _grow(self, run: Run, shape: Requirement) -> str:
        """Order a machine for the run; room that is held for another one is lent where that ends in time."""
        room, pool = self.growth.room, shape.pool
        held = room.held.get(pool)
        lent = held is not None and backfills(self.draft, shape.lasts, until=held.until, boot=BOOT)
        if lent:
            del room.held[pool]
        why = grow_for(self.growth, run, shape)
        if held is not None and lent and (why or held.machines > 1):
            room.held[pool] = held if why else held._replace(machines=held.machines - 1)
        return why

    def _ordered(self, run: Run, shape: Requirement) -> None:
        if self.growth.latest is not None:
            take_ports(self.draft, self.growth.latest, shape.ports, run=run.spec.name)
        if self.growth.newest is not None:
            self.supply.ordered(self.growth.newest, shape)

    def _assign(self, demand: Demand, instances: list[Instance], *, shape: Requirement) -> None:
        run, draft = demand.run, self.draft
        number = next_number(draft, run, replica=demand.replica)
        attempt = f"{run.id}-{demand.replica}-{number}"
        port = propose_master_port(draft, attempt)
        why = self._why(instances)
        for instance in instances:
            draft.taken[instance.id] = run.id
            take_ports(draft, instance, shape.ports, run=run.spec.name)
        given = [self._hand_out(instance, shape) for instance in instances]
        self.supply.take([one for one in instances if self.supply.box_of(one) is None])
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
                service_ports=tuple(self._service_ports(run, instances, attempt=attempt)),
                why=why,
            )
        )

    def _why(self, instances: list[Instance]) -> str:
        shared = any(self.supply.boxes.of(one.id) for one in instances)
        verb, names = _verb(len(instances), shared=shared), few(instance.name for instance in instances)
        lent = next((self.supply.lent[one.id].run for one in instances if one.id in self.supply.lent), "")
        meanwhile = f"; it ends before run {lent}, which this is held for, can start" if lent else ""
        if len(instances) == 1:
            return f"{names} {verb} and fits{meanwhile}"
        return f"all {len(instances)} nodes {verb}: {names}{meanwhile}"

    def _service_ports(self, run: Run, instances: list[Instance], *, attempt: str) -> Iterator[int]:
        """Where the service listens on each of them; nothing where it has no port."""
        for one in instances if run.spec.port is not None else ():
            port = run.spec.port or free_port(self.draft, one, attempt=attempt)
            take_ports(self.draft, one, (port,), run=run.spec.name)
            yield port

    def _hand_out(self, one: Instance, shape: Requirement) -> tuple[int, tuple[str, ...]]:
        """The blocks and GPUs that the run gets of it; they are taken."""
        box = self.supply.boxes.of(one.id)
        if box is None:
            return 1, one.resources.gpu.uuids if one.resources.gpu else ()
        blocks = least(shape, one, of=box.of)
        return blocks, box.take(blocks)

    # ------------------------------------------------------------ all nodes or none

    def _gang(self, demand: Demand, shape: Requirement) -> None:
        run = demand.run
        mine = self.supply.reserved.get(run.id, [])
        at_hand = self.supply.by_region(shape, mine=mine)
        whole = {
            region: [one for one in found if not coming(self.draft, one)][: shape.nodes]
            for region, found in at_hand.items()
        }
        complete = [found for found in whole.values() if len(found) == shape.nodes]
        if complete:
            cheapest = min(complete, key=lambda found: sum(one.price or Price(0) for one in found))
            self._assign(demand, sorted(cheapest, key=lambda one: by_number(one.name)), shape=shape)
            return
        enough = [found[: shape.nodes] for found in at_hand.values() if len(found) >= shape.nodes]
        if enough:
            self._reserve(run, enough[0])
            awaited = sum(coming(self.draft, one) for one in enough[0])
            self._waits(run, f"waits for {awaited} of its {shape.nodes} nodes")
            return
        self._grow_gang(run, shape, at_hand=at_hand, mine=mine)

    def _grow_gang(
        self, run: Run, shape: Requirement, *, at_hand: dict[Region, list[Instance]], mine: list[Instance]
    ) -> None:
        if shape in self._refused and not mine:
            self._unserved(run, self._refused[shape], shape=shape)
            return
        have = {region: len(found) for region, found in at_hand.items()}
        only = self.supply.network(mine[0]) if mine else None
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

    def _reserve(self, run: Run, instances: list[Instance]) -> None:
        """Until a time, so that two gangs that each hold a half do not wait for each other for ever."""
        self.supply.take(instances)
        for one in instances:
            if (box := self.supply.box_of(one)) is not None:
                box.free = box.held = 0  # for the others of this plan
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
        """Said with numbers; failed where its window for capacity is over and it never ran this time."""
        draft = self.draft
        over = run.wait_until is not None and draft.now >= run.wait_until and not draft.live.get(run.id)
        # Without a retry it fails where there is nothing, not where a busy one fits or a place did not answer.
        if not over or (not run.spec.retry.no_capacity and self._hope(shape)):
            if shape is not None and (held := self._held_for(run, shape)):
                why = f"{why}; {held}"
            why += draft.aside.get(run.id, "")
            draft.cannot(f"run {run.spec.name}", why)
            remember(draft, run, why)
            return
        tried = window(run.spec.retry.duration) if run.spec.retry.no_capacity else ""
        reason = f"no capacity{f' for {tried}' if tried else ''}: {why}"
        draft.cannot(f"run {run.spec.name}", reason)
        draft.update_run(run, why=reason, status="failed", reason=reason, finished_at=draft.now)

    def _held_for(self, run: Run, shape: Requirement) -> str:
        """What is held for it: for a single node only blocks, since an idle machine would do at once."""
        if shape.nodes == 1 and self.draft.pools[shape.pool].blocks == 1:
            return ""
        return self.holds.hold(run, shape)

    def _hope(self, shape: Requirement | None) -> bool:
        return bool(self.draft.unknown) or (shape is not None and self.supply.busy_fits(shape))


def serve(draft: Draft, growth: Growth) -> None:
    """Every waiting run, in order."""
    release(draft)
    server, demands = Server(draft, growth), waiting(draft)
    while demands and not demands[-1].covered:
        demands.pop()
    for demand in demands:
        server.serve(demand)
    growth.room.held.clear()  # what people ask for and declare is theirs: it makes machines that a run may have


def _verb(nodes: int, *, shared: bool) -> str:
    one = nodes == 1
    if shared:
        return "has room" if one else "have room"
    return "is idle" if one else "are idle"
