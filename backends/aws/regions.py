"""Ask a region of AWS which types it offers in which zone, and for its spot prices."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from msgspec.structs import replace

from backends.aws.clients import client
from backends.aws.errors import ask, failures, understood
from backends.aws.instance_types import type_of
from backends.catalog.offers import Layers
from backends.errors import CallFailed
from schemas.base import Seconds
from schemas.catalog import CatalogType, LiveRegion
from schemas.desired import BackendConfig
from schemas.offer import Offer
from schemas.resources import Need, Where

LINUX = ["Linux/UNIX", "Linux/UNIX (Amazon VPC)"]
AT_ONCE = 100  # types in one DescribeInstanceTypes
_MILLION = 1_000_000


def live_region(config: BackendConfig, region: str, layers: Layers, *, now: Seconds) -> LiveRegion:
    """Three kinds of call, all of them only look. Raises `BackendError` where the types cannot be asked for.

    That spot prices may not be seen is no error: `spot_error` says so.
    """
    ec2 = client(config, "ec2", region)
    zones: dict[str, list[str]] = defaultdict(list)
    offerings = "describe_instance_type_offerings"
    for row in _pages(ec2, offerings, "InstanceTypeOfferings", LocationType="availability-zone"):
        zones[row["InstanceType"]].append(row["Location"])
    known = {row.kind.name for name in layers.regions() for row in layers.rows(name)}
    spot, spot_error = _spot_prices(ec2, now=now)
    return LiveRegion(
        at=now,
        zones={name: tuple(sorted(found)) for name, found in sorted(zones.items())},
        spot=spot,
        types=tuple(_types(ec2, sorted(zones.keys() - known))),
        spot_error=spot_error,
    )


def _spot_prices(ec2: Any, *, now: Seconds) -> tuple[dict[str, dict[str, int]], str]:
    """type -> zone -> the newest price of each."""
    newest: dict[tuple[str, str], tuple[datetime, int]] = {}
    moment = datetime.fromtimestamp(now, UTC)
    try:
        for row in _pages(
            ec2, "describe_spot_price_history", "SpotPriceHistory", StartTime=moment, ProductDescriptions=LINUX
        ):
            key = (row["InstanceType"], row["AvailabilityZone"])
            price = round(float(row["SpotPrice"]) * _MILLION)
            if price > 0 and (key not in newest or row["Timestamp"] > newest[key][0]):
                newest[key] = (row["Timestamp"], price)
    except CallFailed as error:
        return {}, str(error)
    found: dict[str, dict[str, int]] = defaultdict(dict)
    for (name, zone), (_, price) in sorted(newest.items()):
        found[name][zone] = price
    return dict(found), ""


def _types(ec2: Any, names: Collection[str]) -> Iterator[CatalogType]:
    """Those that no catalog has yet."""
    ordered = sorted(names)
    for start in range(0, len(ordered), AT_ONCE):
        some = ordered[start : start + AT_ONCE]
        for told in _pages(ec2, "describe_instance_types", "InstanceTypes", InstanceTypes=some):
            kind = type_of(told)
            if kind is not None:
                yield kind


def _pages(ec2: Any, operation: str, key: str, **asked: Any) -> Iterator[dict[str, Any]]:
    try:
        for page in ec2.get_paginator(operation).paginate(**asked):
            yield from page[key]
    except failures() as error:
        raise understood(error, operation=operation) from None


def catalog_offers(config: BackendConfig, region: str, *, now: float) -> Sequence[Offer]:
    from backends.catalog.cache import cache_of
    from backends.catalog.layers import layers_of
    from backends.catalog.offers import offers

    known = layers_of(config, cache_of(os.environ), now=int(now))
    return tuple(offers(replace(config, regions=(region,)), known, Need(), Where(spot="auto")))


def regions(config: BackendConfig) -> Sequence[str]:
    """Every region that the account has switched on, or those that the documents name."""
    if config.regions:
        return config.regions
    home = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    found = ask(client(config, "ec2", home), "describe_regions")["Regions"]
    return sorted(one["RegionName"] for one in found)
