"""Format a plan as text, grouped by pool, each line with its reason. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from reconciler.report.plan_rows import Kind, PlanRow, counts, explain
from reconciler.report.price_sources import explain_prices
from reconciler.state.status import timers, unreachable
from reconciler.text.colour import Paint, plain
from reconciler.text.dates import Here, localized
from reconciler.text.format import by_number, clean, clock, counted, hourly, resources, rough, span
from schemas.plan import Plan
from schemas.state import State

if TYPE_CHECKING:
    from reconciler.report.plan_diff import Difference

COLOUR: dict[Kind, str] = {
    "launch": "green", "attach": "green", "assign": "cyan", "stop": "red", "terminate": "red", "detach": "red",
    "remove": "red",    "update": "yellow",
}  # fmt: skip
MOST_ENDS = 30
MOST_TIMERS = 10


@dataclass(frozen=True)
class Page:
    """Where text goes: `width` columns (0: as wide as needed), painted or not; `here`: in whose zone times are."""

    width: int = 0
    paint: Paint = plain
    here: Here | None = None


def render_plan(plan: Plan, state: State | None, *, now: int, page: Page, difference: Difference | None = None) -> str:
    """Text that ends in one summary line and a newline."""
    rows = explain(plan, state)
    parts = [
        *_section("Configuration", plan.configuration, page=page, colour="yellow"),
        *(action_lines(rows, page=page) if difference is None else _parted(difference, page=page)),
        *_section("Idle", idle_lines(plan, now=now), page=page),
        *_section("Timers", timer_lines(state, now=now), page=page),
        *_section("Unmet", (f"{one.subject}: {one.why}" for one in plan.unmet), page=page, colour="yellow"),
        *_section("Waiting", wait_lines(plan), page=page),
        *_section("Prices", explain_prices(plan, now=now), page=page),
        *_section("In no sum", plan.uncounted, page=page, colour="yellow"),
        *_section("Overrides", plan.notes, page=page),
        *_section("Observed", observed_lines(plan, now=now), page=page),
        *_section("Warnings", plan.warnings, page=page, colour="yellow"),
    ]
    if plan.next_actor:
        parts += _wrapped(f"Next: {clean(plan.next_actor)}", page=page, indent="      ")
    if parts:
        parts.append("")
    parts.append(page.paint(summary(plan, rows), "bold"))
    if difference is not None:
        parts.append(page.paint(f"Of this: {_own(difference, plan)}.", "bold"))
    return "\n".join(parts) + "\n"


def summary(plan: Plan, rows: Sequence[PlanRow]) -> str:
    """`Plan: 1 to launch, 2 to assign. $0.00/h now → $1.20/h after.`, always one line."""
    found = counts(rows)
    doing = ", ".join(f"{number} to {kind}" for kind, number in found.items()) or "nothing to do"
    unmet = f", {counted(len(plan.unmet), 'thing')} unmet" if plan.unmet else ""
    least = "≥" if plan.uncounted else ""
    return f"Plan: {doing}{unmet}. {least}{hourly(plan.hourly_before)} now → {least}{hourly(plan.hourly_after)} after."


def _own(difference: Difference, plan: Plan) -> str:
    change = plan.hourly_after - difference.hourly
    own, anyway = len(difference.change), len(difference.anyway)
    return f"{own} because of this change ({'+' if change >= 0 else '-'}{hourly(abs(change))}), {anyway} anyway"


def _parted(difference: Difference, *, page: Page) -> Iterator[str]:
    against = "; ".join(filter(None, (difference.commit[:10], clean(difference.behind_words))))
    parts = (
        (f"Because of this change (against {against})", difference.change),
        ("Averted by this change", difference.averted),
        ("Would happen anyway", difference.anyway),
    )
    for title, rows in parts:
        if rows:
            yield page.paint(f"{title}:", "bold")
            yield from action_lines(rows, page=page)


def action_lines(rows: Sequence[PlanRow], *, page: Page) -> Iterator[str]:
    """Pools by name, each in the plan's own order; alike neighbours share one line."""
    ordered = sorted(rows, key=lambda row: row.pool)
    for pool, mine in groupby(ordered, key=lambda row: row.pool):
        yield page.paint(f"Pool {clean(pool)}" if pool else "Project", "bold")
        alike = groupby(mine, key=lambda row: (row.kind, row.run, row.why, row.instance_type, row.price, row.spot))
        for _, group in alike:
            yield from _line(tuple(group), page=page)
        yield ""


def _line(rows: tuple[PlanRow, ...], *, page: Page) -> list[str]:
    """`  + launch gpu-0: local, 2xCPU, 4GB, $0.00/h: run train needs one`."""
    row = rows[0]
    what = ", ".join(part for part in (_machine(row), _cost(row, number=len(rows))) if part)
    text = f"{row.symbol} {row.kind} {_subject(rows)}"
    text += f" ({what})" if what else ""
    lines = _wrapped(f"  {text}: {clean(row.why)}", page=page, indent="      ")
    return [lines[0].replace(text[: len(row.symbol)], page.paint(row.symbol, COLOUR[row.kind]), 1), *lines[1:]]


