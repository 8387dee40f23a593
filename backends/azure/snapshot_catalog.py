"""Make the shipped catalog: `python -m backends.azure.snapshot_catalog --prices FILE`.

`FILE` has sizes and on-demand prices, joined from two openly licensed lists. The names of GPUs follow from those of
the families; a size with a part of a GPU, and one whose accelerator is no GPU, is left out.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import msgspec

from schemas.catalog import CATALOG_VERSION, Catalog, CatalogRegion, CatalogSource, CatalogType, flaw

SHIPPED = Path(__file__).with_name("catalog.json")
GIB = 1024
# learn.microsoft.com/azure/virtual-machines/sizes/overview: pattern -> name, GiB of each, maker.
GPUS: tuple[tuple[str, str, int, str], ...] = (
    (r"NC\d+r?s_v3", "V100", 16, "nvidia"),
    (r"ND40rs_v2", "V100", 32, "nvidia"),
    (r"NC\d+as_T4_v3", "T4", 16, "nvidia"),
    (r"NC\d+ads_A10_v4|NV(?:36ads|36adms|72ads)_A10_v5", "A10", 24, "nvidia"),
    (r"NC\d+ads_A100_v4|ND96amsr_A100_v4", "A100", 80, "nvidia"),
    (r"ND96asr_v4", "A100", 40, "nvidia"),
    (r"NCC?\d+adi?s_H100_v5", "H100", 94, "nvidia"),
    (r"ND96isr_H100_v5", "H100", 80, "nvidia"),
    (r"ND96isr_H200_v5", "H200", 141, "nvidia"),
    (r"ND96isr_MI300X_v5", "MI300X", 192, "amd"),
    (r"NV\d+s_v[23]", "M60", 8, "nvidia"),
)
SOURCES = (
    CatalogSource(
        name="karpenter-provider-azure",
        version="2026-06-18",
        licence="Apache-2.0",
        what="on-demand prices",
        url="https://github.com/Azure/karpenter-provider-azure",
    ),
    CatalogSource(
        name="kubernetes/autoscaler",
        version="2026-03",
        licence="Apache-2.0",
        what="CPUs, memory, GPUs and architecture of the sizes",
        url="https://github.com/kubernetes/autoscaler",
    ),
)


def snapshot(told: Mapping[str, Any]) -> Catalog:
    """`told`: `types` as name -> [CPUs, MiB, GPUs, architecture], `prices` as location -> name -> millionths of a $."""
    made = [kind for name, said in sorted(told["types"].items()) if (kind := type_of(name, said)) is not None]
    rank = {kind.name: at for at, kind in enumerate(made)}
    regions = {}
    for region, prices in sorted(told["prices"].items()):
        here = sorted((rank[name], int(price)) for name, price in prices.items() if name in rank and price > 0)
        regions[region] = CatalogRegion(types=tuple(at for at, _ in here), on_demand=tuple(price for _, price in here))
    day = datetime.strptime(told["priced_at"], "%Y-%m-%d").replace(tzinfo=UTC)
    catalog = Catalog(
        version=CATALOG_VERSION,
        name="snapshot",
        provider="azure",
        priced_at=int(day.timestamp()),
        sources=SOURCES,
        types=tuple(made),
        regions=regions,
    )
    if why := flaw(catalog):
        raise SystemExit(f"not written: {why}")
    return catalog


def type_of(name: str, said: tuple[int, int, int, str] | list[Any]) -> CatalogType | None:
    """`None` of a size without memory, with a part of a GPU, or whose GPU is not known."""
    cpus, memory, count, told = said
    gpu = next((row for row in GPUS if re.fullmatch(f"Standard_(?:{row[0]})", name)), None)
    if cpus < 1 or memory < 1 or (count and gpu is None):
        return None
    arch: Literal["x86", "arm"] = "arm" if told == "arm64" else "x86"
    # learn.microsoft.com/azure/virtual-machines/spot-vms: no B series and no promotional sizes.
    spot = not re.match(r"Standard_B\d", name) and not name.endswith("_Promo")
    if not count or gpu is None:
        return CatalogType(name=name, cpus=cpus, memory=memory, arch=arch, spot=spot)
    return CatalogType(
        name=name, cpus=cpus, memory=memory, arch=arch, spot=spot, gpu=gpu[1], gpu_count=count,
        gpu_memory=gpu[2] * GIB, vendor=gpu[3],
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the catalog that is shipped with the package.")
    parser.add_argument("--prices", type=Path, required=True, help="sizes and prices, as JSON")
    parser.add_argument("--out", type=Path, default=SHIPPED)
    asked = parser.parse_args()
    made = snapshot(json.loads(asked.prices.read_bytes()))
    asked.out.write_bytes(msgspec.json.encode(made) + b"\n")


if __name__ == "__main__":
    main()
