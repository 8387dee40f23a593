"""Read what Lambda sells: its types of instances, their GPUs and prices. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from backends.catalog.gpus import gpu, gpu_memory, gpu_name
from backends.errors import TryLater
from schemas.base import Price
from schemas.offer import Offer
from schemas.resources import Gpu, Resources

_GPU = re.compile(r"(?:\d+x )?(?:NVIDIA |Tesla |Quadro )*(.+?) \((\d+) GB")
_ARM = re.compile(r"G[HB]\d+")
GIB = 1024


def offers(types: Any, *, backend: str, region: str = "", now: int) -> Iterator[Offer]:
    """Each type in `region`, or in each region that has it; a type that no region has only where one is named.

    Raises `TryLater` where the answer is none of Lambda's.
    """
    if not isinstance(types, dict):
        raise TryLater("Lambda's instance types: the answer has no table of types")
    for one in types.values():
        try:
            kind = one["instance_type"]
            there = [str(place["name"]) for place in one["regions_with_capacity_available"]]
            found = [_offer(kind, backend=backend, region=at, free=at in there, now=now) for at in [region] if at]
            found = found or [_offer(kind, backend=backend, region=at, free=True, now=now) for at in there]
        except (KeyError, TypeError, ValueError, ArithmeticError) as error:
            raise TryLater(f"Lambda's instance types: an entry is not readable ({type(error).__name__})") from None
        yield from found


def _offer(kind: Mapping[str, Any], *, backend: str, region: str, free: bool, now: int) -> Offer:
    return Offer(
        backend=backend,
        region=region,
        instance_type=kind["name"],
        resources=resources(kind),
        price=price(kind),
        availability="available" if free else "no-capacity",
        source="Lambda",
        priced_at=now,
    )


def price(kind: Mapping[str, Any]) -> Price:
    """$/h."""
    return Decimal(int(kind["price_cents_per_hour"])) / 100


def resources(kind: Mapping[str, Any]) -> Resources:
    """Of one instance of that type. Its disk is fixed."""
    specs = kind["specs"]
    count = int(specs["gpus"])
    found = _gpu(str(kind.get("gpu_description") or kind["description"]), count) if count else None
    return Resources(
        cpus=int(specs["vcpus"]),
        memory=int(specs["memory_gib"]) * GIB,
        disk=int(specs["storage_gib"]) * GIB,
        cpu_arch="arm" if found is not None and _ARM.match(found.name) else "x86",
        gpu=found,
    )


def _gpu(described: str, count: int) -> Gpu:
    """Lambda tells model and memory as prose alone: `H100 (80 GB SXM5)`."""
    said = _GPU.match(described)
    name = gpu_name(said[1] if said else described)
    memory = gpu_memory(name, int(said[2]) * GIB) if said else 0
    return gpu(name, memory=memory, count=count, vendor="nvidia")
