"""Assign pending runs to idle instances, wait for instances that are being provisioned, or request new ones. Pure.

All nodes of a run or none; an idle instance before a new one; a reserved one for its run alone.
Each run is served whole before the next, so that nothing of lower rank takes what a higher one could use.
"""

from __future__ import annotations

from collections.abc import Collection

from reconciler.planner.draft import Draft
from reconciler.planner.placement.blocks import Choice, cheaper_than
from reconciler.planner.placement.host_ports import take_ports
from reconciler.planner.placement.idle_pool import Requirement
from reconciler.planner.placement.reservations import release
from reconciler.planner.rules.assign_run import assign
from reconciler.planner.rules.dispatch import Dispatch
from reconciler.planner.rules.gather_nodes import Gathering
from reconciler.planner.rules.run_shape import contended, refused_by_pool, shape_of
from reconciler.planner.rules.scale_up import Growth, grow_for
from reconciler.planner.run_queue import Demand, waiting
from schemas.instance import Instance
from schemas.run import Run


class Server:
    """Serves demands in order from what is idle, what is coming and what may be bought."""

    def __init__(self, draft: Draft, growth: Growth, *, waiting: Collection[str]) -> None:
        self.draft, self.growth, self.timed = draft, growth, contended(draft)
        self._dispatch = Dispatch(draft, growth, waiting=waiting)
        self._gathering = Gathering(self._dispatch)
        self.at = self._dispatch.at

    def serve(self, demand: Demand) -> None:
        run = demand.run
        shape = shape_of(self.growth, run, timed=self.timed)
        why = refused_by_pool(self.draft, run, shape)
        if not demand.covered:  # another apply starts it: what it could have now or soon is not for those after it
            _ = why or self._dispatch.holds.hold(run, shape)
        elif why:
            self._dispatch.unserved(run, why)
        elif shape.nodes > 1:
            self._gathering.serve(demand, shape)
        else:
            self._single(demand, shape)

    def _single(self, demand: Demand, shape: Requirement) -> None:
        """What was launched for it, then what is at hand, then what will be; a new instance last."""
        dispatch, run = self._dispatch, demand.run
        own = self.at.owned.get(run.id, ())
        found, choice = self.at.idle.among(own, shape), self.at.boxes.among(own, shape)
        if self._given(demand, shape, found=found, choice=choice):
            return
        if self._given(demand, shape, found=self.at.first(shape), choice=self.at.boxes.first(shape)):
            return
        if self._waits_for_its_own(run, shape, own):
            return
        # Launched for others that wait, and ready before anything of its own: they rank lower, or were served by now.
        found, choice = self.at.idle.first(shape, owned=True), self.at.boxes.first(shape, owned=True)
        if self._given(demand, shape, found=found, choice=choice):
            return
        awaited = self.at.soon.first(shape) or self.at.soon.first(shape, owned=True)
        if awaited is not None:
            dispatch.take_soon(run, awaited, shape=shape)
            return
        if self._waits_for_a_share(run, shape) or self._waits_for_an_end(run, shape):
            return
        if dispatch.backs_off(run, shape):
            return
        why = dispatch.refused.get(shape) or self._grow(run, shape)
        if why:
            if shape not in dispatch.refused:
                dispatch.refused[shape] = why = f"{self.at.passed_by(shape)}; {why}"
            dispatch.unserved(run, why, shape=shape)
        else:
            self._ordered(run, shape)
            dispatch.waits(run, "waits for a new instance")

    def _given(self, demand: Demand, shape: Requirement, *, found: Instance | None, choice: Choice | None) -> bool:
        """The cheaper of the two is assigned, if there is any."""
        if choice is not None and isinstance(choice.box.machine, Instance) and not cheaper_than(found, choice):
            found = choice.box.machine
        if found is not None:
            assign(self.draft, self.at, demand, [found], shape=shape)
        return found is not None

    def _waits_for_its_own(self, run: Run, shape: Requirement, own: Collection[str]) -> bool:
        """Of what was launched for it and is not ready yet."""
        found, choice = self.at.soon.among(own, shape), self.at.coming.among(own, shape)
        if found is not None:
            self._dispatch.take_soon(run, found, shape=shape)
            return True
        if choice is None:
            return False
        self._waits_for_share_of(run, shape, choice)
        return True

    def _waits_for_a_share(self, run: Run, shape: Requirement) -> bool:
        """Of a box that comes, that another run of this plan has ordered, or whose GPUs are to be named yet."""
        coming, until = self.at.coming, ""
        choice = coming.first(shape) or coming.first(shape, owned=True) or self.at.fresh.first(shape)
        if choice is None:
            choice = self.at.unnamed.first(shape) or self.at.unnamed.first(shape, owned=True)
            until = ", whose host has not named its GPUs yet"
        if choice is None:
            return False
        self._waits_for_share_of(run, shape, choice, until=until)
        return True

    def _waits_for_share_of(self, run: Run, shape: Requirement, choice: Choice, *, until: str = "") -> None:
        machine = choice.box.machine
        choice.box.take(choice.blocks)
        choice.box.ports.update(shape.ports)
        if not isinstance(machine, Instance):
            choice.box.runs.extend((run.id, run.spec.name))
        what = machine.name if isinstance(machine, Instance) else "a new instance"
        self._dispatch.waits(run, f"waits for {what}{until}")

    def _waits_for_an_end(self, run: Run, shape: Requirement) -> bool:
        """Of what runs on a busy instance, where a new one would be ready no sooner."""
        offer, within = self._dispatch.alternative(shape)
        found = self.at.freeing.first(shape, within=within)
        if found is None:
            return False
        if self.at.box_of(found.instance) is None:
            self.at.take([found.instance])
        take_ports(self.draft, found.instance, shape.ports, run=run.spec.name)
        saves = self.at.freeing.ends.saves(offer, run.spec.idle_duration) if offer is not None else None
        self._dispatch.waits_for_ends(run, [found], saves=saves)
        return True

    def _grow(self, run: Run, shape: Requirement) -> str:
        """Order a machine for the run; room that is held for another one is lent where that ends in time."""
        lent = self._dispatch.lend_room(shape)
        why = grow_for(self.growth, run, shape)
        if lent is not None and (why or lent.machines > 1):
            self.growth.room.held[shape.pool] = lent if why else lent._replace(machines=lent.machines - 1)
        return why

    def _ordered(self, run: Run, shape: Requirement) -> None:
        """What is left of a machine just ordered serves the next runs."""
        growth, blocks = self.growth, self.draft.pools[shape.pool].blocks
        if growth.latest is not None:
            take_ports(self.draft, growth.latest, shape.ports, run=run.spec.name)
        if blocks != 1 and growth.newest is not None:
            self.at.ordered(shape, growth.newest, blocks=blocks, runs=growth.newest_runs)


def serve(draft: Draft, growth: Growth) -> None:
    """Every waiting run, in order."""
    release(draft)
    demands = waiting(draft)
    server = Server(draft, growth, waiting={demand.run.id for demand in demands})
    while demands and not demands[-1].covered:
        demands.pop()
    for demand in demands:
        server.serve(demand)
    growth.room.held.clear()  # what people ask for and declare is theirs: it makes machines that a run may have
