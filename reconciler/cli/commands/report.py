"""`dstack report --html FILE`: write one page about instances, costs, runs and events."""

from __future__ import annotations

from pathlib import Path

from reconciler.cli.commands.cost import remembered
from reconciler.cli.commands.plan.review import write_whole
from reconciler.cli.exits import Fail
from reconciler.cli.project import site
from reconciler.cli.terminal.streams import out, say
from reconciler.cli.terminal.times import month_began, past
from reconciler.report.html.page import render_page
from reconciler.report.html.page_data import Period, page_data
from reconciler.system.process import now
from reconciler.text.format import counted, stamp


def write_report(*, html: Path | None, since: str) -> int:
    """Write the page of the time from `since` (default: the first of this month, UTC) until now. `-`: to stdout."""
    if html is None:
        raise Fail("no file is named. Run `dstack report --html report.html`")
    where, until = site(), now()
    begun = past(since, flag="--since", now=until) if since else month_began(until)
    if begun >= until:
        raise Fail(f"--since {since}: {stamp(begun)} is in the future")
    state, told = remembered(where, since=begun)
    name = (state.applied.desired.project_name if state.applied else "") or where.project
    data = page_data(told, state, period=Period(project=name, since=begun, until=until))
    text = render_page(data)
    if str(html) == "-":
        out(text)
        return 0
    write_whole(html, text, flag="--html")
    found = f"{counted(len(data['instances']), 'instance')} and {counted(len(data['runs']), 'run')}"
    say(f"Wrote {html}: {found} since {stamp(begun)}. Open it in a browser.")
    return 0
