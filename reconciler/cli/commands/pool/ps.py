"""`dstack pool list` and `dstack pool ps`: list pools and instances from the stored state."""

from __future__ import annotations

import dataclasses
import sys
from datetime import datetime
from typing import TYPE_CHECKING

from reconciler.app.site import Site
from reconciler.cli.exits import Fail
from reconciler.cli.look import shown_live, shown_state
from reconciler.cli.project import documents_of, project_root, site, site_of, state_if_any, state_or_empty
from reconciler.cli.terminal.streams import out, say, show, width
from reconciler.report.instance_rows import InstanceRow, explain_instances, explain_pools, pools_closed
from reconciler.system.process import now
from reconciler.text.dates import localized
from schemas.state import State

if TYPE_CHECKING:
    from rich.console import RenderableType


def show_pools(*, verbose: bool) -> int:
    """The pools of the documents, and those that only live instances still name."""
    from reconciler.report.tables import pool_table

    documents = documents_of(project_root())
    rows = explain_pools(state_if_any(site_of(documents)), pools=documents.desired.pools, now=now())
    rows = tuple(dataclasses.replace(row, closed=localized(row.closed, datetime.astimezone)) for row in rows)
    show(pool_table(rows, now=now(), verbose=verbose))
    return 0


def show_instances(*, pool: str, watch: bool, as_json: bool, cached: bool = False) -> int:
    """`watch` shows them until Ctrl-C; JSON is printed once.

    At a terminal, backends and hosts are asked first, unless `cached`. Elsewhere the stored state is shown, with its
    age.
    """
    where = site()
    if as_json:
        from reconciler.report.json import dump, instances_json

        out(dump(instances_json(_rows(where, pool=pool))))
        return 0
    if watch:
        from reconciler.cli.terminal.watch import watch as live

        latest = shown_live(where, cached=cached)
        return live(lambda: _table(_explained(latest(), pool=pool)))
    state = shown_state(where, cached=cached)
    rows = _explained(state, pool=pool)
    for name, why in pools_closed(state, now=now()).items():
        if pool in ("", name):
            say(f"note: pool {name} creates nothing new: {localized(why, datetime.astimezone)}")
    if not rows:
        say(f"no instances{f' in pool {pool}' if pool else ''}; `dstack pool add` adds one, a run makes its own")
        return 0
    show(_table(rows))
    return 0


def _rows(where: Site, *, pool: str) -> tuple[InstanceRow, ...]:
    return _explained(state_or_empty(where), pool=pool)


def _explained(state: State, *, pool: str) -> tuple[InstanceRow, ...]:
    known = {one.pool for one in state.instances if one.pool}
    known |= {one.name for one in state.applied.desired.pools} if state.applied else set()
    if pool and known and pool not in known:
        raise Fail(f"--pool {pool}: no such pool; there are {', '.join(sorted(known)) or 'none'}")
    return explain_instances(state, now=now(), pool=pool)


def _table(rows: tuple[InstanceRow, ...]) -> RenderableType:
    from reconciler.report.tables import instance_table

    rows = tuple(dataclasses.replace(row, reason=localized(row.reason, datetime.astimezone)) for row in rows)
    return instance_table(rows, now=now(), width=width(sys.stdout))
