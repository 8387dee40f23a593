"""Format a plan as text: configuration, instances, runs, what is pending, cost. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reconciler.report.plan_rows import PlanRow, explain
from reconciler.report.plan_sections import (
    Row,
    configuration_rows,
    cost_rows,
    instance_rows,
    pending,
    pending_rows,
    run_rows,
    summary_parts,
    sums,
)
from reconciler.report.price_sources import explain_prices
from reconciler.state.status import timers, unreachable
from reconciler.text.colour import Paint, plain
from reconciler.text.columns import columns, wrap
from reconciler.text.dates import Here, localized
from reconciler.text.format import clean, clock, counted, hourly, rough, span
from schemas.configuration import Change
from schemas.plan import Plan
from schemas.state import State

if TYPE_CHECKING:
    from reconciler.report.plan_diff import Difference

SYMBOLS: Mapping[str, str] = {"+": "green", "~": "yellow", "→": "cyan", "-": "red", "…": "dim", "✗": "red"}
"""Symbol → its colour."""
LEGEND = "Symbols: + create  ~ change  → start  - terminate  … pending  ✗ cannot run"
MOST_TIMERS = 10


@dataclass(frozen=True)
class Page:
    """Where text goes: `width` columns (0: as wide as needed), painted or not; `here`: in whose zone times are."""

    width: int = 0
    paint: Paint = plain
    here: Here | None = None


def render_plan(plan: Plan, state: State | None, *, now: int, page: Page, difference: Difference | None = None) -> str:
    """Text that ends in one summary line and a newline. Sections without anything are left out."""
    rows = explain(plan, state)
    parts = [
        *_head(plan, state, now=now, page=page),
        *_table("CONFIGURATION", configuration_rows(plan), page=page),
        *(_acting(rows, plan.changes, page=page) if difference is None else _parted(difference, plan, page=page)),
        *_table("PENDING", pending_rows(plan), page=page),
        *_costs(plan, page=page),
        *_section("NOT IN THE COST", plan.uncounted, page=page),
        *_section("WARNINGS", plan.warnings, page=page),
        *_section("IDLE", idle_lines(plan, now=now), page=page),
        *_section("SELF-TERMINATION", timer_lines(state, now=now), page=page),
        *_section("PRICES", explain_prices(plan, now=now), page=page),
        *_section("NOTES", plan.notes, page=page),
        *_section("OBSERVED", observed_lines(plan, now=now) if _uneven(plan) else (), page=page),
    ]
    if plan.next_actor and pending(plan):
        parts += [*_wrapped(clean(plan.next_actor), page=page, indent="  "), ""]
    parts += [page.paint(line, "bold") for line in _wrapped(summary(plan, rows), page=page, indent="  ")]
    if difference is not None:
        parts.append(page.paint(f"Of this: {_own(difference, plan)}.", "bold"))
    return "\n".join(parts) + "\n"


def summary(plan: Plan, rows: Sequence[PlanRow]) -> str:
    """`Plan: 1 instance to create, 1 run to start. $0.00/h now → $1.20/h after.`, without a line end."""
    doing = summary_parts(plan, rows)
    before, after = sums(plan)
    if not doing:
        return f"No changes. {after} now."
    return f"Plan: {', '.join(doing)}. {before} now → {after} after."


def _head(plan: Plan, state: State | None, *, now: int, page: Page) -> list[str]:
    """`dstack plan · project hello · 59ebb09 · state 12, refreshed 24s ago`, and what the symbols mean."""
    applied = state.applied if state else None
    name = (applied.desired.project_name if applied else "") or plan.project
    commit = applied.revision.commit[:7] if applied else ""
    seen = [at for _, at, _ in plan.observed if at is not None]
    age = f", refreshed {rough(max(0, now - min(seen)))} ago" if seen else ""
    told = ["dstack plan", f"project {clean(name)}" if name else "", commit, f"state {plan.generation}{age}"]
    lines = _wrapped(" · ".join(filter(None, told)), page=page, indent="  ")
    if plan.actions or plan.changes or plan.unmet or plan.waits:
        lines += _wrapped(LEGEND, page=page, indent="  ")
    return [*(page.paint(line, "dim") for line in lines), ""]


def _acting(rows: Sequence[PlanRow], changes: Sequence[Change], *, page: Page) -> list[str]:
    return [
        *_table("INSTANCES", instance_rows(rows), page=page, right=(2,)),
        *_table("RUNS", run_rows(rows, changes), page=page),
    ]


def _own(difference: Difference, plan: Plan) -> str:
    change = plan.hourly_after - difference.hourly
    own, anyway = counted(len(difference.change), "action"), len(difference.anyway)
    return f"{own} because of this change ({'+' if change >= 0 else '-'}{hourly(abs(change))}), {anyway} anyway"


def _parted(difference: Difference, plan: Plan, *, page: Page) -> Iterator[str]:
    against = "; ".join(filter(None, (difference.commit[:10], clean(difference.behind_words))))
    parts = (
        (f"BECAUSE OF THIS CHANGE (against {against})", difference.change, plan.changes),
        ("NO LONGER PLANNED BECAUSE OF THIS CHANGE", difference.averted, ()),
        ("PLANNED ANYWAY", difference.anyway, ()),
    )
    for title, rows, changes in parts:
        if rows or any(one.kind == "run" for one in changes):
            yield page.paint(title, "bold")
            yield from _acting(rows, changes, page=page)


def _costs(plan: Plan, *, page: Page) -> list[str]:
    rows = cost_rows(plan)
    if not rows:
        return []
    lines = columns(rows, width=page.width, right=(1, 2, 3))
    title = "COST"
    return [page.paint(title, "bold") + lines[0][len(title) :], *lines[1:], ""]


def _table(title: str, rows: Iterable[Row], *, page: Page, right: Sequence[int] = ()) -> list[str]:
    """The title and the rows in columns; the symbol of each is painted."""
    found = [tuple(localized(cell, page.here) for cell in row) for row in rows]
    if not found:
        return []
    lines = [_painted(line, page=page) for line in columns(found, width=page.width, right=right)]
    return [page.paint(title, "bold"), *lines, ""]


def _painted(line: str, *, page: Page) -> str:
    symbol = line[2:3]
    if line[:2] != "  " or line[3:4] != " " or symbol not in SYMBOLS:
        return line
    return f"  {page.paint(symbol, SYMBOLS[symbol])}{line[3:]}"


def idle_lines(plan: Plan, *, now: int) -> Iterator[str]:
    for note in plan.idle:
        kept = f"idle duration {span(note.duration)}, {note.source}"
        if note.at is None:
            yield f"{note.name}: stays ({note.source if note.duration is not None else kept})"
        elif note.at <= now:
            yield f"{note.name}: termination due ({kept})"
        else:
            yield f"{note.name}: terminates in {rough(note.at - now)}, at {clock(note.at)} ({kept})"


def wait_lines(plan: Plan) -> Iterator[str]:
    """Runs that wait for a busy instance; those that wait for what is launched stand at the launch."""
    return (f"run {one.run}: {one.why}" for one in plan.waits if one.instances)


def timer_lines(state: State | None, *, now: int) -> Iterator[str]:
    """Each apply that reaches them renews it."""
    armed = timers(state)
    for one in armed[:MOST_TIMERS]:
        at = one.self_destruct_at or 0
        when = f"in {rough(at - now)}, at {clock(at)}" if at > now else f"since {rough(now - at)}"
        maybe = "; it is unreachable, so it may have terminated already" if unreachable(one) else ""
        yield f"{one.name}: terminates itself {when}, unless an apply reaches it{maybe}"
    if more := armed[MOST_TIMERS:]:
        yield f"{len(more)} more, the last in {rough((more[-1].self_destruct_at or 0) - now)} (--json lists all)"


def _uneven(plan: Plan) -> bool:
    """Whether the age in the first line does not tell it all: a refresh failed, or was of another time."""
    seen = [at for _, at, _ in plan.observed if at is not None]
    return (
        any(error or at is None for _, at, error in plan.observed) or max(seen, default=0) - min(seen, default=0) > 60
    )


def observed_lines(plan: Plan, *, now: int) -> Iterator[str]:
    hosts = [at for place, at, error in plan.observed if place.startswith("ssh/") and at is not None and not error]
    if hosts:
        yield f"ssh: {counted(len(hosts), 'host')}, {rough(max(0, now - min(hosts)))} ago"
    for place, at, error in plan.observed:
        if place.startswith("ssh/") and not error:
            continue
        seen = "never" if at is None else f"{rough(max(0, now - at))} ago"
        yield f"{place}: {seen}" + (f", unknown since: {error}" if error else "")


def _section(title: str, lines: Iterable[str], *, page: Page) -> list[str]:
    found = [clean(line) for line in lines]
    if not found:
        return []
    return [
        page.paint(title, "bold"),
        *(part for line in found for part in _wrapped(f"  {line}", page=page, indent="      ")),
        "",
    ]


def _wrapped(text: str, *, page: Page, indent: str) -> list[str]:
    return wrap(localized(text, page.here), width=page.width, hang=len(indent))
