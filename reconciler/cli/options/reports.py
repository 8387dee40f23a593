"""Options of the commands that report what happened and what it cost."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reconciler.cli.options import shared as o


def cost(
    since: o.Since = "",
    by: o.CostBy = "pool",
    as_json: o.AsJson = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, without a total.")] = False,
) -> int:
    """Show what was billed, by pool, user, run or backend.

    Without --since: this month, with the share of idle time.
    """
    from reconciler.cli.commands.cost import show_cost

    return show_cost(since=since, by=by, as_json=as_json, as_csv=as_csv)


def events(
    since: o.Since = "",
    pool: o.PoolName = "",
    run: o.OnlyRun = "",
    as_json: o.AsJson = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more, until Ctrl-C.")] = False,
) -> int:
    """List what happened: launches, ends, runs, applies.

    Without --since: the last day.
    """
    from reconciler.cli.commands.cost import EventFlags, show_events

    return show_events(EventFlags(since=since, pool=pool, run=run, as_json=as_json, follow=follow))


def report(
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the page to FILE; -: to stdout.")] = None,
    since: o.Since = "",
) -> int:
    """Write a page about instances, costs, runs and events.

    One HTML file that loads nothing from the network. Without --since: this month.
    """
    from reconciler.cli.commands.report import write_report

    return write_report(html=html, since=since)
