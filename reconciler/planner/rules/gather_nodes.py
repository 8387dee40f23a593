"""Gather the nodes of a run that needs several: all of them or none, in one region or network. Pure."""

from __future__ import annotations

from reconciler.planner.placement.at_hand import Region
from reconciler.planner.placement.freeing import Awaited
from reconciler.planner.placement.host_ports import host_of
from reconciler.planner.placement.idle_pool import Requirement, coming
from reconciler.planner.placement.rejection import crossing
from reconciler.planner.rules.assign_run import assign
from reconciler.planner.rules.dispatch import Dispatch
from reconciler.planner.rules.scale_up import RESERVED, grow_gang
from reconciler.planner.run_queue import Demand
from schemas.base import Price
from schemas.instance import Instance
from schemas.offer import Offer
from schemas.run import Run


class Gathering:
    """Runs of several nodes are served with it: from what is at hand, what is coming, what ends, what is bought."""

    def __init__(self, dispatch: Dispatch) -> None:
        self.draft, self.at, self.growth = dispatch.draft, dispatch.at, dispatch.growth
        self._dispatch = dispatch

    def serve(self, demand: Demand, shape: Requirement) -> None:
        """Assign it, reserve what it waits for, or say why it has to wait."""
        run = demand.run
        mine = self.at.reserved.get(run.id, [])
        at_hand = self._by_region(shape, mine=mine, owned=True)
        whole = {
            region: [one for one in found if not coming(self.draft, one)][: shape.nodes]
            for region, found in at_hand.items()
        }
        complete = [found for found in whole.values() if len(found) == shape.nodes]
        if complete:
            cheapest = min(complete, key=lambda found: sum(one.price or Price(0) for one in found))
            assign(self.draft, self.at, demand, cheapest, shape=shape)
            return
        # What was launched for others waits for them, unless this run begins with it at once or cannot do without.
        why = ""
        for owned in (False, True) if self.at.owned else (True,):
            why = self._gathers(run, shape, at_hand=self._by_region(shape, mine=mine, owned=owned), mine=mine)
            if not why:
                return
        if not mine:
            self._dispatch.refused[shape] = why
        self._dispatch.unserved(run, why, shape=shape)

    def _gathers(
        self, run: Run, shape: Requirement, *, at_hand: dict[Region, list[Instance]], mine: list[Instance]
    ) -> str:
        """Keep the nodes that it has for it, and wait for the others or order them; why not, or ""."""
        dispatch = self._dispatch
        offer, ends = self._ending(run, shape, at_hand=at_hand, mine=mine)
        enough = [found[: shape.nodes] for found in at_hand.values() if len(found) >= shape.nodes]
        if not enough:
            return "" if dispatch.backs_off(run, shape) else self._grow(run, shape, at_hand=at_hand, mine=mine)
        self._reserve(run, enough[0])
        ending = [ends[one.id] for one in enough[0] if one.id in ends]
        awaited = len(ending) + sum(coming(self.draft, one) for one in enough[0])
        said = f"waits for {awaited} of its {shape.nodes} nodes"
        if ending:
            idle, count = run.spec.idle_duration, len(ending)
            saves = self.at.freeing.ends.saves(offer, idle, count=count) if offer is not None else None
            dispatch.waits_for_ends(run, ending, saves=saves, said=said)
        else:
            dispatch.waits(run, said)
        return ""

    def _by_region(self, shape: Requirement, *, mine: list[Instance], owned: bool) -> dict[Region, list[Instance]]:
        """What it could have, its own first, then idle, then coming, cheapest first. `owned` as in `fitting`."""
        found: dict[Region, list[Instance]] = {}
        own = [one for one in mine if not crossing(self.draft, one, shape) and self.at.has_room(one, shape)]
        own.sort(key=lambda one: (coming(self.draft, one), len(one.name), one.name))
        for one in (*own, *self.at.fitting(shape, most=2 * shape.nodes, owned=owned)):
            self._offered(found, one, shape=shape, mine=mine)
        return found

    def _offered(
        self, found: dict[Region, list[Instance]], one: Instance, *, shape: Requirement, mine: list[Instance]
    ) -> bool:
        """Whether it is one more of those that the run could have."""
        region = self.at.network(one)
        nodes = found.setdefault(region, []) if not mine or region == self.at.network(mine[0]) else None
        if nodes is None or len(nodes) >= 2 * shape.nodes or any(one.id == each.id for each in nodes):
            return False
        if shape.ports and any(host_of(self.draft, one) == host_of(self.draft, each) for each in nodes):
            return False  # two nodes that listen on a port cannot be shares of one machine
        nodes.append(one)
        return True

    def _ending(
        self, run: Run, shape: Requirement, *, at_hand: dict[Region, list[Instance]], mine: list[Instance]
    ) -> tuple[Offer | None, dict[str, Awaited]]:
        """Busy instances that free themselves, added to what is at hand; and what would be launched instead."""
        offer, within = self._dispatch.alternative(shape)
        ends = self.at.freeing.nodes(shape, run=run.id, within=within, most=2 * shape.nodes)
        added = (one for one in ends if self._offered(at_hand, one.instance, shape=shape, mine=mine))
        return offer, {one.instance.id: one for one in added}

    def _grow(
        self, run: Run, shape: Requirement, *, at_hand: dict[Region, list[Instance]], mine: list[Instance]
    ) -> str:
        if shape in self._dispatch.refused and not mine:
            return self._dispatch.refused[shape]
        have = {region: len(found) for region, found in at_hand.items()}
        only = self.at.network(mine[0]) if mine else None
        why, region = grow_gang(self.growth, run, shape, have=have, only=only)
        if region is None:
            most = max(have.values(), default=0)
            return f"{most} of {shape.nodes} nodes at hand in one region; {why}"
        self._reserve(run, at_hand.get(region, []))
        self._dispatch.waits(run, f"waits for {shape.nodes - have.get(region, 0)} of its {shape.nodes} nodes")
        return ""

    def _reserve(self, run: Run, instances: list[Instance]) -> None:
        """Until a time, so that two such runs that each hold a half do not wait for each other for ever."""
        self.at.take(instances)
        for one in instances:
            self.at.keep(one)
            if one.reserved_for != run.id:
                self.draft.update_instance(
                    one,
                    why=f"reserved for run {run.spec.name}",
                    quiet=True,
                    reserved_for=run.id,
                    reserved_until=self.draft.now + RESERVED,
                )
