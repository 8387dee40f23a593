"""`dstack cost` and `dstack events`: report from the ledger and the running instances."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NoReturn

from reconciler.app.site import Site
from reconciler.app.stores import ledger_of
from reconciler.cli.exits import Fail
from reconciler.cli.project import site, state_or_empty
from reconciler.cli.terminal.streams import out, say, show, width
from reconciler.cli.terminal.times import month_began, past
from reconciler.report.cost import cost_csv, cost_json, event_json, event_line, event_order
from reconciler.report.cost_model import BYS, By, Cost, cost
from reconciler.store.ledger.folder import Ledger
from reconciler.system.process import now
from reconciler.text.format import counted, stamp
from schemas.ledger import Entry
from schemas.state import State

DAY = 86400
POLL = 2.0
TRIES = 5
AT_MOST = 20  # a poll takes at most a twentieth of the time


def show_cost(*, since: str, by: str, as_json: bool, as_csv: bool) -> int:
    """Of this month, where nothing is said. What is alive is counted until now."""
    if as_json and as_csv:
        raise Fail("--json or --csv, not both")
    grouped = _by(by)
    where, until = site(), now()
    begun = past(since, flag="--since", now=until) if since else month_began(until)
    state, told = remembered(where, since=begun)
    found = cost(told, state, since=begun, until=until, by=grouped)
    if as_json:
        from reconciler.report.json import dump

        out(dump(cost_json(found, project=where.project)))
    elif as_csv:
        out(cost_csv(found))
    else:
        _show(found)
    return 0


def _by(text: str) -> By:
    for one in BYS:
        if one == text:
            return one
    raise Fail(f"--by {text}: must be {', '.join(BYS[:-1])} or {BYS[-1]}")


def _show(found: Cost) -> None:
    if not found.rows:
        say(f"nothing was billed since {stamp(found.since)}; `--since 90d` looks further back")
        return
    from reconciler.report.tables import cost_table

    alive = f"; {counted(found.alive, 'instance')} alive, counted until now" if found.alive else ""
    say(f"since {stamp(found.since)}{alive}")
    show(cost_table(found, width=width(sys.stdout)))
    if found.by == "tag" and any(not row.kind for row in found.rows):
        say("a run with several tags stands in the line of each; the total counts it once")


def remembered(where: Site, *, since: int) -> tuple[State, list[Entry]]:
    """The state, and all that was told up to it and not after it, also what its writer was killed before telling."""
    ledger = ledger_of(where)
    state = state_or_empty(where)
    for _ in range(TRIES):
        told = {entry.id: entry for entry in ledger.read(since=since)}
        latest = state_or_empty(where) if state.lineage else state
        if latest.generation == state.generation:
            break
        state = latest
    told |= {entry.id: entry for entry in state.untold if entry.at >= since}
    return state, list(told.values())


@dataclass(frozen=True, kw_only=True)
class EventFlags:
    since: str = ""
    pool: str = ""
    run: str = ""
    as_json: bool = False
    follow: bool = False


def show_events(flags: EventFlags) -> int:
    """Of the last day, where nothing is said. `follow` goes on until Ctrl-C, which is how one leaves it."""
    where, moment_now = site(), now()
    begun = past(flags.since, flag="--since", now=moment_now) if flags.since else moment_now - DAY
    state, told = remembered(where, since=begun)
    found, names = _chosen(told, flags), {one.id: one.name for one in state.instances}
    if flags.follow:
        try:
            _follow(found, ledger_of(where), since=begun, names=names, flags=flags)
        except KeyboardInterrupt:
            return 0
    if flags.as_json:
        from reconciler.report.json import dump

        out(dump([event_json(entry) for entry in found]))
        return 0
    out("".join(f"{event_line(entry, names)}\n" for entry in found))
    if not found:
        say(f"no events since {stamp(begun)}; `--since 7d` looks further back")
    return 0


def _follow(found: list[Entry], ledger: Ledger, *, since: int, names: dict[str, str], flags: EventFlags) -> NoReturn:
    """Looks again and again, and sleeps far longer than it looks."""
    seen: set[str] = set()
    looking = 0.0
    while True:
        for entry in found:
            if entry.id not in seen:
                seen.add(entry.id)
                if entry.subject.startswith("instance "):
                    names.setdefault(entry.instance, entry.name)
                out((json.dumps(event_json(entry)) if flags.as_json else event_line(entry, names)) + "\n")
        time.sleep(max(POLL, AT_MOST * looking))
        began = time.monotonic()
        found = _chosen(ledger.read(since=since), flags)
        looking = time.monotonic() - began


def _chosen(entries: Iterable[Entry], flags: EventFlags) -> list[Entry]:
    """Those asked for, in the order of their happening."""
    pool, run = flags.pool, flags.run
    mine = [
        entry
        for entry in entries
        if pool in ("", entry.pool) and (not run or (entry.run and run in (entry.run, entry.name)))
    ]
    return sorted(mine, key=event_order)
