"""Hold machines for runs that need more of them at once than are free. Pure.

Whatever becomes free one by one would otherwise always go to smaller runs. A blocked run holds the machines that it can
have soonest: those that are idle now, room in its pool for new ones, then busy ones by the latest end of their jobs. A
shorter run may have a held machine that it gives back before then. A run that could never have all of its machines
holds none. Nothing of this is stored: each plan finds the same machines again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from reconciler.planner.draft import Draft
from reconciler.planner.placement.at_hand import AtHand, Lent, Region, suits
from reconciler.planner.placement.blocks import SharedBox, least
from reconciler.planner.placement.host_ports import clash
from reconciler.planner.placement.idle_pool import Requirement, coming, unusable
from reconciler.planner.placement.limits import NOTHING_HELD, HeldRoom
from reconciler.planner.rules.scale_up import Growth
from reconciler.state.blocks import used
from reconciler.text.dates import moment
from reconciler.text.format import by_number, counted, few
from schemas.instance import Instance
from schemas.run import Job, Run

SOON = 120
"""Seconds within which the time of a start is not worth a word."""
UNKNOWN = float("inf")
"""When a job without `max_duration` ends."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A machine that a blocked run could have, and from when on at the latest (Unix time).

    `asked`: the blocks that it would take of it; `spare`: those that are left for others then.
    """

    instance: Instance
    at: float
    box: SharedBox | None = None
    asked: int = 0
    spare: int = 0


class Holds:
    """The machines that blocked runs hold in this plan, by priority, then age of the runs."""

    def __init__(self, at_hand: AtHand, growth: Growth) -> None:
        self._at, self._growth, self._draft = at_hand, growth, at_hand.draft
        self._promised: set[str] = set()
        self._hopeless: set[Requirement] = set()
        self._ends: dict[str, float | None] | None = None

    def hold(self, run: Run, shape: Requirement) -> str:
        """Hold what the run needs, where it can have all of it one day: `2 held for it (gpu-0, gpu-1)`, or ""."""
        if shape in self._hopeless:
            return ""
        found: tuple[float, int, list[Candidate]] | None = None
        regions = self._candidates(run, shape)
        for region, candidates in regions.items():
            chosen, slots = self._choose(shape, region, candidates)
            at = max((one.at for one in chosen), default=0)
            if len(chosen) + slots == shape.nodes and (found is None or (at, slots) < found[:2]):
                found = (at, slots, chosen)
        if found is None:
            self._hopeless.add(shape)
            return ""
        at, slots, chosen = found
        return self._keep(run, shape, chosen, slots=slots, at=at)

    def _choose(self, shape: Requirement, region: Region, candidates: list[Candidate]) -> tuple[list[Candidate], int]:
        """The machines of one region that are free first, and how many new ones; too few where it can never be."""
        now = [one for one in candidates if one.at <= self._draft.now][: shape.nodes]
        slots = self._slots(shape, region, missing=shape.nodes - len(now))
        later = [one for one in candidates if one.at > self._draft.now]
        return [*now, *later[: shape.nodes - len(now) - slots]], slots

    def _slots(self, shape: Requirement, region: Region, *, missing: int) -> int:
        """How many machines may be launched there for the run, of those missing."""
        pool = self._draft.pools[shape.pool]
        if missing <= 0 or pool.hosts or pool.nodes_max is None or shape.reuse_only or shape.instance_name:
            return 0
        room = self._growth.room
        held = room.held.get(pool.name, NOTHING_HELD).machines
        most = min(missing, pool.nodes_max - room.count[pool.name] - held)
        if most <= 0 or pool.name in self._draft.closed:
            return 0
        only = None if region == ("", "") else region
        search = self._growth.search(shape)
        have = {region: shape.nodes - most}
        offer = search.offer() if shape.nodes == 1 else search.gang_offer(have=have, only=only)
        return most if offer is not None else 0

    def _keep(self, run: Run, shape: Requirement, chosen: list[Candidate], *, slots: int, at: float) -> str:
        at_hand, draft = self._at, self._draft
        freeing = at_hand.freeing  # what is held is not waited for by others
        until = None if at in (UNKNOWN, 0) or at <= draft.now else int(at)
        held = []
        for one in chosen:
            self._promised.add(one.instance.id)
            if one.box is not None:
                blocks = max(0, one.box.free - one.spare)
                one.box.free, one.box.held, one.box.held_until = one.box.free - blocks, one.box.held + blocks, until
                freeing.taken(one.instance.id, blocks=one.asked)
                if blocks:
                    held.append(one.instance.name)
            elif one.at <= draft.now:
                at_hand.take([one.instance])
                if not coming(draft, one.instance):
                    at_hand.lent[one.instance.id] = Lent(one.instance, until, run.spec.name)
                held.append(one.instance.name)
            else:
                freeing.take(one.instance)
        for _ in held:
            at_hand.keep_off(shape.pool, f"held for run {run.spec.name}")
        if slots:
            before = self._growth.room.held.get(shape.pool, NOTHING_HELD)
            soonest = min(until or 0, before.until or 0) if before.machines else until
            self._growth.room.held[shape.pool] = HeldRoom(before.machines + slots, run.spec.name, soonest or None)
        names = f" ({few(sorted(held, key=by_number))})" if held else ""
        parts = [f"{counted(len(held), 'instance')} held for it{names}"] if held else []
        parts += [f"room for {counted(slots, 'new one')} held for it"] if slots else []
        if parts and until is not None and until > draft.now + SOON:
            parts.append(f"it can start by {moment(until)} at the latest")
        return ", ".join(parts)

    # ------------------------------------------------------------ what there is, and from when on

    def _candidates(self, run: Run, shape: Requirement) -> dict[Region, list[Candidate]]:
        """By region, what is free first, first. A region where only new machines could be is `("", "")`."""
        found: dict[Region, list[Candidate]] = {}
        mine = {one.id for one in self._at.reserved.get(run.id, ())}
        for id in self._draft.members.get(shape.pool, ()):
            one = self._draft.living[id]
            if id in self._promised or id in self._draft.taken or (one.reserved_for and id not in mine):
                continue
            if unusable(self._draft, one):
                continue
            candidate = self._candidate(one, shape)
            if candidate is not None:
                found.setdefault(self._at.network(one), []).append(candidate)
        for candidates in found.values():
            candidates.sort(key=lambda one: self._order(one, run=run))
        return found or {("", ""): []}

    def _order(self, one: Candidate, *, run: Run) -> tuple[object, ...]:
        """What was launched for others that wait comes last among what is free at one time."""
        instance = one.instance
        others = self._at.owned_by_others(instance, run=run.id)
        return one.at, others, coming(self._draft, instance), by_number(instance.name)

    def _candidate(self, one: Instance, shape: Requirement) -> Candidate | None:
        """None where the run can never have it: too small, or kept by a service."""
        jobs = self._draft.jobs.get(one.id, ())
        box = self._at.box_of(one)
        if box is not None:
            return self._share(one, box, shape, jobs=jobs)
        ends = [self._end(job) for job in jobs]
        if not suits(self._draft, one, shape) or any(end is None for end in ends):
            return None
        if one.id in self._at.given:  # another run has it, or waits for its end
            return None
        return Candidate(instance=one, at=max((end for end in ends if end is not None), default=self._draft.now))

    def _share(self, one: Instance, box: SharedBox, shape: Requirement, *, jobs: Sequence[Job]) -> Candidate | None:
        asked = least(shape, one, of=box.of)
        if not asked or box.held or shape.instance_name not in ("", one.name):
            return None
        if clash(self._draft, one, shape.ports) or (shape.nodes > 1 and not self._draft.joins_nodes(one.backend)):
            return None
        free, at = box.free - box.awaited, float(self._draft.now)
        ends = sorted((end, used([job], of=box.of)) for job in jobs if (end := self._end(job)) is not None)
        for end, blocks in ends:
            if free >= asked:
                break
            free, at = free + blocks, max(at, end)
        return Candidate(instance=one, at=at, box=box, asked=asked, spare=free - asked) if free >= asked else None

    def _end(self, job: Job) -> float | None:
        """Unix time at which the job has ended at the latest; None for a service that nothing ends."""
        if self._ends is None:
            self._ends = dict(_ends(self._draft))
        return self._ends.get(job.id, UNKNOWN)


def _ends(draft: Draft) -> Iterator[tuple[str, float | None]]:
    for run in draft.runs.values():
        limit = run.spec.max_duration
        for attempt in draft.live.get(run.id, ()):
            over = bool(attempt.stopping or run.stop_reason or attempt.id in draft.stopping)
            for job in attempt.jobs:
                if over or job.status == "ended":
                    yield job.id, draft.now + 1
                elif limit is None:
                    yield job.id, None if run.spec.type == "service" else UNKNOWN
                else:
                    began = draft.now if job.started_at is None else job.started_at
                    yield job.id, max(draft.now + 1, began + limit)
