"""Compute costs per pool, user and run from the ledger and the running instances. Pure.

At each moment an instance costs its price of that moment; those whose jobs run then share it, by the blocks that
they take, and where none does it is idle (or, before its host first answered, boots). So the rows always add up
to the bill.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from typing import Literal

from reconciler.state.ledger.entries import billed_from, billed_until, boot_of, used_until
from schemas.base import Price
from schemas.ledger import Entry
from schemas.run import LIVE_JOB
from schemas.state import State

By = Literal["pool", "user", "run", "backend", "tag"]
BYS: tuple[By, ...] = ("pool", "user", "run", "backend", "tag")
Kind = Literal["", "idle", "boot", "none"]
HOUR = 3600


@dataclass(kw_only=True)
class CostRow:
    """`seconds` billed, of which `idle` and `boot` ran nothing; `cost` in $, of which `idle_cost` was idle.

    `kind` is set where no name can stand: `idle` and `boot` are what nobody used, `none` what has no pool, backend,
    user or tag.
    `unpriced` seconds have no known price and are in no cost. Fractions, so that the rows add up exactly.
    """

    name: str = ""
    id: str = ""
    kind: Kind = ""
    instances: set[str] = field(default_factory=set)
    seconds: Fraction = Fraction(0)
    idle: Fraction = Fraction(0)
    boot: Fraction = Fraction(0)
    unpriced: Fraction = Fraction(0)
    cost: Fraction = Fraction(0)
    idle_cost: Fraction = Fraction(0)

    @property
    def idle_share(self) -> float:
        """Of the time, from 0 to 1."""
        return float(self.idle / self.seconds) if self.seconds else 0.0


@dataclass(frozen=True, kw_only=True)
class Cost:
    """`rows` by cost, the dearest first; `total` counts every second once. `alive` are counted until `until`."""

    since: int
    until: int
    by: By
    rows: tuple[CostRow, ...]
    total: CostRow
    alive: int


@dataclass(frozen=True, kw_only=True)
class Billed:
    """An interval in which an instance was billed at one price. Unix times; its host first answered at `ready`."""

    instance: str
    pool: str
    backend: str
    start: int
    end: int
    price: Price | None
    ready: int


@dataclass(frozen=True, kw_only=True)
class Used:
    """An interval in which a job of a run used `blocks` of an instance. Unix times; `run` is an id."""

    start: int
    end: int
    run: str
    name: str
    user: str
    tags: tuple[tuple[str, str], ...]
    blocks: int


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """A part of an instance's life in which its price and its users stay the same. Unix times."""

    billed: Billed
    used: tuple[Used, ...]
    start: int
    end: int

    @property
    def kind(self) -> Kind:
        """ "": jobs use it; else `boot` before its host first answered, or `idle`."""
        return "" if self.used else "boot" if self.start < self.billed.ready else "idle"


def stretches(entries: Iterable[Entry], state: State | None, *, since: int, until: int) -> Iterator[Stretch]:
    """Give all stretches of all instances between two Unix times, those of an instance together and in order.

    `state` is the one that wrote the last of `entries`. What is running is counted until `until`.
    """
    known = {entry.id: entry for entry in entries}
    billed: dict[str, list[Billed]] = {}
    used: dict[str, list[Used]] = {}
    for interval in (*_billed(known.values()), *_alive(state, now=until)):
        billed.setdefault(interval.instance, []).append(interval)
    for instance, use in (*_used(known.values()), *_running(state, known, now=until)):
        used.setdefault(instance, []).append(use)
    for instance, intervals in billed.items():
        yield from _stretches(intervals, used.get(instance, ()), since=since, until=until)


def cost(entries: Iterable[Entry], state: State | None, *, since: int, until: int, by: By) -> Cost:
    """Of the time from `since` to `until`, both in seconds since the epoch. `state` is the one that wrote the last."""
    tally = _Tally(by)
    for stretch in stretches(entries, state, since=since, until=until):
        tally.add(stretch)
    total, rows = tally.rows()
    rows.sort(key=lambda row: (bool(row.kind), -row.cost, -row.seconds, row.name, row.id))
    return Cost(
        since=since, until=until, by=by, rows=tuple(rows), total=total, alive=sum(1 for _ in _alive(state, now=until))
    )


def _billed(entries: Iterable[Entry]) -> Iterator[Billed]:
    for one in entries:
        if one.kind == "billed":
            start = one.at - one.seconds
            named = one.instance or one.subject.removeprefix("instance ")  # the first ledgers had the subject alone
            yield Billed(
                instance=named,
                pool=one.pool,
                backend=one.place.partition("/")[0],
                start=start,
                end=one.at,
                price=one.price,
                ready=start + one.boot,
            )


def _alive(state: State | None, *, now: int) -> Iterator[Billed]:
    """Intervals that go on."""
    for one in state.instances if state else ():
        start = billed_from(one)
        if one.phase != "terminated" and one.external_id:
            end = max(start, billed_until(one, now=now))
            yield Billed(
                instance=one.id,
                pool=one.pool,
                backend=one.backend,
                start=start,
                end=end,
                price=one.price,
                ready=start + boot_of(one, start=start, end=end),
            )


