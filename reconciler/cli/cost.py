"""`dstack cost` and `dstack events`: what the ledger tells, and what lives now."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator
from typing import NoReturn

from reconciler.cli.fail import Fail
from reconciler.cli.project import site, state_or_empty
from reconciler.cli.terminal import out, say, show, width
from reconciler.cli.times import moment, month_began
from reconciler.cost import BYS, By, Cost, cost
from reconciler.ledger import Ledger
from reconciler.render_cost import cost_csv, cost_json, event_json, event_line
from reconciler.render_words import counted, stamp
from reconciler.wire import ledger_of, now
from schemas.ledger import Entry
from schemas.state import State

DAY = 86400
POLL = 2.0
AT_MOST = 20  # a poll takes at most a twentieth of the time


def show_cost(*, since: str, by: str, as_json: bool, as_csv: bool) -> int:
    """Of this month, where nothing is said. What is alive is counted until now."""
    if as_json and as_csv:
        raise Fail("--json or --csv, not both")
    grouped = _by(by)
    where, until = site(), now()
    begun = moment(since, flag="--since", now=until) if since else month_began(until)
    state = state_or_empty(where)  # before the ledger: what is in neither cannot be
    told = entries_of(state, ledger_of(where), since=begun)
    found = cost(told, state, since=begun, until=until, by=grouped)
    if as_json:
        from reconciler.render_json import dump

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
    from reconciler.render_tables import cost_table

    alive = f"; {counted(found.alive, 'instance')} alive, counted until now" if found.alive else ""
    say(f"since {stamp(found.since)}{alive}")
    show(cost_table(found, width=width(sys.stdout)))
    if found.by == "tag" and any(not row.kind for row in found.rows):
        say("a run with several tags stands in the line of each; the total counts it once")


def entries_of(state: State, ledger: Ledger, *, since: int) -> Iterator[Entry]:
    """The ledger, with what the writer of the state was killed before telling. `state` must have been read before."""
    seen: set[str] = set()
    for entry in ledger.read(since=since):
        seen.add(entry.id)
        yield entry
    yield from (entry for entry in state.untold if entry.id not in seen and entry.at >= since)


def show_events(*, since: str, pool: str, run: str, as_json: bool, follow: bool) -> int:
    """Of the last day, where nothing is said. `follow` goes on until Ctrl-C, which is how one leaves it."""
    where, moment_now = site(), now()
    begun = moment(since, flag="--since", now=moment_now) if since else moment_now - DAY
    state, ledger = state_or_empty(where), ledger_of(where)
    told = _chosen(entries_of(state, ledger, since=begun), pool=pool, run=run)
    found = sorted(told, key=lambda entry: entry.at)
    if not follow:
        _print(found, as_json=as_json)
        if not found and not as_json:
            say(f"no events since {stamp(begun)}; `--since 7d` looks further back")
        return 0
    try:
        _follow(found, ledger, since=begun, pool=pool, run=run, as_json=as_json)
    except KeyboardInterrupt:
        return 0


def _follow(found: list[Entry], ledger: Ledger, *, since: int, pool: str, run: str, as_json: bool) -> NoReturn:
    """Looks again and again, and sleeps far longer than it looks."""
    seen: set[str] = set()
    cost_of_looking = 0.0
    while True:
        for entry in found:
            if entry.id not in seen:
                seen.add(entry.id)
                out((json.dumps(event_json(entry)) if as_json else event_line(entry)) + "\n")
        time.sleep(max(POLL, AT_MOST * cost_of_looking))
        began = time.monotonic()
        found = sorted(_chosen(ledger.read(since=since), pool=pool, run=run), key=lambda entry: entry.at)
        cost_of_looking = time.monotonic() - began


def _chosen(entries: Iterable[Entry], *, pool: str, run: str) -> Iterator[Entry]:
    for entry in entries:
        of_run = not run or (bool(entry.run) and run in (entry.run, entry.name))
        if of_run and pool in ("", entry.pool):
            yield entry


def _print(found: list[Entry], *, as_json: bool) -> None:
    if as_json:
        from reconciler.render_json import dump

        out(dump([event_json(entry) for entry in found]))
    else:
        out("".join(f"{event_line(entry)}\n" for entry in found))
