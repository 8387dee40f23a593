"""The table of offers: what could be had for a run or a `pool add`, cheapest first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reconciler.render_words import clean, price, resources
from schemas.base import Price
from schemas.resources import Resources

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True, kw_only=True)
class OfferRow:
    """A machine that exists or could be had. `availability`: idle, busy, no quota, no capacity or empty."""

    backend: str
    region: str
    instance: str
    resources: Resources
    spot: bool
    price: Price | None
    availability: str = ""


def offer_table(rows: Sequence[OfferRow]) -> Table:
    """`# BACKEND REGION INSTANCE RESOURCES SPOT PRICE` and the availability."""
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for head in ("#", "BACKEND", "REGION", "INSTANCE", "RESOURCES", "SPOT", "PRICE", ""):
        table.add_column(head, no_wrap=head != "RESOURCES", overflow="fold")
    for number, row in enumerate(rows, 1):
        cells = (row.backend, row.region, row.instance, resources(row.resources), "yes" if row.spot else "no")
        table.add_row(str(number), *(clean(cell) for cell in cells), price(row.price), row.availability)
    return table


def shown(rows: Sequence[OfferRow], *, total: int) -> str:
    """`Shown 3 of 82 offers, $40.94 max`: the most expensive of those that are shown."""
    known = [row.price for row in rows if row.price is not None]
    dearest = f", {price(max(known))} max" if known else ""
    return f"Shown {len(rows)} of {total} offers{dearest}"