def _used(entries: Iterable[Entry]) -> Iterator[tuple[str, Used]]:
    for one in entries:
        if one.kind == "used":
            start = one.at - one.seconds
            yield (
                one.instance,
                Used(
                    start=start, end=one.at, run=one.run, name=one.name, user=one.user, tags=one.tags, blocks=one.blocks
                ),
            )


def _running(state: State | None, known: dict[str, Entry], *, now: int) -> Iterator[tuple[str, Used]]:
    runs = {run.id: run for run in state.runs} if state else {}
    for attempt in state.attempts if state else ():
        for job in attempt.jobs:
            run = runs.get(attempt.run)
            if run is None or job.started_at is None or job.status not in LIVE_JOB or f"used:{job.id}" in known:
                continue
            use = Used(
                start=job.started_at,
                end=used_until(job, now=now),
                run=run.id,
                name=run.spec.name,
                user=run.user,
                tags=run.spec.tags,
                blocks=job.blocks,
            )
            yield job.instance, use


def _stretches(billed: Sequence[Billed], used: Sequence[Used], *, since: int, until: int) -> Iterator[Stretch]:
    """Give each stretch of one instance in which nothing changes.

    Where two intervals say a price for the same time, as after a rebuilt state, the one that knows more of it rules:
    that began later, or ended sooner.
    """
    changes = sorted({min(max(at, since), until) for at in _turns(billed, used)})
    begins = sorted(used, key=lambda use: use.start)
    active: list[Used] = []
    next_use = 0
    for start, end in pairwise(changes):
        while next_use < len(begins) and begins[next_use].start <= start:
            active.append(begins[next_use])
            next_use += 1
        active = [use for use in active if use.end > start]
        rules = max((one for one in billed if one.start <= start < one.end), key=_knows, default=None)
        if rules is not None:
            yield Stretch(billed=rules, used=tuple(active), start=start, end=end)


def _knows(one: Billed) -> tuple[int, int]:
    return one.start, -one.end


def _turns(billed: Sequence[Billed], used: Sequence[Used]) -> Iterator[int]:
    for one in billed:
        yield from (one.start, min(one.ready, one.end), one.end)
    for use in used:
        yield from (use.start, use.end)


Key = tuple[str, str, Kind]
TOTAL: Key = ("", "", "")


class _Tally:
    """Whole seconds by row, kind, price and share; fractions only when all is told."""

    def __init__(self, by: By) -> None:
        self._by = by
        self._seconds: Counter[tuple[Key | None, Kind, Price | None, tuple[int, int]]] = Counter()
        self._instances: dict[Key | None, set[str]] = {}

    def add(self, stretch: Stretch) -> None:
        one, users, seconds, kind = stretch.billed, stretch.used, stretch.end - stretch.start, stretch.kind
        self._add(None, one, seconds, kind=kind)
        if self._by in ("pool", "backend"):
            name = one.pool if self._by == "pool" else one.backend
            self._add((name, "", "" if name else "none"), one, seconds, kind=kind)
        elif kind:
            self._add(("", "", kind), one, seconds, kind=kind)
        else:
            taken = sum(use.blocks for use in users)
            for use in users:
                for key in self._keys(use):
                    self._add(key, one, seconds, kind="", share=(use.blocks, taken))

    def _add(self, key: Key | None, one: Billed, seconds: int, *, kind: Kind, share: tuple[int, int] = (1, 1)) -> None:
        self._seconds[key, kind, one.price, share] += seconds
        self._instances.setdefault(key, set()).add(one.instance)

    def _keys(self, use: Used) -> list[Key]:
        """A run with several tags is in the row of each."""
        if self._by == "run":
            return [(use.name or use.run, use.run, "")]
        if self._by == "user":
            return [(use.user, "", "" if use.user else "none")]
        return [(f"{key}={value}", "", "") for key, value in use.tags] or [("", "", "none")]

    def rows(self) -> tuple[CostRow, list[CostRow]]:
        """The total, and the rows in no order."""
        found = {key: CostRow(instances=names) for key, names in self._instances.items()}
        for (key, kind, price, (mine, of)), seconds in self._seconds.items():
            _add(found[key], Fraction(seconds * mine, of), price, kind=kind)
        for key, row in found.items():
            row.name, row.id, row.kind = key or TOTAL
        return found.pop(None, CostRow()), list(found.values())


def _add(row: CostRow, seconds: Fraction, price: Price | None, *, kind: Kind) -> None:
    row.seconds += seconds
    amount = Fraction(0) if price is None else Fraction(price) * seconds / HOUR
    row.cost += amount
    row.unpriced += seconds if price is None else 0
    if kind == "idle":
        row.idle += seconds
        row.idle_cost += amount
    elif kind == "boot":
        row.boot += seconds
