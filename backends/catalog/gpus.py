"""Normalize vendors' names of GPUs: `A10G`, 24 GB, compute capability 8.6."""

from __future__ import annotations

from schemas.base import Mib
from schemas.resources import Gpu

# name -> (memory in GB as its maker sells it, compute capability in tenths)
NVIDIA: dict[str, tuple[tuple[int, ...], int]] = {
    "K80": ((12,), 37), "M60": ((8,), 52), "P100": ((12, 16), 60), "P4": ((8,), 61), "V100": ((16, 32), 70),
    "T4": ((16,), 75), "T4G": ((16,), 75), "A10": ((24,), 86), "A10G": ((24,), 86), "A40": ((48,), 86),
    "A100": ((40, 80), 80), "L4": ((24,), 89), "L40": ((48,), 89), "L40S": ((48,), 89), "H100": ((80, 94), 90),
    "H200": ((141,), 90), "GH200": ((96, 144), 90), "B200": ((180, 192), 100), "GB200": ((186,), 100),
    "B300": ((270, 288), 103), "GB300": ((270, 288), 103), "RTXPRO4500": ((32,), 120), "RTXPRO6000": ((96,), 120),
}  # fmt: skip
_OWN_WORDS = {"RTX PRO 4500": "RTXPRO4500", "RTX PRO SERVER 6000": "RTXPRO6000", "RADEON PRO V520": "V520"}
NEAR = 0.08  # what an API takes off or adds: 22,888 MiB of an A10G, 183,359 of a B200


def gpu_name(told: str) -> str:
    """`RTX PRO Server 6000` is `RTXPRO6000`, `T4g` is `T4G`."""
    name = " ".join(told.upper().split())
    return _OWN_WORDS.get(name, name.replace(" ", ""))


def gpu_memory(name: str, told: Mib) -> Mib:
    """The size that it is sold with, where `told` is nearly that; else as told."""
    sizes = [gigabytes * 1024 for gigabytes in NVIDIA.get(name, ((), 0))[0]]
    nearest = min(sizes, key=lambda size: abs(size - told), default=0)
    return nearest if nearest and abs(nearest - told) <= NEAR * nearest else told


def gpu(name: str, *, memory: Mib, count: int, vendor: str) -> Gpu:
    """As the matcher wants it."""
    capability = NVIDIA.get(name, ((), 0))[1] if vendor == "nvidia" else 0
    return Gpu(name=name, memory=memory, count=count, vendor=vendor, compute_capability=capability)
