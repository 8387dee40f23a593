"""Format the table of offers, cheapest first, and its JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from reconciler.report.tables import fitted
from reconciler.text.format import bounded, clean, counted, dated, price, resources, stamp
from schemas.base import Price, Seconds
from schemas.resources import Resources

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass(frozen=True, kw_only=True)
class OfferRow:
    """A machine that exists or could be had. `availability`: idle, busy, no quota, no capacity or empty.

    `price` and `resources` are those of `blocks` of `of`; `at_most`: it may cost less, never more. `source` said
    the price at `priced_at`.
    """

    backend: str
    region: str
    instance: str
    resources: Resources
    spot: bool
    price: Price | None
    availability: str = ""
    zone: str = ""
    at_most: bool = False
    source: str = ""
    priced_at: Seconds | None = None
    blocks: int = 1
    of: int = 1


@dataclass(kw_only=True)
class Group:
    """Offers that have one thing in common. `cheapest` is the first of them."""

    name: str
    cheapest: OfferRow
    offers: int = 0
    regions: set[str] = field(default_factory=set)


def offer_text(rows: Sequence[OfferRow], *, total: int, now: Seconds, width: int = 0) -> tuple[RenderableType, str]:
    """`# BACKEND REGION INSTANCE RESOURCES SPOT PRICE`, what is to know of each, and the line below: `shown`.

    Who said the prices, and when, is a column where they differ and `width` (0: any) has room for it.
    """
    heads = ["#", "BACKEND", "REGION", "INSTANCE", "RESOURCES", "SPOT", "PRICE"]
    lines = [
        [str(number), row.backend, row.zone or row.region, row.instance, resources(row.resources),
         "yes" if row.spot else "no", price_of(row)]
        for number, row in enumerate(rows, 1)
    ]  # fmt: skip
    notes = [_notes(row) for row in rows]
    priced = [said(row, now=now) for row in rows]
    sayings = dict.fromkeys(words for words in priced if words)
    noted = [[*line, note] for line, note in zip(lines, notes, strict=True)]
    dated = [[*line, words] for line, words in zip(noted, priced, strict=True)]
    if len(sayings) > 1 and _fits([*heads, "", "PRICED"], dated, width=width):
        return fitted([*heads, "", "PRICED"], dated, core=9, width=0), shown(rows, total=total)
    by = shown(rows, total=total, by="; ".join(sayings), width=width)
    if _fits([*heads, ""], noted, width=width):
        return fitted([*heads, ""], noted, core=8, width=0), by
    return _noted(fitted(heads, lines, core=7, width=width), notes), by


def _noted(table: RenderableType, notes: Sequence[str]) -> RenderableType:
    """`2, 3: no capacity`, below: beside them it would squeeze what they are about."""
    from rich.console import Group as Lines

    numbers = {note: [str(at) for at, one in enumerate(notes, 1) if one == note] for note in notes if note}
    return Lines(table, *(clean(f"{', '.join(found)}: {note}") for note, found in numbers.items()))


def _fits(heads: Sequence[str], lines: Sequence[Sequence[str]], *, width: int) -> bool:
    widths = [max(map(len, column)) for column in zip(heads, *lines, strict=True)]
    return not width or sum(widths) + 2 * len(widths) <= width


def group_table(groups: Sequence[Group], *, by: str, width: int = 0) -> RenderableType:
    """What it is by, OFFERS REGIONS, and the cheapest of each: FROM INSTANCE REGION SPOT."""
    heads = [by.upper(), "OFFERS", "REGIONS", "FROM", "INSTANCE", "REGION", "SPOT"]
    lines = [
        [group.name, str(group.offers), str(len(group.regions)), price_of(group.cheapest), group.cheapest.instance,
         group.cheapest.zone or group.cheapest.region, "yes" if group.cheapest.spot else "no"]
        for group in groups
    ]  # fmt: skip
    return fitted(heads, lines, core=len(heads), width=width)


def grouped(rows: Sequence[OfferRow], *, by: str) -> list[Group]:
    """By `gpu`, `region` or `backend`; the rows come cheapest first, and so do the groups."""
    found: dict[str, Group] = {}
    for row in rows:
        name = _name(row, by=by)
        group = found.setdefault(name, Group(name=name, cheapest=row))
        group.offers += 1
        group.regions.add(row.region)
    return list(found.values())


def _name(row: OfferRow, *, by: str) -> str:
    if by == "gpu":
        gpu = row.resources.gpu
        return f"{gpu.count}x{gpu.name} ({gpu.memory // 1024}GB)" if gpu and gpu.count else "none"
    return row.region if by == "region" else row.backend


def price_of(row: OfferRow) -> str:
    """`$1.20`, `≤ $1.20`, `$?`."""
    return bounded(row.price, at_most=row.at_most)


def said(row: OfferRow, *, now: Seconds) -> str:
    return "" if row.price is None else dated(row.source, row.priced_at, now=now)


def _notes(row: OfferRow) -> str:
    share = f"{row.blocks} of {row.of} blocks" if row.of > 1 else ""
    return ", ".join(each for each in (row.availability, share) if each)


def shown(rows: Sequence[OfferRow], *, total: int, by: str = "", width: int = 0) -> str:
    """`Shown 3 of 82 offers, $40.94 max`: the dearest of those shown; `by` whom, where it is said here.

    Two lines where one is wider than `width`.
    """
    known = [row.price for row in rows if row.price is not None]
    dearest = f", {price(max(known))} max" if known else ""
    line = f"Shown {len(rows)} of {counted(total, 'offer')}{dearest}"
    said = f"prices: {by}" if by else ""
    apart = "\n" if width and len(line) + len(said) + 2 > width else "; "
    return f"{line}{apart}{said}" if said else line


def offers_json(
    rows: Sequence[OfferRow], *, total: int, funnel: str, warnings: Sequence[str], groups: Sequence[dict[str, Any]] = ()
) -> dict[str, Any]:
    """`dstack offers --json` (schemas/json/offers-json.schema.json). `total` is of all that fit, shown or not."""
    return {
        "version": 1,
        "total": total,
        "funnel": funnel,
        "warnings": list(warnings),
        "offers": [_json(one) for one in rows],
        "groups": list(groups),
    }


def groups_json(groups: Sequence[Group], *, by: str) -> list[dict[str, Any]]:
    return [
        {
            "by": by,
            "name": one.name,
            "offers": one.offers,
            "regions": sorted(one.regions),
            "cheapest": _json(one.cheapest),
        }
        for one in groups
    ]


def _json(row: OfferRow) -> dict[str, Any]:
    gpu = row.resources.gpu
    return {
        "backend": row.backend,
        "region": row.region,
        "zone": row.zone or None,
        "instance_type": row.instance,
        "resources": resources(row.resources),
        "cpus": row.resources.cpus,
        "cpu_arch": row.resources.cpu_arch,
        "memory_mib": row.resources.memory,
        "gpu": None if gpu is None else {"name": gpu.name, "count": gpu.count, "memory_mib": gpu.memory},
        "spot": row.spot,
        "price": None if row.price is None else float(row.price),
        "at_most": row.at_most,
        "source": row.source or None,
        "priced_at": stamp(row.priced_at),
        "availability": row.availability or None,
        "blocks": row.blocks,
        "of_blocks": row.of,
    }
