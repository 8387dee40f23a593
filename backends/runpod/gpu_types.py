"""Read what RunPod sells: pods of so many GPUs of one kind, in a data center. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal, get_args

from backends.catalog.gpus import gpu, gpu_memory, gpu_name
from backends.errors import BackendError, TryLater
from schemas.offer import Offer
from schemas.resources import Gpu, Need, Resources

Cloud = Literal["SECURE", "COMMUNITY"]
CLOUDS: tuple[Cloud, ...] = get_args(Cloud)
SOURCE = "RunPod; its disk is billed apart, $0.10/GB a month"
GIB = 1024
_FORM = re.compile(r" (SXM\d?|PCIe)( \d+GB)?$", re.IGNORECASE)
_TYPE = re.compile(r"([1-9]\d*)x-([a-z0-9.-]+?)(-community)?")
MOST_COUNTS = 4
SMALLEST = (2, 8)
"""vCPUs and GB of memory of a pod whose size RunPod does not tell: those of the smallest."""


def type_name(gpu_id: str, count: int, cloud: str) -> str:
    """`NVIDIA GeForce RTX 4090`, 2 of it: `2x-geforce-rtx-4090`."""
    slug = re.sub(r"[^a-z0-9.]+", "-", gpu_id.lower()).strip("-").removeprefix("nvidia-")
    return f"{count}x-{slug}{'-community' if cloud == 'COMMUNITY' else ''}"


def count_of(instance_type: str) -> tuple[int, Cloud]:
    """How many GPUs, in which cloud. Raises `BackendError` for what is no type of RunPod's."""
    found = _TYPE.fullmatch(instance_type)
    if found is None:
        raise BackendError(f"{instance_type} is no instance type of RunPod, such as 2x-geforce-rtx-4090")
    return int(found[1]), "COMMUNITY" if found[3] else "SECURE"


def counts_of(needs: Sequence[Need]) -> tuple[int, ...]:
    """How many GPUs are asked for, each a request of its own; 1 where nothing says."""
    asked = [need.gpu.count for need in needs if need.gpu is not None]
    wanted = {max(1, span.min or 1) for span in asked}
    wanted |= {n for span in asked for n in (1, 2, 4, 8) if span.holds(n) and n >= 1}
    return tuple(sorted(wanted or {1, 2, 4, 8})[:MOST_COUNTS])


def sizes(data: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """GPU id -> vCPUs and GB of memory of a pod with it, as GraphQL tells them."""
    found: dict[str, tuple[int, int]] = {}
    for one in data.get("gpuTypes") or ():
        lowest = one.get("lowestPrice") if isinstance(one, dict) else None
        if isinstance(lowest, dict) and lowest.get("minVcpu") and lowest.get("minMemory"):
            found[str(one.get("id"))] = (int(lowest["minVcpu"]), int(lowest["minMemory"]))
    return found


def offers(
    kinds: Iterable[Mapping[str, Any]],
    *,
    backend: str,
    region: str,
    count: int,
    cloud: Cloud,
    sized: Mapping[str, tuple[int, int]],
    now: int,
) -> Iterator[Offer]:
    """Pods of `count` GPUs, in `region` or, where that is "", in each data center that has some.

    Raises `TryLater` where the answer is none of RunPod's.
    """
    for kind in kinds:
        try:
            yield from _of_kind(
                kind, backend=backend, region=region, count=count, cloud=cloud, sized=sized, now=now
            )  # fmt: skip
        except (KeyError, TypeError, ValueError, ArithmeticError) as error:
            raise TryLater(f"RunPod's GPUs: an entry is not readable ({type(error).__name__})") from None


def _of_kind(
    kind: Mapping[str, Any],
    *,
    backend: str,
    region: str,
    count: int,
    cloud: Cloud,
    sized: Mapping[str, tuple[int, int]],
    now: int,
) -> Iterator[Offer]:
    key = cloud.lower()
    price = Decimal(str(kind["price"][key])) * count
    if not kind[key] or int(kind["maxCount"][key]) < count or price <= 0:
        return
    stocks = {str(one["id"]): str(one["availability"]) for one in kind.get("dataCenters") or ()}
    there = {at: level != "NONE" for at, level in stocks.items()}
    for at in [region] if region else [one for one, free in there.items() if free]:
        cpus, memory = sized.get(str(kind["id"]), SMALLEST)
        yield Offer(
            backend=backend,
            region=at,
            instance_type=type_name(str(kind["id"]), count, cloud),
            handle=str(kind["id"]),
            resources=Resources(cpus=cpus, memory=memory * GIB, gpu=_gpu(kind, count)),
            price=price,
            availability="available" if there.get(at) else "no-capacity",
            source=SOURCE,
            priced_at=now,
            self_termination="none",
        )


def _gpu(kind: Mapping[str, Any], count: int) -> Gpu:
    name = gpu_name(_FORM.sub("", str(kind["name"])))
    name = re.sub(r"^RTXA(\d{4})$", r"A\1", name)
    vendor = "amd" if str(kind["manufacturer"]).upper() == "AMD" else "nvidia"
    return gpu(name, memory=gpu_memory(name, int(kind["memory"]) * GIB), count=count, vendor=vendor)
