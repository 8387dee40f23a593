"""`dstack ps`: list runs from the stored state."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from reconciler.app.site import Site
from reconciler.cli.look import shown_live, shown_state
from reconciler.cli.project import site, state_or_empty
from reconciler.cli.terminal.streams import out, say, show, width
from reconciler.report.run_rows import RunRow, explain_runs
from reconciler.system.process import now

if TYPE_CHECKING:
    from rich.console import RenderableType


def show_runs(*, everything: bool, verbose: bool, watch: bool, as_json: bool, cached: bool = False) -> int:
    """`watch` shows it until Ctrl-C; JSON is printed once.

    At a terminal, backends and hosts are asked first, unless `cached`. Elsewhere the stored state is shown, with its
    age.
    """
    where = site()
    if as_json:
        from reconciler.report.json import dump, runs_json

        out(dump(runs_json(_rows(where, everything=everything))))
        return 0
    if watch:
        from reconciler.cli.terminal.watch import watch as live

        latest = shown_live(where, cached=cached)
        return live(lambda: _table(explain_runs(latest(), everything=everything), verbose=verbose))
    state = shown_state(where, cached=cached)
    rows = explain_runs(state, everything=everything)
    if not rows:
        say("no runs yet; `dstack run . -f FILE` starts one")
        return 0
    show(_table(rows, verbose=verbose))
    return 0


def _rows(where: Site, *, everything: bool) -> tuple[RunRow, ...]:
    return explain_runs(state_or_empty(where), everything=everything)


def _table(rows: tuple[RunRow, ...], *, verbose: bool) -> RenderableType:
    from reconciler.report.tables import run_table

    return run_table(rows, now=now(), width=width(sys.stdout), verbose=verbose)
