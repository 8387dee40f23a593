"""Compute every offer of a cloud from its catalog layers, without network or credentials.

The catalog that is shipped lies below; over it gpuhunt's, where it was downloaded and its prices are younger; over
both what the regions themselves said when they were asked. `catalog_refresh` is what asks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from backends.catalog.gpus import gpu
from schemas.base import Price, Seconds
from schemas.catalog import Catalog, CatalogType, LiveRegion
from schemas.desired import BackendConfig
from schemas.offer import Offer
from schemas.resources import GpuNeed, Need, Resources, Where

AWS = "AWS"
DERIVED = " (derived)"
_MILLION = 1_000_000


class PricedRow(NamedTuple):
    """A type in a region. Prices in millionths of a dollar, 0 where unknown; `said` indexes `Layers.said`."""

    kind: CatalogType
    on_demand: int
    said: int
    spot: int


@dataclass(kw_only=True)
class Layers:
    """What is known of one cloud. `warnings` say which file of the cache was left out, and why.

    Its tables are made when first needed and kept: several questions cost little more than one.
    """

    shipped: Catalog
    published: Catalog | None = None
    live: Mapping[str, LiveRegion] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    said: tuple[tuple[str, Seconds | None], ...] = ()
    _rows: dict[str, tuple[PricedRow, ...]] = field(default_factory=dict)
    _resources: dict[str, Resources] = field(default_factory=dict)
    _prices: dict[int, Price | None] = field(default_factory=lambda: {0: None})

    def __post_init__(self) -> None:
        shipped, published = self.shipped, self.published
        self.said = (
            (shipped.name, shipped.priced_at),
            (shipped.name + DERIVED, shipped.priced_at),
            (published.name, published.priced_at) if published else ("", None),
        )

    def regions(self) -> tuple[str, ...]:
        """Every one that anything is known of."""
        published = self.published.regions if self.published else {}
        return tuple(sorted({*self.shipped.regions, *published, *self.live}))

    def rows(self, region: str) -> tuple[PricedRow, ...]:
        """What it sells. Its own word on that is the last one; prices are the youngest that were said."""
        if region not in self._rows:
            found = _listed(self.shipped, region)
            if self.published is not None:
                found = _younger(found, _published(self.published, region), self.published, self.shipped)
            if region in self.live:
                found = _confirmed(found, self.live[region])
            self._rows[region] = tuple(found.values())
        return self._rows[region]

    def resources(self, kind: CatalogType) -> Resources:
        found = self._resources.get(kind.name)
        if found is None:
            found = self._resources[kind.name] = _resources(kind)
        return found

    def price(self, micro: int) -> Price | None:
        if micro not in self._prices:
            self._prices[micro] = dollars(micro)
        return self._prices[micro]


def offers(config: BackendConfig, layers: Layers, need: Need, where: Where) -> Iterator[Offer]:
    """Everything that could be had, but for other GPUs, regions, types and purchases than the asked ones.

    Whether it fits is the matcher's to say. A zone is named where one was asked for, or where its own price is known.
    """
    types = frozenset(where.instance_types)
    for region in config.regions or layers.regions():
        if where.regions and region not in where.regions:
            continue
        zones = tuple(zone for zone in where.zones if zone.startswith(region))
        if where.zones and not zones:
            continue
        told = layers.live.get(region)
        for row in layers.rows(region):
            if (types and row.kind.name not in types) or not _may_do(need.gpu, row.kind):
                continue
            if where.spot != "spot":
                yield from _on_demand(config, layers, region, row, zones=zones, told=told)
            if where.spot != "on-demand" and row.kind.spot:
                yield from _spot(config, layers, region, row, zones=zones, told=told)


def _may_do(need: GpuNeed | None, kind: CatalogType) -> bool:
    """Whether its GPUs are of a kind that was asked for; how many and how large is the matcher's."""
    if need is None or need.count.holds(0):
        return True
    return bool(kind.gpu) and (not need.names or kind.gpu.lower() in need.names)


