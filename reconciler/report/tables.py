"""Draw tables with rich, which is imported only when a table is shown.

Where a table is wider than the terminal, its last columns become lines below it: a reason
that is cut off or broken into syllables explains nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from reconciler.report.cost import cost_cells, cost_heads
from reconciler.report.cost_model import Cost
from reconciler.report.instance_rows import InstanceRow, PoolRow
from reconciler.report.run_rows import RunRow
from reconciler.state.status import timer_of, unreachable
from reconciler.text.format import ago, bounded, clean, resources, rough
from schemas.base import HOURS, Price
from schemas.instance import Instance
from schemas.leftover import Leftover

if TYPE_CHECKING:
    from rich.console import RenderableType

Lines = list[list[str]]
GAP = 2
WRAPPED = ("RESOURCES", "STATUS")
# Left out of a narrow terminal, the first first.
SPARED = ("SPOT", "PURCHASE", "CPU", "MEMORY", "REGIONS", "OFFERS", "REGION", "BACKEND", "GPU", "RESOURCES", "PRICE")


def run_table(rows: Sequence[RunRow], *, now: int, width: int = 0, verbose: bool = False) -> RenderableType:
    """NAME BACKEND REGION RESOURCES SPOT PRICE STATUS SUBMITTED ERROR; `verbose` adds ids, instances, addresses.

    `width` in columns; 0 is as wide as it needs.
    """
    heads = ["NAME", "BACKEND", "REGION", "RESOURCES", "SPOT", "PRICE", "STATUS", "SUBMITTED", "ERROR"]
    heads += ["ID", "ATTEMPT", "INSTANCES", "ADDRESS"] if verbose else []
    return fitted(heads, [_run_cells(row, now=now, verbose=verbose) for row in rows], core=8, width=width)


def instance_table(rows: Sequence[InstanceRow], *, now: int, width: int = 0) -> RenderableType:
    """INSTANCE BACKEND REGION RESOURCES SPOT PRICE STATUS CREATED REASON."""
    heads = ["INSTANCE", "BACKEND", "REGION", "RESOURCES", "SPOT", "PRICE", "STATUS", "CREATED", "REASON"]
    return fitted(heads, [_instance_cells(row, now=now) for row in rows], core=8, width=width)


def pool_table(rows: Sequence[PoolRow], *, now: int, verbose: bool = False) -> RenderableType:
    """NAME DEFAULT INSTANCES, with `verbose` CREATED; CLOSED where a pool is paused or drained."""
    closed = any(row.closed for row in rows)
    heads = ["NAME", "DEFAULT", "INSTANCES", *(["CREATED"] if verbose else []), *(["CLOSED"] if closed else [])]
    lines = [
        [
            row.pool.name,
            "default" if row.pool.default else "",
            f"{row.available}/{row.total}",
            *([ago(row.created_at, now=now)] if verbose else []),
            *([row.closed] if closed else []),
        ]
        for row in rows
    ]
    return fitted(heads, lines, core=len(heads), width=0)


def leftover_table(found: Sequence[Leftover], *, now: int) -> RenderableType:
    """KIND ID NAME PLACE AGE and about what it costs a month, with the total below."""
    heads = ["KIND", "ID", "NAME", "PLACE", "CREATED", "~ MONTH"]
    lines = [
        [one.kind, one.id, one.name, one.place, ago(one.created_at, now=now), _monthly(one.hourly)] for one in found
    ]
    total = sum((one.hourly for one in found if one.hourly), Price(0))
    return fitted(heads, [*lines, ["total", "", "", "", "", _monthly(total)]], core=len(heads), width=0)


def _monthly(hourly: Price | None) -> str:
    return "?" if hourly is None else f"${hourly * HOURS:.2f}" if hourly else "–"


def cost_table(cost: Cost, *, width: int = 0) -> RenderableType:
    """What it is by, INSTANCES TIME BOOT IDLE COST, and the total below."""
    lines = [cost_cells(row, cost=cost) for row in cost.rows]
    heads = cost_heads(cost)
    return fitted(heads, [*lines, cost_cells(cost.total, cost=cost, total=True)], core=len(heads), width=width)


def fitted(heads: list[str], lines: Lines, *, core: int, width: int) -> RenderableType:
    """All columns where they fit, else the first `core` of them and the rest as lines below."""
    lines = [[clean(cell) for cell in line] for line in lines]
    widths = [max(len(cell) for cell in column) for column in zip(heads, *lines, strict=True)]
    if not width or sum(widths) + GAP * (len(heads) - 1) <= width:
        return _table(heads, lines)
    from rich.console import Group

    kept = _spared(heads[:core], lines, width=width)
    table = _table([heads[at] for at in kept], [[line[at] for at in kept] for line in lines])
    return Group(table, *_below(heads[core:], lines, core=core))


def _spared(heads: list[str], lines: Lines, *, width: int) -> list[int]:
    """Which columns to show, so that what a thing is called and how it is are never cut off."""
    least = [_least(head, [head, *(line[at] for line in lines)]) for at, head in enumerate(heads)]
    kept = list(range(len(heads)))
    for spare in SPARED:
        if sum(least[at] for at in kept) + GAP * len(kept) <= width:
            break
        kept = [at for at in kept if at == 0 or heads[at] != spare]
    return kept


def _least(head: str, column: list[str]) -> int:
    """The narrowest that a column can be: `WRAPPED` ones break between words."""
    if head not in WRAPPED:
        return max(map(len, column))
    return min(24, max((len(word) for cell in column for word in cell.split()), default=1))


def _below(heads: list[str], lines: Lines, *, core: int) -> list[str]:
    """`gpu-4: unreachable for 2m`, `train: id r1, attempt 2`: only for lines that have more to say."""
    found = []
    for line in lines:
        said = [
            cell if head in ("ERROR", "REASON") else f"{head.lower()} {cell}"
            for head, cell in zip(heads, line[core:], strict=True)
            if cell
        ]
        found += [f"{line[0]}: {', '.join(said)}"] if said else []
    return found


def _table(heads: list[str], lines: Lines) -> RenderableType:
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, GAP, 0, 0))
    for head, column in zip(heads, zip(heads, *lines, strict=True), strict=True):
        wraps = head in WRAPPED
        least = _least(head, list(column)) if wraps else None
        table.add_column(head, no_wrap=not wraps, overflow="fold", min_width=least)
    for line in lines:
        table.add_row(*line)
    return table


def _run_cells(row: RunRow, *, now: int, verbose: bool) -> list[str]:
    run, used = row.run, row.instances
    cells = [run.spec.name, *_machine_cells(used)]
    amount = bounded(row.price, at_most=any(one.at_most for one in used)) if used else ""
    cells += [amount, _status(row), ago(run.submitted_at, now=now)]
    cells += [row.said]
    if verbose:
        cells += [run.id, str(row.attempt or ""), " ".join(one.name for one in used), " ".join(row.addresses)]
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
    if row.run.status == "failed" and row.exit_code:
        return f"failed ({row.exit_code})"
    return row.status


def _instance_cells(row: InstanceRow, *, now: int) -> list[str]:
    one = row.instance
    busy, of = row.blocks
    status = f"{busy}/{of} {row.status}" if of > 1 and busy else row.status
    status += f" ({', '.join(row.runs)})" if row.runs else ""
    if row.reap_at is not None:
        status += f", terminates in {rough(row.reap_at - now)}" if row.reap_at > now else ", termination due"
    if unreachable(one):
        status += ", unreachable"
    machine = [one.name, one.backend, one.region, resources(one.resources), "yes" if one.spot else "no"]
    timer = "" if one.phase in ("terminating", "terminated") else _timer(one, now=now)
    said = [row.reason, timer]
    amount = bounded(one.price, at_most=one.at_most)
    return [*machine, amount, status, ago(one.created_at, now=now), "; ".join(filter(None, said))]


def _timer(one: Instance, *, now: int) -> str:
    """Each tick that reaches it puts that off. Whether the timer of one that does not answer runs, nobody knows."""
    at = timer_of(one)
    if at is None:
        return ""
    if unreachable(one):
        return f"self-destruct in {rough(at - now)}, if it still runs" if at > now else "its self-destruct did not come"
    return f"self-destruct in {rough(at - now)}" if at > now else "self-destruct is due"
