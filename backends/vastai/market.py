"""Read what hosts offer on Vast.ai's market: so many GPUs of one machine, at the host's price. Pure.

An offer is one machine of one host, and gone once it is rented: each is a zone of its own (`DE-m4711`), so that a
refusal speaks of that machine alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import ROUND_UP, Decimal
from typing import Any

from backends.catalog.gpus import gpu, gpu_memory, gpu_name
from schemas.base import Mib
from schemas.offer import Offer
from schemas.resources import USUAL_DISK, Gpu, Need, Resources

WORLD = "world"
"""The region of a backend that names no countries."""
MOST = 2000
RELIABILITY = 0.9
DOWN = 128
"""Mbit/s at least, so that an image of some GB is there within minutes."""
CUDA = 12.8
CAPABILITY = 600
DURATION = 24 * 3600
"""Seconds that a host must promise to stay."""
GIB = 1024
_BID = Decimal("0.001")
_PRICE = Decimal("0.0001")
_FORM = re.compile(r"^(?:Tesla |Q )|(?: (?:SXM\d*|PCIE|WS|S|NVL))+$", re.IGNORECASE)


def query(needs: Sequence[Need], *, region: str, options: Mapping[str, Any], disk: Mib) -> dict[str, Any]:
    """The search for what may fit `needs`, cheapest first. What it filters is filtered again on the answer."""
    asked: dict[str, Any] = {
        "type": "ondemand",
        "limit": MOST,
        "order": [["dph_total", "asc"], ["id", "asc"]],
        "allocated_storage": disk // GIB,
        "rentable": {"eq": True},
        "rented": {"eq": False},
        "direct_port_count": {"gte": 1},
        "reliability": {"gte": _reliability(options)},
        "inet_down": {"gt": DOWN},
        "cuda_max_good": {"gte": CUDA},
        "compute_cap": {"gte": CAPABILITY},
        "duration": {"gte": DURATION},
    }
    if options.get("verified") is not False:
        asked["verified"] = {"eq": True}
    if options.get("datacenter"):
        asked["datacenter"] = {"eq": True}
    if region != WORLD:
        asked["geolocation"] = {"in": [region]}
    least = [need.gpu.count.min or 0 if need.gpu else 0 for need in needs]
    if least and min(least) > 1:
        asked["num_gpus"] = {"gte": min(least)}
    return asked


def disks(needs: Sequence[Need]) -> tuple[Mib, ...]:
    """The sizes of disk that are asked for: Vast.ai bills the disk that a machine is made with."""
    return tuple(sorted({need.disk.min or USUAL_DISK for need in needs} or {USUAL_DISK}))


def offers(
    found: Iterable[Mapping[str, Any]],
    *,
    needs: Sequence[Need],
    backend: str,
    region: str,
    options: Mapping[str, Any],
    now: int,
) -> Iterator[Offer]:
    """On-demand ones first, then their interruptible twins; each cheapest first. An entry that tells too little of
    itself is left out.
    """
    made: list[Offer] = []
    for one in found:
        if not _acceptable(one, region=region, options=options):
            continue
        for disk in disks(needs):
            for spot in (False, True):
                offer = _offer(one, backend=backend, region=region, disk=disk, spot=spot, now=now)
                if offer is not None:
                    made.append(offer)
    yield from sorted(made, key=lambda offer: (offer.spot, offer.price, offer.handle))


def bid_of(offer_price: Decimal, *, disk: Mib, storage_cost: Decimal) -> Decimal:
    """$/h to bid for the machine: the offer's price without its disk."""
    return (offer_price - _disk_price(disk, storage_cost)).quantize(_BID, rounding=ROUND_UP)


def country(told: Any) -> str:
    """`Frankfurt, DE` is `DE`; "" where no country is told."""
    last = str(told or "").rpartition(",")[2].strip().upper()
    return last if re.fullmatch(r"[A-Z]{2}", last) else ""


def zone_of(one: Mapping[str, Any]) -> str:
    """The machine, as a zone: `DE-m4711`."""
    return f"{country(one.get('geolocation')) or 'XX'}-m{one.get('machine_id')}"


