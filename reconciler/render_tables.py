"""The tables of `ps`, `pool ps`, `pool list` and of offers, by rich (imported when one is shown)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from reconciler.explain_instances import InstanceRow, PoolRow
from reconciler.explain_runs import RunRow
from reconciler.render_words import ago, clean, price, resources, rough
from reconciler.status import unreachable
from schemas.instance import Instance

if TYPE_CHECKING:
    from rich.table import Table


def run_table(rows: Sequence[RunRow], *, now: int, verbose: bool = False) -> Table:
    """NAME BACKEND REGION RESOURCES SPOT PRICE STATUS SUBMITTED ERROR; `verbose` adds ids and instances."""
    extra = ("ID", "ATTEMPT", "INSTANCES") if verbose else ()
    table = _table("NAME", "BACKEND", "REGION", "RESOURCES", "SPOT", "PRICE", "STATUS", "SUBMITTED", "ERROR", *extra)
    for row in rows:
        table.add_row(*(clean(cell) for cell in _run_cells(row, now=now, verbose=verbose)))
    return table


def instance_table(rows: Sequence[InstanceRow], *, now: int) -> Table:
    """INSTANCE BACKEND REGION RESOURCES SPOT PRICE STATUS CREATED REASON."""
    table = _table("INSTANCE", "BACKEND", "REGION", "RESOURCES", "SPOT", "PRICE", "STATUS", "CREATED", "REASON")
    for row in rows:
        table.add_row(*(clean(cell) for cell in _instance_cells(row, now=now)))
    return table


def pool_table(rows: Sequence[PoolRow], *, now: int, verbose: bool = False) -> Table:
    """NAME DEFAULT INSTANCES, with `verbose` CREATED."""
    table = _table("NAME", "DEFAULT", "INSTANCES", *(("CREATED",) if verbose else ()))
    for row in rows:
        cells = [row.pool.name, "default" if row.pool.default else "", f"{row.available}/{row.total}"]
        table.add_row(*(clean(cell) for cell in (*cells, *((ago(row.created_at, now=now),) if verbose else ()))))
    return table


def _table(*heads: str) -> Table:
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for head in heads:
        fold = head in ("ERROR", "REASON", "RESOURCES", "INSTANCES", "STATUS")
        table.add_column(head, overflow="fold", no_wrap=not fold, justify="left")
    return table


def _run_cells(row: RunRow, *, now: int, verbose: bool) -> list[str]:
    run, used = row.run, row.instances
    cells = [run.spec.name, *_machine_cells(used)]
    cells += [price(row.price) if used else "", _status(row), ago(run.submitted_at, now=now), row.reason]
    if verbose:
        cells += [run.id, str(row.attempt or ""), ", ".join(one.name for one in used)]
    return cells


def _machine_cells(used: tuple[Instance, ...]) -> list[str]:
    """BACKEND REGION RESOURCES SPOT of one instance or of several alike."""
    if not used:
        return ["", "", "", ""]
    first = used[0]
    has = resources(first.resources)
    many = f"{len(used)}x ({has})" if len(used) > 1 else has
    return [first.backend, first.region, many, "yes" if first.spot else "no"]


def _status(row: RunRow) -> str:
    if row.run.status in ("failed",) and row.exit_code:
        return f"failed ({row.exit_code})"
    return row.run.status


def _instance_cells(row: InstanceRow, *, now: int) -> list[str]:
    one = row.instance
    status = f"{row.status} ({', '.join(row.runs)})" if row.runs else row.status
    if row.reap_at is not None:
        status += f", goes in {rough(row.reap_at - now)}" if row.reap_at > now else ", due to go"
    if unreachable(one):
        status += ", unreachable"
    machine = [one.name, one.backend, one.region, resources(one.resources), "yes" if one.spot else "no"]
    return [*machine, price(one.price), status, ago(one.created_at, now=now), row.reason]
