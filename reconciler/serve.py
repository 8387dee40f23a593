"""The waiting runs, by priority and age: placed, told to wait for what is coming, or grown for. Pure.

All nodes of a run or none; an idle instance before a new one; a reserved one for its run alone.
Each run is served whole before the next, so that nothing of lower rank takes what a higher one could use.
"""

from __future__ import annotations

from collections import Counter

from reconciler.drain import crosses, told
from reconciler.grow import RESERVED, Growth, grow_for, grow_gang, shape_of, window
from reconciler.master_port import master_port
from reconciler.place import excluded, misfit, shortage
from reconciler.retire import few, words
from reconciler.stock import Shape, Stock, coming, unusable
from reconciler.waiting import Demand, next_number, remember, waiting
from reconciler.world import Draft
from schemas.base import Price, Seconds
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
        for one in draft.living.values():
            if draft.jobs.get(one.id):
                self.busy[draft.pool_of(one)] += 1
                continue
            hindrance = unusable(draft, one)
            if hindrance or one.reserved_for:
                self.kept_off.setdefault(draft.pool_of(one), Counter())[hindrance or "reserved"] += 1
            if hindrance:
                continue
            if one.reserved_for:
                self.reserved.setdefault(one.reserved_for, []).append(one)
            else:
                (soon if coming(draft, one) else ready).append(one)
        self.idle, self.soon = Stock(draft, ready), Stock(draft, soon)
        self._refused: dict[Shape, str] = {}

    def serve(self, demand: Demand) -> None:
        run = demand.run
        shape = shape_of(self.growth, run)
        if shape.pool in self.draft.closed:
            self._unserved(run, self.draft.closed[shape.pool])
        elif why := self._crossing(run, shape) or excluded(self.draft.pools[shape.pool], shape.need):
            self._unserved(run, why)
        elif shape.nodes > 1:
            self._gang(demand, shape)
        else:
            self._single(demand, shape)

    def _crossing(self, run: Run, shape: Shape) -> str:
        """The drain that it might still run in, where one is announced for its pool."""
        drain, lasts = self.draft.closing.get(shape.pool), run.spec.max_duration
        if drain is None or not crosses(drain, now=self.draft.now, lasts=lasts):
            return ""
        return f"the pool is {told(drain)}; {_length(lasts)} would cross that"

    # ------------------------------------------------------------ one node

    def _single(self, demand: Demand, shape: Shape) -> None:
        found = self.idle.first(shape)
        if found is not None:
            self.idle.take(found)
            self._assign(demand, [found])
            return
        awaited = self.soon.first(shape)
        if awaited is not None:
            self.soon.take(awaited)
            self._waits(demand.run, f"waits for {awaited.name}")
            return
        why = self._refused.get(shape) or grow_for(self.growth, demand.run, shape)
        if why:
            if shape not in self._refused:
                self._refused[shape] = why = f"{self._idle_funnel(shape)}; {why}"
            self._unserved(demand.run, why, shape=shape)
        else:
            self._waits(demand.run, "waits for a new instance")

    def _idle_funnel(self, shape: Shape) -> str:
        """`0 of 3 idle instances fit: gpu 1xA100 asked, it has none; 1 busy, 1 unreachable`."""
        idle, reason = 0, ""
        for one, many in self.idle.samples(shape.pool):
            idle += many
            reason = reason or misfit(shape.need, shape.where, one, cloud=False) or self._drains(one, shape)
        others = Counter(self.kept_off.get(shape.pool, {}))
        others["busy"] = self.busy[shape.pool]
        rest = "".join(f", {count} {what}" for what, count in sorted(others.items()) if count)
        if not idle:
            return f"no idle instance{rest}"
        return f"0 of {idle} idle instance{'s' if idle > 1 else ''} fit{f': {reason}' if reason else ''}{rest}"

    def _drains(self, one: Instance, shape: Shape) -> str:
        drain = self.draft.own_drains.get(one.id)
        if drain is None or not crosses(drain, now=self.draft.now, lasts=shape.lasts):
            return ""
        return f"{one.name} is {told(drain)}; {_length(shape.lasts)} would cross that"

    def _assign(self, demand: Demand, instances: list[Instance]) -> None:
        run, draft = demand.run, self.draft
        number = next_number(draft, run, replica=demand.replica)
        attempt = f"{run.id}-{demand.replica}-{number}"
        port = master_port(attempt, taken=draft.ports)
        draft.ports.add(port)
        for instance in instances:
            draft.taken[instance.id] = run.id
        names = few(instance.name for instance in instances)
        why = f"{names} is idle and fits" if len(instances) == 1 else f"all {len(instances)} nodes are idle: {names}"
        draft.actions.append(
            Assign(
                run=run.id,
                name=run.spec.name,
                attempt=attempt,
                number=number,
                replica=demand.replica,
                pool=draft.pool_name(run.spec.pool),
                instances=tuple(instance.id for instance in instances),
                gpus=tuple(instance.resources.gpu.uuids if instance.resources.gpu else () for instance in instances),
                port=port,
                why=why,
            )
        )

    # ------------------------------------------------------------ all nodes or none

    def _gang(self, demand: Demand, shape: Shape) -> None:
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
            self._assign(demand, cheapest)
            return
        enough = [found[: shape.nodes] for found in at_hand.values() if len(found) >= shape.nodes]
        if enough:
            self._reserve(run, enough[0])
            awaited = sum(coming(self.draft, one) for one in enough[0])
            self._waits(run, f"waits for {awaited} of its {shape.nodes} nodes")
            return
        self._grow_gang(run, shape, at_hand=at_hand, mine=mine)

    def _by_region(self, shape: Shape, *, mine: list[Instance]) -> dict[Region, list[Instance]]:
        """What the gang could have, its own first, then idle, then coming, cheapest first."""
        bound = (mine[0].backend, mine[0].region) if mine else None
        found: dict[Region, list[Instance]] = {}
        mine = [one for one in mine if not self._drains(one, shape)]
        ours = sorted(mine, key=lambda one: (coming(self.draft, one), len(one.name), one.name))
        most = 2 * shape.nodes
        for one in (*ours, *self.idle.fitting(shape, most=most), *self.soon.fitting(shape, most=most)):
            region = (one.backend, one.region)
            if bound is None or region == bound:
                nodes = found.setdefault(region, [])
                if len(nodes) < most:
                    nodes.append(one)
        return found

    def _grow_gang(
        self, run: Run, shape: Shape, *, at_hand: dict[Region, list[Instance]], mine: list[Instance]
    ) -> None:
        if shape in self._refused and not mine:
            self._unserved(run, self._refused[shape], shape=shape)
            return
        have = {region: len(found) for region, found in at_hand.items()}
        only = (mine[0].backend, mine[0].region) if mine else None
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

    def _take(self, instances: list[Instance]) -> None:
        for one in instances:
            self.idle.take(one)
            self.soon.take(one)

    def _reserve(self, run: Run, instances: list[Instance]) -> None:
        """Until a time, so that two gangs that each hold a half do not wait for each other for ever."""
        self._take(instances)
        for one in instances:
            if one.reserved_for != run.id:
                self.draft.update_instance(
                    one, why=f"reserved for run {run.spec.name}", quiet=True,
                    reserved_for=run.id, reserved_until=self.draft.now + RESERVED,
                )  # fmt: skip

    # ------------------------------------------------------------ those that wait

    def _waits(self, run: Run, why: str) -> None:
        remember(self.draft, run, why)

    def _unserved(self, run: Run, why: str, *, shape: Shape | None = None) -> None:
        """Said with numbers; failed where its window for capacity is over and it never ran this time."""
        draft = self.draft
        over = run.wait_until is not None and draft.now >= run.wait_until and not draft.live.get(run.id)
        # Without a retry it fails where there is nothing, not where a busy one fits or a place did not answer.
        if not over or (not run.spec.retry.no_capacity and self._hope(shape)):
            draft.cannot(f"run {run.spec.name}", why)
            remember(draft, run, why)
            return
        tried = window(run.spec.retry.duration) if run.spec.retry.no_capacity else ""
        reason = f"no capacity{f' for {tried}' if tried else ''}: {why}"
        draft.cannot(f"run {run.spec.name}", reason)
        draft.update_run(run, why=reason, status="failed", reason=reason, finished_at=draft.now)


    def _hope(self, shape: Shape | None) -> bool:
        return bool(self.draft.unknown) or (shape is not None and _busy_fits(self.draft, shape))


def _length(seconds: Seconds | None) -> str:
    return "max_duration off" if seconds is None else f"max_duration {words(seconds)}"


def serve(draft: Draft, growth: Growth) -> None:
    """Every waiting run, in order."""
    _release(draft)
    server = Server(draft, growth)
    for demand in waiting(draft):
        server.serve(demand)


def _release(draft: Draft) -> None:
    """A reservation ends at its time, or when its run waits no more."""
    for one in list(draft.living.values()):
        if not one.reserved_for:
            continue
        run = draft.runs.get(one.reserved_for)
        over = one.reserved_until is not None and draft.now >= one.reserved_until
        if over or run is None or run.stop_reason:
            name = run.spec.name if run else one.reserved_for
            why = f"no longer reserved for run {name}" + (": its time is over" if over else "")
            draft.update_instance(one, why=why, reserved_for="", reserved_until=None)


def _busy_fits(draft: Draft, shape: Shape) -> bool:
    return any(
        draft.jobs.get(id) and not shortage(shape.need, draft.living[id].resources, cloud=False)
        for id in draft.members[shape.pool]
    )
