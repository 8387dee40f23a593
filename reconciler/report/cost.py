"""Format costs and events as table cells, JSON and CSV. Pure."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

from reconciler.report.cost_model import HOUR, Cost, CostRow
from reconciler.state.ledger.entries import EDITS
from reconciler.text.format import clean, hourly, price, rough, stamp
from schemas.ledger import Entry

KINDLESS = {"none": "(none)", "idle": "(idle)", "boot": "(boot)", "": "total"}
CSV_HEADS = ("name", "id", "kind", "instances", "hours", "boot_hours", "idle_hours", "idle_share", "cost", "idle_cost",
             "unpriced_hours")  # fmt: skip


def cost_heads(cost: Cost) -> list[str]:
    """POOL (or what it is by), RUN's ID, INSTANCES TIME BOOT IDLE COST."""
    return [cost.by.upper(), *(["ID"] if cost.by == "run" else []), "INSTANCES", "TIME", "BOOT", "IDLE", "COST"]


def cost_cells(row: CostRow, *, cost: Cost, total: bool = False) -> list[str]:
    """One line under `cost_heads`. A name in brackets stands for what has none; no document could give it."""
    name = KINDLESS[row.kind] if row.kind or total else row.name or "(none)"
    idle = f"{rough(int(row.idle))} ({row.idle_share:.0%})" if row.idle else ""
    amount = price(_dollars(row.cost)) + (f" + $? for {rough(int(row.unpriced))}" if row.unpriced else "")
    ids = [row.id] if cost.by == "run" else []
    boot = rough(int(row.boot)) if row.boot else ""
    return [name, *ids, str(len(row.instances)), rough(int(row.seconds)), boot, idle, amount]


def cost_json(cost: Cost, *, project: str) -> dict[str, Any]:
    """What `dstack cost --json` prints."""
    return {
        "version": 1,
        "project": project,
        "since": stamp(cost.since),
        "until": stamp(cost.until),
        "by": cost.by,
        "rows": [_row(row) for row in cost.rows],
        "total": _row(cost.total),
        "alive": cost.alive,
    }


def _row(row: CostRow) -> dict[str, Any]:
    return {
        "name": row.name,
        "id": row.id,
        "kind": row.kind,
        "instances": len(row.instances),
        "hours": _hours(row.seconds),
        "boot_hours": _hours(row.boot),
        "idle_hours": _hours(row.idle),
        "idle_share": round(row.idle_share, 4),
        "cost": float(_dollars(row.cost)),
        "idle_cost": float(_dollars(row.idle_cost)),
        "unpriced_hours": _hours(row.unpriced),
    }


def _hours(seconds: Fraction) -> float:
    return float(round(seconds / HOUR, 4))


def _dollars(amount: Fraction) -> Decimal:
    return Decimal(round(amount * 10**6)) / 10**6


def cost_csv(cost: Cost) -> str:
    """One line a row, and no total: whoever sums up the column would count it twice."""
    return _csv(CSV_HEADS, [[_row(row)[head] for head in CSV_HEADS] for row in cost.rows])


def _csv(heads: Sequence[str], lines: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(heads)
    writer.writerows([_cell(cell) for cell in line] for line in lines)
    return text.getvalue()


def _cell(value: Any) -> Any:
    """A name that a spreadsheet would take for a formula starts with an apostrophe there."""
    if not isinstance(value, str):
        return value
    text = clean(value)
    return f"'{text}" if re.match(r"[=+\-@]", text) else text


def event_json(entry: Entry) -> dict[str, Any]:
    """One event of `dstack events --json`; every key is always there."""
    return {
        "id": entry.id,
        "at": stamp(entry.at),
        "kind": entry.kind,
        "subject": entry.subject,
        "name": entry.name,
        "pool": entry.pool,
        "run": entry.run,
        "user": entry.user,
        "place": entry.place,
        "instance": entry.instance,
        "instance_type": entry.instance_type,
        "spot": entry.spot,
        "price": None if entry.price is None else float(entry.price),
        "seconds": entry.seconds,
        "tags": dict(entry.tags),
        "by": entry.by,
        "why": entry.why,
    }


def event_line(entry: Entry, names: Mapping[str, str]) -> str:
    """`2026-11-23T04:15:08Z  ended       instance gpu-0 (pool gpu): idle for 5m  [cron@lab]`; `names` by id."""
    what = entry.subject.partition(" ")[0]
    pool = entry.pool if what != "pool" else ""
    where = ", ".join([*([f"pool {pool}"] if pool else []), *([entry.place] if entry.place else [])])
    text = f"{stamp(entry.at)}  {entry.kind:<11}  {f'{what} {entry.name}'.strip()}"
    text += (f" ({where})" if where else "") + (f": {said}" if (said := event_detail(entry, names)) else "")
    return clean(f"{text}  [{entry.by}]" if entry.by else text)


# Of one second, in the order in which they come about; those in a bucket are found by their digest.
_ORDER = {kind: at for at, kind in enumerate(
    ("applied", "submitted", "launched", "seen", "ready", "started", "finished", "used"))}  # fmt: skip


def event_order(entry: Entry) -> tuple[int, int]:
    """Sort key: the order in which events happened."""
    return entry.at, _ORDER.get(entry.kind, len(_ORDER))


def event_detail(entry: Entry, names: Mapping[str, str]) -> str:
    """Describe an event without its time and subject. `names` of instances by id."""
    if entry.kind == "billed":
        amount = "" if entry.price is None else f" = {price(entry.price * entry.seconds / HOUR)}"
        return f"{rough(entry.seconds)} at {hourly(entry.price)}{amount}"
    if entry.kind == "used":
        return f"{rough(entry.seconds)} on {names.get(entry.instance, entry.instance)}, {entry.why}"
    if entry.kind == "applied":
        commit, edits, _ = entry.why.partition(EDITS)
        return f"commit {commit[:10]}{edits}" if commit else "documents without git"
    return entry.why