def _on_demand(
    config: BackendConfig,
    layers: Layers,
    region: str,
    row: PricedRow,
    *,
    zones: tuple[str, ...],
    told: LiveRegion | None,
) -> Iterator[Offer]:
    source, at = layers.said[row.said] if row.on_demand else ("", None)
    for zone in zones or ("",):
        if zone and told is not None and zone not in told.zones.get(row.kind.name, ()):
            continue
        yield Offer(
            backend=config.name,
            region=region,
            zone=zone,
            instance_type=row.kind.name,
            resources=layers.resources(row.kind),
            price=layers.price(row.on_demand),
            source=source,
            priced_at=at,
        )


def _spot(
    config: BackendConfig,
    layers: Layers,
    region: str,
    row: PricedRow,
    *,
    zones: tuple[str, ...],
    told: LiveRegion | None,
) -> Iterator[Offer]:
    """By zone where the region told its prices; else the published price; else not more than on-demand costs."""
    name = row.kind.name
    if told is not None and not told.spot_error:
        for zone, micro in sorted(told.spot.get(name, {}).items()):
            if not zones or zone in zones:
                yield Offer(
                    backend=config.name,
                    region=region,
                    zone=zone,
                    instance_type=name,
                    spot=True,
                    source=AWS,
                    resources=layers.resources(row.kind),
                    price=layers.price(micro),
                    priced_at=told.at,
                )
        return
    micro = row.spot or row.on_demand
    source, at = layers.said[2 if row.spot else row.said] if micro else ("", None)
    for zone in zones or ("",):
        if zone and told is not None and zone not in told.zones.get(name, ()):
            continue
        yield Offer(
            backend=config.name,
            region=region,
            zone=zone,
            instance_type=name,
            spot=True,
            source=source,
            priced_at=at,
            resources=layers.resources(row.kind),
            price=layers.price(micro),
            at_most=bool(micro and not row.spot),
        )


# ---------------------------------------------------------------- one region's rows


def _listed(catalog: Catalog, region: str) -> dict[str, PricedRow]:
    """Of the shipped catalog."""
    here = catalog.regions.get(region)
    if here is None:
        return {}
    types, derived = catalog.types, frozenset(here.derived)
    return {
        types[kind].name: PricedRow(types[kind], price, 1 if at in derived else 0, 0)
        for at, (kind, price) in enumerate(zip(here.types, here.on_demand, strict=True))
    }


def _published(catalog: Catalog, region: str) -> dict[str, PricedRow]:
    here = catalog.regions.get(region)
    if here is None:
        return {}
    types, spot = catalog.types, here.spot or (0,) * len(here.types)
    return {
        types[kind].name: PricedRow(types[kind], price, 2, spot[at])
        for at, (kind, price) in enumerate(zip(here.types, here.on_demand, strict=True))
    }


def _younger(
    found: dict[str, PricedRow], published: Mapping[str, PricedRow], theirs: Catalog, ours: Catalog
) -> dict[str, PricedRow]:
    """Their prices where they are younger or the only ones; our word on what the machine has."""
    younger = theirs.priced_at >= ours.priced_at
    for name, row in published.items():
        own = found.get(name)
        if own is None:
            found[name] = row
        elif row.on_demand and (younger or not own.on_demand):
            found[name] = PricedRow(own.kind, row.on_demand, row.said, row.spot)
        elif row.spot:
            found[name] = own._replace(spot=row.spot)
    return found


def _confirmed(found: Mapping[str, PricedRow], told: LiveRegion) -> dict[str, PricedRow]:
    """What the region says that it sells, and no more."""
    new = {kind.name: PricedRow(kind, 0, 0, 0) for kind in told.types}
    return {name: row for name in told.zones if (row := found.get(name) or new.get(name)) is not None}


def _resources(kind: CatalogType) -> Resources:
    """A root disk is made in any size: 0."""
    card = gpu(kind.gpu, memory=kind.gpu_memory, count=kind.gpu_count, vendor=kind.vendor) if kind.gpu_count else None
    return Resources(cpus=kind.cpus, memory=kind.memory, cpu_arch=kind.arch, gpu=card)


def dollars(micro: int) -> Price:
    """Without exponents and without zeros at the end, as prices are written."""
    text = f"{micro // _MILLION}.{micro % _MILLION:06d}".rstrip("0")
    return Price(text.rstrip("."))