def _subject(rows: tuple[PlanRow, ...]) -> str:
    row = rows[0]
    listed = [clean(one.instance) for one in rows if one.instance]
    names = _ends(listed) if row.kind in ("terminate", "detach", "remove") else _names(listed)
    if row.kind == "assign":
        return f"{clean(row.run)} to {names}"
    if row.kind == "stop":
        return f"{clean(row.run)} on {names}" if names else clean(row.run)
    if row.kind == "update":
        return names or clean(row.run) or (f"pool {clean(row.pool)}" if row.pool else "the project")
    return names


def _names(names: list[str]) -> str:
    if len(names) <= 3:
        return ", ".join(names)
    return f"{names[0]} … {names[-1]} ({len(names)})"


def _ends(names: list[str]) -> str:
    """Whoever reviews an end must see what it ends."""
    listed = sorted(names, key=by_number)
    more = len(listed) - MOST_ENDS
    return ", ".join(listed[:MOST_ENDS]) + (f" and {more} more (--json lists all)" if more > 0 else "")


def _machine(row: PlanRow) -> str:
    if row.kind not in ("launch", "attach"):
        return ""
    where = clean(row.backend) + (f" {clean(row.region)}" if row.region and row.region != row.backend else "")
    kind = clean(row.instance_type) if row.instance_type != row.backend else ""
    return ", ".join(
        part for part in (where, kind, resources(row.resources) if row.resources else "", "spot" * row.spot) if part
    )


def _cost(row: PlanRow, *, number: int) -> str:
    """Of starting or ending instances only; the rest changes no price."""
    if row.kind == "launch":
        return ("≤ " if row.at_most else "") + hourly(row.price) + (" each" if number > 1 else "")
    if row.kind in ("terminate", "detach", "remove"):
        return f"saves {hourly(row.price)}" + (" each" if number > 1 else "")
    return ""


def idle_lines(plan: Plan, *, now: int) -> Iterator[str]:
    for note in plan.idle:
        kept = f"idle duration {span(note.duration)}, {note.source}"
        if note.at is None:
            yield f"{note.name}: stays ({note.source if note.duration is not None else kept})"
        elif note.at <= now:
            yield f"{note.name}: due ({kept})"
        else:
            yield f"{note.name}: goes in {rough(note.at - now)}, at {clock(note.at)} ({kept})"


def wait_lines(plan: Plan) -> Iterator[str]:
    """Runs that wait for a busy instance; those that wait for what is launched stand at the launch."""
    return (f"run {one.run}: {one.why}" for one in plan.waits if one.instances)


def timer_lines(state: State | None, *, now: int) -> Iterator[str]:
    """Each tick that reaches them puts that off."""
    armed = timers(state)
    for one in armed[:MOST_TIMERS]:
        at = one.self_destruct_at or 0
        when = f"in {rough(at - now)}, at {clock(at)}" if at > now else f"since {rough(now - at)}"
        maybe = "; it does not answer, so it may be dead already" if unreachable(one) else ""
        yield f"{one.name}: powers itself off {when}, unless a tick reaches it{maybe}"
    if more := armed[MOST_TIMERS:]:
        yield f"{len(more)} more, the last in {rough((more[-1].self_destruct_at or 0) - now)} (--json lists all)"


def observed_lines(plan: Plan, *, now: int) -> Iterator[str]:
    hosts = [at for place, at, error in plan.observed if place.startswith("ssh/") and at is not None and not error]
    if hosts:
        yield f"ssh: {counted(len(hosts), 'host')}, {rough(max(0, now - min(hosts)))} ago"
    for place, at, error in plan.observed:
        if place.startswith("ssh/") and not error:
            continue
        seen = "never" if at is None else f"{rough(max(0, now - at))} ago"
        yield f"{place}: {seen}" + (f", unknown since: {error}" if error else "")


def _section(title: str, lines: Iterator[str] | Sequence[str], *, page: Page, colour: str = "") -> list[str]:
    found = [clean(line) for line in lines]
    if not found:
        return []
    head = page.paint(title, colour or "bold")
    return [head, *(part for line in found for part in _wrapped(f"  {line}", page=page, indent="      ")), ""]


def _wrapped(text: str, *, page: Page, indent: str) -> list[str]:
    text = localized(text, page.here)
    if not page.width or len(text) <= page.width:
        return [text]
    return textwrap.wrap(
        text,
        width=max(page.width, 30),
        subsequent_indent=indent,
        break_on_hyphens=False,
        break_long_words=True,
        drop_whitespace=True,
        replace_whitespace=False,
    )
