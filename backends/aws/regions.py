"""Ask a region of AWS which types it offers in which zone, and for its spot prices."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from typing import Any

from backends.aws.clients import client
from backends.aws.errors import failures, understood
from backends.aws.instance_types import type_of
from backends.catalog.offers import Layers
from backends.errors import CallFailed
from schemas.base import Seconds
from schemas.catalog import CatalogType, LiveRegion
from schemas.desired import BackendConfig

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
