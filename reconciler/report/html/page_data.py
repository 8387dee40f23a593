"""Collect what the report's page shows, as compact JSON values. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from reconciler.report.cost import event_detail, event_order
from reconciler.report.cost_model import HOUR, Stretch, stretches
from reconciler.text.format import clean, pool_label
from schemas.base import Price
from schemas.instance import Instance
from schemas.ledger import Entry
from schemas.run import RUN_ENDED, Run
from schemas.state import State

DAY = 86400
MOST_EVENTS = 5000
"""The newest ones are on the page: a month of a large project has many times as many."""
KINDS = ("boot", "idle", "busy")
MICRO = 10**6
"""Money is written in millionths of a dollar."""


@dataclass(frozen=True, kw_only=True)
class Period:
    """What the report is about. `since` and `until` are Unix times."""

    project: str
    since: int
    until: int


class Names:
    """Numbers names in the order of their first use: each stands once on the page."""

    def __init__(self) -> None:
        self.known: dict[str, int] = {}

    def number(self, name: str) -> int:
        """The number of a name, from 0; -1 for an empty one."""
        return self.known.setdefault(name, len(self.known)) if name else -1

    @property
    def cleaned(self) -> list[str]:
        return [clean(name) for name in self.known]


@dataclass(kw_only=True)
class _Collected:
    pools: Names = field(default_factory=Names)
    users: Names = field(default_factory=Names)
    runs: Names = field(default_factory=Names)
    """By id."""
    places: Names = field(default_factory=Names)
    types: Names = field(default_factory=Names)


def page_data(entries: Iterable[Entry], state: State | None, *, period: Period) -> dict[str, Any]:
    """Give everything that the page shows of a period, as JSON values. `state` is the one that wrote the last entry.

    Lists of numbers refer to names by their place in `pools`, `users`, `runs`, `places` and `types`; -1 is none.
    Moments are seconds after `since`.
    """
    told = sorted({entry.id: entry for entry in entries}.values(), key=event_order)
    collected = _Collected()
    instances, costs = _instances(told, state, period=period, collected=collected)
    runs = _runs(told, state, period=period, collected=collected)
    names = {one.id: one.name for one in state.instances} if state else {}
    names |= {entry.instance: entry.name for entry in told if entry.subject.startswith("instance ")}
    shown = [entry for entry in told if period.since <= entry.at <= period.until]
    events = [_event(entry, names, period=period, collected=collected) for entry in reversed(shown[-MOST_EVENTS:])]
    live = [one for one in state.instances if one.phase != "terminated" and one.external_id] if state else []
    return {
        "version": 1,
        "project": clean(period.project),
        "since": period.since,
        "until": period.until,
        "alive": len(live),
        "hourly": round(float(sum((one.price for one in live if one.price is not None), Price(0))), 6),
        "unpriced_alive": sum(one.price is None for one in live),
        "instances": instances,
        "costs": costs,
        "runs": runs,
        "pending": list(_pending(state, until=period.until, collected=collected)) if state else [],
        "events": events,
        "events_total": len(shown),
        "pools": collected.pools.cleaned,
        "users": collected.users.cleaned,
        "places": collected.places.cleaned,
        "types": collected.types.cleaned,
    }


@dataclass(frozen=True, kw_only=True)
class _Machine:
    name: str
    place: str
    instance_type: str
    spot: bool


def _machines(entries: Iterable[Entry], state: State | None) -> dict[str, _Machine]:
    found = {
        entry.instance or entry.subject.removeprefix("instance "): _Machine(
            name=entry.name, place=entry.place, instance_type=entry.instance_type, spot=entry.spot
        )
        for entry in entries
        if entry.kind in ("billed", "launched")
    }
    for one in state.instances if state else ():
        found[one.id] = _Machine(name=one.name, place=one.place, instance_type=one.instance_type, spot=one.spot)
    return found


def _instances(
    entries: list[Entry], state: State | None, *, period: Period, collected: _Collected
) -> tuple[list[list[Any]], list[list[int]]]:
    """(rows of instances with the parts of their lives, the newest first; rows of costs, see `_cost_rows`)."""
    machines = _machines(entries, state)
    ends = {entry.instance: entry.why for entry in entries if entry.kind == "ended"}
    ends |= {one.id: "" for one in state.instances if one.phase != "terminated"} if state else {}
    rows: dict[str, list[Any]] = {}
    tally: Counter[tuple[int, int, int, int, int, Price | None, int, int]] = Counter()
    for stretch in stretches(entries, state, since=period.since, until=period.until):
        key = stretch.billed.instance
        pool = collected.pools.number(pool_label(stretch.billed.pool))
        row = rows.get(key)
        if row is None:
            one = machines.get(key) or _Machine(name=key, place="", instance_type="", spot=False)
            place, type_ = collected.places.number(one.place), collected.types.number(one.instance_type)
            row = rows[key] = [clean(one.name or key), pool, place, type_, int(one.spot), clean(ends.get(key, "")), []]
        _append(row[-1], stretch, since=period.since, collected=collected)
        _count(tally, stretch, pool=pool, since=period.since, collected=collected)
    return sorted(rows.values(), key=lambda row: (-row[-1][0][0], row[0])), _cost_rows(tally)


def _kind(stretch: Stretch) -> int:
    return KINDS.index(stretch.kind or "busy")


def _append(parts: list[list[int]], stretch: Stretch, *, since: int, collected: _Collected) -> None:
    """Add `[start, seconds, kind, run, …]`, or prolong the last part where only the price changed."""
    tail = [_kind(stretch), *sorted({collected.runs.number(use.run) for use in stretch.used})]
    start, seconds = stretch.start - since, stretch.end - stretch.start
    if parts and parts[-1][2:] == tail and parts[-1][0] + parts[-1][1] == start:
        parts[-1][1] += seconds
    else:
        parts.append([start, seconds, *tail])


def _count(tally: Counter[Any], stretch: Stretch, *, pool: int, since: int, collected: _Collected) -> None:
    """Count the seconds of each UTC day; runs that share an instance take their blocks' part of them."""
    kind, price = _kind(stretch), stretch.billed.price
    taken = sum(use.blocks for use in stretch.used)
    users = [
        (collected.users.number(use.user), collected.runs.number(use.run), use.blocks, taken) for use in stretch.used
    ]
    start, first = stretch.start, since // DAY
    while start < stretch.end:
        end = min(stretch.end, (start // DAY + 1) * DAY)
        for user, run, blocks, of in users or ((-1, -1, 1, 1),):
            tally[start // DAY - first, pool, user, run, kind, price, blocks, of] += end - start
        start = end


def _cost_rows(tally: Mapping[tuple[int, int, int, int, int, Price | None, int, int], int]) -> list[list[int]]:
    """`[day, pool, user, run, kind, millionths of $, seconds, seconds of unknown price]`."""
    sums: dict[tuple[int, ...], list[Fraction]] = {}
    for (*key, price, blocks, of), seconds in tally.items():
        row = sums.setdefault(tuple(key), [Fraction(0), Fraction(0), Fraction(0)])
        part = Fraction(seconds * blocks, of)
        row[0] += Fraction(price) * part * MICRO / HOUR if price is not None else 0
        row[1] += part
        row[2] += part if price is None else 0
    return [[*key, *(round(value) for value in row)] for key, row in sorted(sums.items())]


@dataclass(kw_only=True)
class _RunRow:
    name: str = ""
    user: str = ""
    pool: str = ""
    submitted: int | None = None
    started: int | None = None
    finished: int | None = None
    tries: int = 0
    status: str = ""
    why: str = ""


def _runs(entries: list[Entry], state: State | None, *, period: Period, collected: _Collected) -> list[list[Any]]:
    """`[id, name, user, pool, submitted, started, finished, tries, status, why]` in the order of `runs`."""
    found: dict[str, _RunRow] = {}
    for entry in entries:
        if entry.run:
            _add_entry(found.setdefault(entry.run, _RunRow()), entry)
    for run in state.runs if state else ():
        if run.id in found or run.status not in RUN_ENDED or (run.finished_at or 0) >= period.since:
            _add_stored(found.setdefault(run.id, _RunRow()), run)
    for id in found:
        collected.runs.number(id)
    return [_run_row(id, found.get(id, _RunRow()), period=period, collected=collected) for id in collected.runs.known]


def _run_row(id: str, row: _RunRow, *, period: Period, collected: _Collected) -> list[Any]:
    moments = [None if at is None else at - period.since for at in (row.submitted, row.started, row.finished)]
    user, pool = collected.users.number(row.user), collected.pools.number(pool_label(row.pool))
    return [clean(id), clean(row.name or id), user, pool, *moments, row.tries, row.status, clean(row.why)]


def _add_entry(row: _RunRow, entry: Entry) -> None:
    row.name, row.user, row.pool = entry.name or row.name, entry.user or row.user, entry.pool or row.pool
    if entry.kind == "submitted":
        row.submitted, row.status = entry.at, row.status or "submitted"
    elif entry.kind == "started":
        row.started, row.status = entry.at, row.status or "running"
    elif entry.kind == "finished":
        row.finished = entry.at
        row.status, _, row.why = entry.why.partition(": ")
    elif entry.kind == "used":
        row.tries = max(row.tries, _number_of_attempt(entry.id))


def _number_of_attempt(entry: str) -> int:
    """Of `used:<run>-<replica>-<number>-<rank>`, the number, from 1; 0 where the id has another form."""
    parts = entry.rsplit("-", 2)
    return int(parts[1]) if len(parts) == 3 and parts[1].isdecimal() else 0


def _add_stored(row: _RunRow, run: Run) -> None:
    row.name, row.user, row.pool = run.spec.name or row.name, run.user, row.pool or run.spec.pool
    row.submitted, row.started, row.finished = run.submitted_at, run.started_at, run.finished_at
    row.tries = max(row.tries, run.attempts)
    row.status, row.why = run.status, run.reason


def _pending(state: State, *, until: int, collected: _Collected) -> Iterator[list[Any]]:
    """`[what, name, pool, since, reason]` of what waits now. `since` in Unix time, 0 where it is not known."""
    for run in state.runs:
        if run.status == "submitted":
            yield _waits("run", run.spec.name, run.spec.pool, run.submitted_at, run.reason, collected=collected)
    for wish in state.wishes:
        if wish.count:
            why = f"{wish.count} requested by {wish.by} with `dstack pool add`"
            yield _waits("request", wish.name or wish.id, wish.pool, wish.at, why, collected=collected)
    for one in state.instances:
        if one.phase in ("pending", "provisioning"):
            yield _waits("instance", one.name, one.pool, one.created_at, _why(one), collected=collected)
    for pool in state.backoffs:
        if pool.until > until:
            why = f"{pool.tries} launches in a row were never ready; the next try waits"
            yield _waits("pool", pool.pool, pool.pool, pool.at, why, collected=collected)
    for offer in state.capacity:
        if offer.until > until:
            name = " ".join(part for part in (offer.zone or offer.place, offer.instance_type) if part)
            yield _waits("offer", name + " spot" * offer.spot, "", offer.since or 0, offer.why, collected=collected)


def _why(one: Instance) -> str:
    return one.reason or ("requested" if one.phase == "pending" else "its host has not responded yet")


def _waits(what: str, name: str, pool: str, since: int, reason: str, *, collected: _Collected) -> list[Any]:
    number = collected.pools.number(pool_label(pool)) if pool or what != "offer" else -1
    return [what, clean(name), number, since, clean(reason)]


def _event(entry: Entry, names: Mapping[str, str], *, period: Period, collected: _Collected) -> list[Any]:
    """`[at, kind, what, name, pool, user, run, by, detail]`."""
    what = entry.subject.partition(" ")[0]
    pool = collected.pools.number(pool_label(entry.pool)) if entry.pool else -1
    user, run = collected.users.number(entry.user), collected.runs.number(entry.run)
    detail = clean(event_detail(entry, names))
    return [entry.at - period.since, entry.kind, what, clean(entry.name), pool, user, run, clean(entry.by), detail]
