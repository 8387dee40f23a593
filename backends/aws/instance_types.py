"""Convert what DescribeInstanceTypes answers into catalog entries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from backends.catalog.gpus import gpu_memory, gpu_name
from schemas.catalog import CatalogType

ARCHITECTURES: dict[str, Literal["x86", "arm"]] = {"x86_64": "x86", "arm64": "arm"}


def type_of(told: Mapping[str, Any]) -> CatalogType | None:
    """`None` for what nothing of ours runs on: Macs, fractions of a GPU, the first generations."""
    arch = next((ARCHITECTURES[one] for one in _architectures(told) if one in ARCHITECTURES), None)
    if arch is None or (told.get("Hypervisor") == "xen" and not told.get("CurrentGeneration")):
        return None
    gpus = told.get("GpuInfo", {}).get("Gpus", [])
    if any(not each.get("Count") for each in gpus):
        return None
    first = gpus[0] if gpus else {}
    name = gpu_name(first.get("Name", ""))
    return CatalogType(
        name=told["InstanceType"],
        cpus=told["VCpuInfo"]["DefaultVCpus"],
        memory=told["MemoryInfo"]["SizeInMiB"],
        arch=arch,
        gpu=name,
        gpu_count=sum(each["Count"] for each in gpus),
        gpu_memory=gpu_memory(name, first["MemoryInfo"]["SizeInMiB"]) if first else 0,
        vendor=first.get("Manufacturer", "").lower(),
        spot="spot" in told.get("SupportedUsageClasses", ()),
    )


def _architectures(told: Mapping[str, Any]) -> list[str]:
    return sorted(told.get("ProcessorInfo", {}).get("SupportedArchitectures", ()), reverse=True)