def type_name(one: Mapping[str, Any]) -> str:
    """2 of `RTX 4090`: `2x-rtx-4090`."""
    return f"{one.get('num_gpus')}x-{re.sub(r'[^a-z0-9.]+', '-', str(one.get('gpu_name')).lower()).strip('-')}"


def _acceptable(one: Mapping[str, Any], *, region: str, options: Mapping[str, Any]) -> bool:
    """Whether it holds what was searched for: the search may not filter all of it."""
    reliability = one.get("reliability2", one.get("reliability"))
    return (
        isinstance(one.get("id"), int)
        and one.get("rentable") is not False
        and not one.get("rented")
        and (options.get("verified") is False or one.get("verification") in (None, "verified"))
        and (not options.get("datacenter") or bool(one.get("hosting_type")) or one.get("datacenter") is True)
        and _least(reliability, _reliability(options))
        and _least(one.get("direct_port_count"), 1)
        and _least(one.get("cuda_max_good"), CUDA)
        and _least(one.get("compute_cap"), CAPABILITY)
        and _least(one.get("inet_down"), DOWN)
        and (one.get("duration") is None or _least(one["duration"], DURATION))
        and (region == WORLD or country(one.get("geolocation")) == region)
    )


def _offer(one: Mapping[str, Any], *, backend: str, region: str, disk: Mib, spot: bool, now: int) -> Offer | None:
    shape = _resources(one, disk)
    base = _decimal(one.get("min_bid" if spot else "dph_base"))
    storage = _decimal(one.get("storage_cost"))
    if shape is None or base is None or base <= 0 or storage is None:
        return None
    return Offer(
        backend=backend,
        region=region,
        zone=zone_of(one),
        instance_type=type_name(one),
        resources=shape,
        price=(base + _disk_price(disk, storage)).quantize(_PRICE, rounding=ROUND_UP),
        spot=spot,
        availability="available",
        free=1,
        source="Vast.ai; its disk is in the price, traffic is billed apart",
        priced_at=now,
        handle=f"{one['id']}:{storage.normalize():f}",
    )


def _resources(one: Mapping[str, Any], disk: Mib) -> Resources | None:
    """Our share of the machine; `None` where the entry does not tell it, or has no such disk."""
    cores, mine, memory = (one.get(key) for key in ("cpu_cores", "cpu_cores_effective", "cpu_ram"))
    if not (_least(cores, 0.1) and _least(mine, 0.1) and _least(memory, 1) and _least(one.get("num_gpus"), 1)):
        return None
    if not _least(one.get("disk_space"), disk / GIB):
        return None
    ours = int(float(memory or 0) * float(mine or 0) / float(cores or 1))
    return Resources(
        cpus=max(1, int(float(mine or 0))),
        memory=ours,
        disk=disk,
        cpu_arch="arm" if "arm" in str(one.get("cpu_arch") or "") else "x86",
        gpu=_gpu(one),
    )


def _gpu(one: Mapping[str, Any]) -> Gpu:
    name = gpu_name(_FORM.sub("", str(one.get("gpu_name") or "").replace("_", " ")))
    told = int(float(one.get("gpu_ram") or 0))
    memory = gpu_memory(name, round(told / GIB) * GIB)
    found = gpu(name, memory=memory, count=int(one["num_gpus"]), vendor=str(one.get("gpu_arch") or "nvidia").lower())
    capability = int(float(one.get("compute_cap") or 0)) // 10
    return Gpu(
        name=found.name,
        memory=found.memory,
        count=found.count,
        vendor=found.vendor,
        compute_capability=capability or found.compute_capability,
    )


def _reliability(options: Mapping[str, Any]) -> float:
    told = options.get("min_reliability")
    return RELIABILITY if told is None else float(told)


def _disk_price(disk: Mib, storage_cost: Decimal) -> Decimal:
    """$/h of a disk; `storage_cost` is $/GB a month of 30 days."""
    return Decimal(disk) / GIB * storage_cost / 30 / 24


def _decimal(told: Any) -> Decimal | None:
    return Decimal(str(told)) if isinstance(told, int | float) and not isinstance(told, bool) else None


def _least(told: Any, least: float) -> bool:
    return isinstance(told, int | float) and not isinstance(told, bool) and told >= least
