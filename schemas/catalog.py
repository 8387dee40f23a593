"""A catalog as it is written down: what types there are, where, and at what price on which day.

Columns, not records: some 40,000 offers are read in a few milliseconds. Prices are whole millionths of a dollar
an hour, 0 where nobody said one.
"""

from __future__ import annotations

from typing import Literal

from schemas.base import Mib, Seconds, Value

CATALOG_VERSION = 1


class CatalogType(Value, frozen=True, kw_only=True, array_like=True):
    """A type of machine. `gpu_memory` is of each GPU; `spot`: it is sold as spot at all."""

    name: str
    cpus: int
    memory: Mib
    arch: Literal["x86", "arm"] = "x86"
    gpu: str = ""
    gpu_count: int = 0
    gpu_memory: Mib = 0
    vendor: str = ""
    spot: bool = True


class CatalogRegion(Value, frozen=True, kw_only=True):
    """What one region sells: `types` are positions in the catalog's, ascending; prices in the same order.

    `spot` is empty where no spot price is known of any. `derived` are positions in `types` whose on-demand price
    follows from that of their family elsewhere.
    """

    types: tuple[int, ...] = ()
    on_demand: tuple[int, ...] = ()
    spot: tuple[int, ...] = ()
    derived: tuple[int, ...] = ()


class CatalogSource(Value, frozen=True, kw_only=True):
    """Where it is from. `url` is where that project lives."""

    name: str
    version: str
    licence: str
    what: str
    url: str = ""


class Catalog(Value, frozen=True, kw_only=True):
    """`name` is said beside a price; `priced_at`: the day of its prices; `checked_at`: when it was last the newest."""

    version: int
    name: str
    provider: str
    priced_at: Seconds
    checked_at: Seconds = 0
    edition: str = ""
    sources: tuple[CatalogSource, ...] = ()
    types: tuple[CatalogType, ...]
    regions: dict[str, CatalogRegion]


class LiveRegion(Value, frozen=True, kw_only=True):
    """What a region said of itself: type -> zones that offer it; type -> zone -> spot price now.

    `spot_error` is why it told no spot prices; its `types` are then still good.
    """

    at: Seconds
    zones: dict[str, tuple[str, ...]]
    spot: dict[str, dict[str, int]] = {}
    types: tuple[CatalogType, ...] = ()
    spot_error: str = ""


class Live(Value, frozen=True, kw_only=True):
    """What the regions told one account, each when it was asked."""

    version: int
    regions: dict[str, LiveRegion] = {}


def flaw(catalog: Catalog) -> str:
    """Why it must not be believed; "" where nothing speaks against it. Whoever reads one from outside asks."""
    if catalog.version != CATALOG_VERSION:
        return f"its format is {catalog.version}, not {CATALOG_VERSION}"
    if not catalog.types or not catalog.regions:
        return "it is empty"
    for kind in catalog.types:
        if why := _flaw_of_type(kind):
            return f"{kind.name or 'a type without a name'}: {why}"
    for name, region in catalog.regions.items():
        if why := _flaw_of_region(region, types=len(catalog.types)):
            return f"{name or 'a region without a name'}: {why}"
    return ""


def _flaw_of_type(kind: CatalogType) -> str:
    if not kind.name or kind.cpus < 1 or kind.memory < 1:
        return "no name, no CPU or no memory"
    if kind.gpu_count < 0 or (kind.gpu_count > 0) != bool(kind.gpu) or (kind.gpu_count > 0) != (kind.gpu_memory > 0):
        return "its GPUs have no name, no number or no memory"
    return ""


def _flaw_of_region(region: CatalogRegion, *, types: int) -> str:
    if len(region.on_demand) != len(region.types) or len(region.spot) not in (0, len(region.types)):
        return "as many prices as types are needed"
    if region.types and not 0 <= region.types[0] <= region.types[-1] < types:
        return "it sells types that are not there"
    if any(first >= second for first, second in zip(region.types, region.types[1:], strict=False)):
        return "its types are not in order"
    if min((*region.on_demand, *region.spot, 0)) < 0:
        return "a price is negative"
    return ""
