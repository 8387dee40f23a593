"""Assign pending runs to idle instances, wait for instances that are being provisioned, or request new ones. Pure.

All nodes of a run or none; an idle instance before a new one; a reserved one for its run alone.
Each run is served whole before the next, so that nothing of lower rank takes what a higher one could use.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from reconciler.planner.draft import Draft
from reconciler.planner.placement.at_hand import AtHand
from reconciler.planner.placement.blocks import Choice, cheaper_than
from reconciler.planner.placement.fit import excluded
from reconciler.planner.placement.freeing import Awaited, wait_for
from reconciler.planner.placement.idle_pool import Requirement, coming
from reconciler.planner.placement.rejection import crossing, passed_by, pool_crossing
from reconciler.planner.placement.reservations import release
from reconciler.planner.rules.assign_run import assign
from reconciler.planner.rules.scale_up import RESERVED, Growth, grow_for, grow_gang, shape_of
from reconciler.planner.rules.unserved_runs import unserved
from reconciler.planner.run_queue import Demand, remember, waiting
from schemas.base import Price, Seconds
from schemas.instance import Instance
from schemas.offer import Offer
from schemas.plan import Wait
from schemas.run import Run

Region = tuple[str, str]


class Server:
    """Serves demands in order from what is idle, what is coming and what may be bought."""

    def __init__(self, draft: Draft, growth: Growth, *, waiting: Collection[str]) -> None:
        self.draft, self.growth = draft, growth
        self.at = AtHand(draft, waiting=waiting)
        self._refused: dict[Requirement, str] = {}

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
        """What was launched for it, then what is at hand, then what will be; a new instance last."""
        own = self.at.owned.get(demand.run.id, ())
        found, choice = self.at.idle.among(own, shape), self.at.boxes.among(own, shape)
        if self._given(demand, shape, found=found, choice=choice):
            return
        if self._given(demand, shape, found=self.at.idle.first(shape), choice=self.at.boxes.first(shape)):
            return
        if self._waits_for_its_own(demand.run, shape, own):
            return
        # Launched for others that wait, and ready before anything of its own: they rank lower, or were served by now.
        found, choice = self.at.idle.first(shape, owned=True), self.at.boxes.first(shape, owned=True)
        if self._given(demand, shape, found=found, choice=choice):
            return
        awaited = self.at.soon.first(shape) or self.at.soon.first(shape, owned=True)
        if awaited is not None:
            self.at.soon.take(awaited)
            self._waits(demand.run, f"waits for {awaited.name}")
            return
        if self._waits_for_a_share(demand.run, shape) or self._waits_for_an_end(demand.run, shape):
            return
        if self._backs_off(demand.run, shape):
            return
        why = self._refused.get(shape) or grow_for(self.growth, demand.run, shape)
        if why:
            if shape not in self._refused:
                self._refused[shape] = why = f"{self._passed_by(shape)}; {why}"
            self._unserved(demand.run, why, shape=shape)
        else:
            self._ordered(shape)
            self._waits(demand.run, "waits for a new instance")

    def _given(self, demand: Demand, shape: Requirement, *, found: Instance | None, choice: Choice | None) -> bool:
        """The cheaper of the two is assigned, if there is any."""
        if choice is not None and isinstance(choice.box.machine, Instance) and not cheaper_than(found, choice):
            self._assign(demand, [choice.box.machine], shape=shape)
            return True
        if found is not None:
            self.at.idle.take(found)
            self._assign(demand, [found], shape=shape)
        return found is not None

    def _waits_for_its_own(self, run: Run, shape: Requirement, own: Collection[str]) -> bool:
        """Of what was launched for it and is not ready yet."""
        found, choice = self.at.soon.among(own, shape), self.at.coming.among(own, shape)
        if found is not None:
            self.at.soon.take(found)
        elif choice is not None and isinstance(choice.box.machine, Instance):
            choice.box.take(choice.blocks)
            found = choice.box.machine
        if found is not None:
            self._waits(run, f"waits for {found.name}")
        return found is not None

    def _backs_off(self, run: Run, shape: Requirement) -> bool:
        """It waits for the next try, after machines that were never ready; without a retry it fails with them."""
        pool = self.draft.pools[shape.pool]
        why = "" if shape.reuse_only or shape.instance_name else self.growth.backing_off(pool, since=run.submitted_at)
        if why:
            unserved(self.draft, run, why, shape=shape, failed=True)
        return bool(why)

    def _waits_for_a_share(self, run: Run, shape: Requirement) -> bool:
        """Of a box that comes, that another run of this plan has ordered, or whose GPUs are to be named yet."""
        coming, until = self.at.coming, ""
        choice = coming.first(shape) or coming.first(shape, owned=True) or self.at.fresh.first(shape)
        if choice is None:
            choice = self.at.unnamed.first(shape) or self.at.unnamed.first(shape, owned=True)
            until = ", whose host has not named its GPUs yet"
        if choice is None:
            return False
        machine = choice.box.machine
        choice.box.take(choice.blocks)
        if not isinstance(machine, Instance):
            choice.box.runs.extend((run.id, run.spec.name))
        self._waits(run, f"waits for {machine.name if isinstance(machine, Instance) else 'a new instance'}{until}")
        return True

    def _waits_for_an_end(self, run: Run, shape: Requirement) -> bool:
        """Of what runs on a busy instance, where a new one would be ready no sooner."""
        offer, within = self._alternative(shape)
        found = self.at.freeing.first(shape, within=within)
        if found is None:
            return False
        saves = self.at.freeing.ends.saves(offer, run.spec.idle_duration) if offer is not None else None
        self._waits_for_ends(run, [found], saves=saves)
        return True

    def _alternative(self, shape: Requirement) -> tuple[Offer | None, Seconds | None]:
        """What would be launched for the shape, and how long it takes; None where it is free, or cannot be had."""
        pool = self.draft.pools[shape.pool]
        reuses = shape.reuse_only or shape.instance_name or pool.hosts or self.growth.hopeless(pool, n=shape.nodes)
        if reuses:
            return None, None
        search = self.growth.search(shape)
        offer = search.gang_offer(have={}, only=None) if shape.nodes > 1 else search.offer()
        if offer is None or not self.draft.is_cloud(offer.backend):
            return None, None
        return offer, self.at.freeing.ends.ready_in(offer.backend, offer.instance_type)

    def _assign(self, demand: Demand, instances: list[Instance], *, shape: Requirement) -> None:
        assign(self.draft, self.at, demand, instances, shape=shape)

    def _ordered(self, shape: Requirement) -> None:
        """What is left of a machine just ordered serves the next runs."""
        blocks, offer = self.draft.pools[shape.pool].blocks, self.growth.newest
        if blocks != 1 and offer is not None:
            self.at.ordered(shape, offer, blocks=blocks, runs=self.growth.newest_runs)

    def _passed_by(self, shape: Requirement) -> str:
        others = Counter(self.at.kept_off.get(shape.pool, {}))
        others["busy"] = self.at.busy[shape.pool]
        return passed_by(
            self.draft,
            shape,
            samples=self.at.idle.samples(shape.pool),
            boxes=self.at.boxes.of_pool(shape.pool),
            others=others,
        )

    # ------------------------------------------------------------ all nodes or none

    def _gang(self, demand: Demand, shape: Requirement) -> None:
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
            self.at.take(cheapest)
            self._assign(demand, cheapest, shape=shape)
            return
        # What was launched for others waits for them, unless this run begins with it at once or cannot do without.
        why = ""
        for owned in (False, True) if self.at.owned else (True,):
            why = self._gathers(run, shape, at_hand=self._by_region(shape, mine=mine, owned=owned), mine=mine)
            if not why:
                return
        if not mine:
            self._refused[shape] = why
        self._unserved(run, why, shape=shape)

    def _gathers(
        self, run: Run, shape: Requirement, *, at_hand: dict[Region, list[Instance]], mine: list[Instance]
    ) -> str:
        """Keep the nodes that it has for it, and wait for the others or order them; why not, or ""."""
        offer, ends = self._ending(run, shape, at_hand=at_hand, mine=mine)
        enough = [found[: shape.nodes] for found in at_hand.values() if len(found) >= shape.nodes]
        if not enough:
            return "" if self._backs_off(run, shape) else self._grow_gang(run, shape, at_hand=at_hand, mine=mine)
        self._reserve(run, enough[0])
        ending = [ends[one.id] for one in enough[0] if one.id in ends]
        awaited = len(ending) + sum(coming(self.draft, one) for one in enough[0])
        said = f"waits for {awaited} of its {shape.nodes} nodes"
        if ending:
            idle, count = run.spec.idle_duration, len(ending)
            saves = self.at.freeing.ends.saves(offer, idle, count=count) if offer is not None else None
            self._waits_for_ends(run, ending, saves=saves, said=said)
        else:
            self._waits(run, said)
        return ""

    def _by_region(self, shape: Requirement, *, mine: list[Instance], owned: bool) -> dict[Region, list[Instance]]:
        """What the gang could have, its own first, then idle, then coming, cheapest first. `owned` as in `fitting`."""
        found: dict[Region, list[Instance]] = {}
        own = [one for one in mine if not crossing(self.draft, one, shape) and self.at.has_room(one, shape)]
        own.sort(key=lambda one: (coming(self.draft, one), len(one.name), one.name))
        for one in (*own, *self.at.fitting(shape, most=2 * shape.nodes, owned=owned)):
            self._offered(found, one, shape=shape, mine=mine)
        return found

    def _offered(
        self, found: dict[Region, list[Instance]], one: Instance, *, shape: Requirement, mine: list[Instance]
    ) -> bool:
        """Whether it is one more of those that the gang could have."""
        region = self._network(one)
        nodes = found.setdefault(region, []) if not mine or region == self._network(mine[0]) else None
        if nodes is None or len(nodes) >= 2 * shape.nodes or any(one.id == each.id for each in nodes):
            return False
        nodes.append(one)
        return True

    def _ending(
        self, run: Run, shape: Requirement, *, at_hand: dict[Region, list[Instance]], mine: list[Instance]
    ) -> tuple[Offer | None, dict[str, Awaited]]:
        """Busy instances that free themselves, added to what is at hand; and what would be launched instead."""
        offer, within = self._alternative(shape)
        ends = self.at.freeing.nodes(shape, run=run.id, within=within, most=2 * shape.nodes)
        added = (one for one in ends if self._offered(at_hand, one.instance, shape=shape, mine=mine))
        return offer, {one.instance.id: one for one in added}

    def _grow_gang(
        self, run: Run, shape: Requirement, *, at_hand: dict[Region, list[Instance]], mine: list[Instance]
    ) -> str:
        if shape in self._refused and not mine:
            return self._refused[shape]
        have = {region: len(found) for region, found in at_hand.items()}
        only = self._network(mine[0]) if mine else None
        why, region = grow_gang(self.growth, run, shape, have=have, only=only)
        if region is None:
            most = max(have.values(), default=0)
            return f"{most} of {shape.nodes} nodes at hand in one region; {why}"
        self._reserve(run, at_hand.get(region, []))
        self._waits(run, f"waits for {shape.nodes - have.get(region, 0)} of its {shape.nodes} nodes")
        return ""

    def _network(self, one: Instance) -> Region:
        """Where the nodes of a gang must all be: a person's hosts in one network, all others in one region."""
        named = bool(one.network) and not self.draft.is_cloud(one.backend)
        return one.backend, f"{one.region} network {one.network}" if named else one.region

    def _reserve(self, run: Run, instances: list[Instance]) -> None:
        """Until a time, so that two gangs that each hold a half do not wait for each other for ever."""
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

    # ------------------------------------------------------------ those that wait

    def _waits(self, run: Run, why: str) -> None:
        self.draft.waits.append(Wait(run=run.spec.name, why=why))
        remember(self.draft, run, why)

    def _waits_for_ends(self, run: Run, ends: Sequence[Awaited], *, saves: Price | None, said: str = "") -> None:
        """What `ps` shows stays the same while it waits; the plan also says in how long that is, and what it saves."""
        wait, why = wait_for(run, ends, now=self.draft.now, saves=saves, said=said)
        self.draft.waits.append(wait)
        remember(self.draft, run, why)

    def _unserved(self, run: Run, why: str, *, shape: Requirement | None = None) -> None:
        unserved(self.draft, run, why, shape=shape)


def serve(draft: Draft, growth: Growth) -> None:
    """Every waiting run, in order."""
    release(draft)
    demands = waiting(draft)
    server = Server(draft, growth, waiting={demand.run.id for demand in demands})
    for demand in demands:
        server.serve(demand)
