"""When busy instances are free again, where that is certain: a pending run may wait for one. Pure.

An instance whose jobs have ended is free once their results are stored. One whose jobs are being stopped, or end by
their `max_duration`, is free by a known time. An end that is overdue is not certain any more.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import chain
from typing import NamedTuple

from reconciler.planner.draft import Draft
from reconciler.planner.placement.blocks import Boxes, SharedBox, machines_of
from reconciler.planner.placement.idle_pool import Requirement, Stock, unusable
from reconciler.state.blocks import left_of, shared, used
from reconciler.state.sending import type_for
from reconciler.state.status import applies_often
from reconciler.text.dates import clock
from reconciler.text.durations import words
from reconciler.text.format import few
from schemas.base import Price, Seconds
from schemas.instance import Instance
from schemas.offer import Offer
from schemas.plan import Wait
from schemas.run import Attempt, Job, Run

STOPS = 60
"""Seconds that a host has for ending a job, before it counts as overdue."""
LATE = 120
"""Seconds after which an end by `max_duration` counts as overdue."""


class CertainEnd(NamedTuple):
    """A certain end: of the jobs of an instance, or of one job. `at` is a Unix time; None: it has ended."""

    at: int | None
    stopped: bool = False
    """It ends because it was asked to, not by its `max_duration`."""


class Ends:
    """The certain ends of what runs now."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._often = applies_often(draft.world.state.ticks, now=draft.now)
        self._ready_in: dict[tuple[str, str], Seconds] = {}

    def of(self, one: Instance, jobs: Collection[Job]) -> CertainEnd | None:
        """When these jobs of the instance have all ended and it can be used; None where that is not certain."""
        ends = []
        for job in jobs:
            if (end := self._end(one, job)) is None:
                return None
            ends.append(end)
        if not ends or unusable(self._draft, one):
            return None
        times = [end.at for end in ends if end.at is not None]
        last = CertainEnd(max(times, default=None), stopped=all(end.at is None or end.stopped for end in ends))
        return None if self._leaves(one, by=last.at or self._draft.now) else last

    def awaited(self, end: CertainEnd, *, within: Seconds) -> bool:
        """Whether a run may wait for it: it comes no later than a new instance, and somebody will look."""
        if end.at is None:
            return True
        goes_on = self._draft.world.goes_on
        looks = self._often or goes_on == "runs" or (end.stopped and goes_on == "stops")
        return looks and end.at <= self._draft.now + within

    def ready_in(self, backend: str, instance_type: str) -> Seconds:
        """How long a new one takes to be ready: as those of its type did, at most as long as its backend is given."""
        key = (backend, instance_type)
        if key not in self._ready_in:
            most = type_for(self._draft.backends, backend).ready_after(instance_type)
            took = sorted(self._took.get(key, ()))
            self._ready_in[key] = min(most, took[len(took) // 2]) if took else most
        return self._ready_in[key]

    def saves(self, offer: Offer, idle: Seconds | None, *, count: int = 1) -> Price | None:
        """$ of new ones while they start, and while they idle afterwards."""
        seconds = self.ready_in(offer.backend, offer.instance_type) + (idle or 0)
        return None if offer.price is None else offer.price * seconds * count / 3600

    def runs(self, jobs: Iterable[Job]) -> frozenset[str]:
        """The names of their runs."""
        return frozenset(self._of[job.id][0].spec.name for job in jobs if job.id in self._of)

    def _end(self, one: Instance, job: Job) -> CertainEnd | None:
        draft = self._draft
        if job.status == "ended":
            since = job.uncollected_since
            patience = max(STOPS, self.ready_in(one.backend, one.instance_type))
            late = since is not None and (draft.now >= since + patience or not (self._often or draft.world.goes_on))
            return None if late else CertainEnd(None)
        run, attempt = self._of.get(job.id, (None, None))
        if run is None or attempt is None or one.unreachable_since is not None:
            return None
        if attempt.id in draft.stopping:
            asked = attempt.stop_asked_at if attempt.stopping and attempt.stop_asked_at is not None else draft.now
            return CertainEnd(asked + STOPS, stopped=True) if draft.now < asked + STOPS + LATE else None
        limit = run.spec.max_duration
        if limit is None or job.status != "running" or job.started_at is None or run.spec.type == "service":
            return None
        at = job.started_at + limit
        return CertainEnd(max(at, draft.now)) if draft.now < at + LATE else None

    def _leaves(self, one: Instance, *, by: int) -> bool:
        """It is not there any more by then, or takes no work."""
        lifetime = one.max_lifetime
        over = lifetime is not None and one.host is None and one.created_at + lifetime <= by
        return over or one.id in self._draft.own_drains

    @cached_property
    def _of(self) -> dict[str, tuple[Run, Attempt]]:
        runs = self._draft.runs
        return {
            job.id: (runs[id], attempt)
            for id, attempts in self._draft.live.items()
            if id in runs
            for attempt in attempts
            for job in attempt.jobs
        }

    @cached_property
    def _took(self) -> dict[tuple[str, str], list[int]]:
        found: dict[tuple[str, str], list[int]] = {}
        for one in self._draft.world.state.instances:
            if one.ready_at is not None and 0 < one.created_at <= one.ready_at:
                found.setdefault((one.backend, one.instance_type), []).append(one.ready_at - one.created_at)
        return found


class Awaited(NamedTuple):
    """A busy instance that a run waits for."""

    instance: Instance
    end: CertainEnd


def wait_for(run: Run, ends: Sequence[Awaited], *, now: int, saves: Price | None, said: str = "") -> tuple[Wait, str]:
    """How a run waits for busy instances, and the same in words that do not change while it waits.

    `said` is what it waits for, where that is more than these. `saves` is in $.
    """
    results = [one.instance for one in ends if one.end.at is None]
    others = sorted((one for one in ends if one.end.at is not None), key=lambda one: one.end.at or 0)
    at = others[-1].end.at if others else None
    stored = (
        f"{few(one.name for one in results)}, whose {'result is' if len(results) == 1 else 'results are'} stored first"
    )
    named = few(one.instance.name for one in others)
    lead = f"{said}: " if said else "waits for "
    soon = f"{named}, free in {words(max(0, (at or now) - now))}"
    fixed = f"{named}, free at {clock(at or now)}"
    parts = [stored] if results else []
    why = lead + " and ".join([*parts, soon] if others else parts)
    spared = f"; saves ${saves:.2f}" if saves else ""
    wait = Wait(
        run=run.spec.name,
        why=why + spared,
        instances=tuple(one.instance.id for one in ends),
        results=tuple(one.id for one in results),
        at=at,
        saves=saves,
    )
    return wait, lead + " and ".join([*parts, fixed] if others else parts)


class Freeing:
    """Busy instances with a certain end: those whose results are to be stored, then those that are free in a while.

    Whoever waits for one takes it: nobody else waits for the same. `boxes` are the shared ones with room now.
    """

    def __init__(self, draft: Draft, busy: Iterable[Instance], *, boxes: Boxes) -> None:
        self.draft, self.ends, self._now = draft, Ends(draft), boxes
        self._until: dict[tuple[str, bool], CertainEnd] = {}
        self._boxes = {True: Boxes(draft), False: Boxes(draft)}
        self._kept: dict[str, list[Instance]] = {}
        whole: dict[bool, list[Instance]] = {True: [], False: []}
        for one in busy:
            jobs = draft.jobs[one.id]
            if one.blocks != 1 and (of := shared(one)) > 1:
                self._share(one, jobs, of=of)
            elif (end := self.ends.of(one, jobs)) is not None:
                self._until[one.id, end.at is None] = end
                if one.reserved_for:
                    self._kept.setdefault(one.reserved_for, []).append(one)
                else:
                    whole[end.at is None].append(left_of(one) if one.degraded else one)
        runs = {one.id: self.ends.runs(draft.jobs[one.id]) for instances in whole.values() for one in instances}
        self._whole = {ended: Stock(draft, instances, ending=runs) for ended, instances in whole.items()}

    def _share(self, one: Instance, jobs: Collection[Job], *, of: int) -> None:
        """What is free of it now, and what its ended jobs leave; then also what the others with a certain end leave."""
        ends = [(job, end) for job in jobs if (end := self.ends.of(one, [job])) is not None]
        if not ends:
            return
        box, pool = self._now.of(one.id), "" if one.reserved_for else self.draft.pool_of(one)
        if one.reserved_for:
            self._kept.setdefault(one.reserved_for, []).append(one)
        for ended in (True, False):
            gone = [(job, end) for job, end in ends if end.at is None or not ended]
            if not gone or all(end.at is None for _, end in gone) is not ended:
                continue
            freed = SharedBox(one, of=of, jobs=[job for job in jobs if all(job is not each for each, _ in gone)])
            freed.free = min(freed.free, (box.free if box is not None else 0) + used([job for job, _ in gone], of=of))
            freed.ending = self.ends.runs(job for job, _ in gone)
            self._boxes[ended].add(freed, pool=pool)
            at = max((end.at for _, end in gone if end.at is not None), default=None)
            self._until[one.id, ended] = CertainEnd(at, stopped=all(end.at is None or end.stopped for _, end in gone))

    def first(self, shape: Requirement, *, within: Seconds | None) -> Awaited | None:
        """The one to wait for, taken. `within`: how long a new one would take; None: only results are waited for."""
        for ended in (True, False) if within is not None else (True,):
            for one in self._whole[ended].fitting(shape):
                if shape.instance_name in ("", one.name) and self._awaited(one, ended=ended, within=within):
                    self._whole[ended].take(one)
                    return Awaited(one, self._until[one.id, ended])
            for choice in self._boxes[ended].ranked(shape):
                machine = choice.box.machine
                if isinstance(machine, Instance) and self._awaited(machine, ended=ended, within=within):
                    self.taken(machine.id, blocks=choice.blocks)
                    if (box := self._now.of(machine.id)) is not None:
                        free = min(box.free, choice.blocks)
                        box.free, box.awaited = box.free - free, box.awaited + choice.blocks - free
                    return Awaited(machine, self._until[machine.id, ended])
        return None

    def nodes(self, shape: Requirement, *, run: str, within: Seconds | None, most: int) -> Iterator[Awaited]:
        """Those that nodes of that run may wait for, those kept for it first. None of them is taken."""
        for ended in (True, False):
            for one in self._kept.get(run, ()):
                box = self._boxes[ended].of(one.id)
                room = box is None or bool(self._boxes[ended].room(box, shape))
                if room and (one.id, ended) in self._until:
                    yield Awaited(one, self._until[one.id, ended])
        for ended in (True, False) if within is not None else (True,):
            boxed = machines_of(self._boxes[ended], shape)
            for one in chain(self._whole[ended].fitting(shape, most=most), boxed):
                if self._awaited(one, ended=ended, within=within):
                    yield Awaited(one, self._until[one.id, ended])

    def take(self, one: Instance) -> None:
        """It is kept for a run as a whole."""
        for stock in self._whole.values():
            stock.take(one)
        self.taken(one.id, blocks=shared(one))

    def taken(self, instance: str, *, blocks: int) -> None:
        """So many blocks of it are given away: they are not waited for."""
        for boxes in self._boxes.values():
            if (box := boxes.of(instance)) is not None:
                box.free = max(0, box.free - blocks)

    def _awaited(self, one: Instance, *, ended: bool, within: Seconds | None) -> bool:
        return self.ends.awaited(self._until[one.id, ended], within=within or 0)
