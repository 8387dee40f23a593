"""Choose the image of a machine, and its exact version."""

from __future__ import annotations

import re
from collections.abc import Mapping

from backends.azure.api import ArmApi
from backends.errors import BackendError, NoCapacity
from schemas.offer import Offer

PLAIN = "Canonical:ubuntu-24_04-lts:server:latest"
FIRST_GENERATION = "Canonical:ubuntu-24_04-lts:server-gen1:latest"
ARM = "Canonical:ubuntu-24_04-lts:server-arm64:latest"
NVIDIA = "microsoft-dsvm:ubuntu-hpc:2204:latest"
AMD = "microsoft-dsvm:ubuntu-hpc:2204-rocm:latest"
OLD = re.compile(r"Standard_(A\d+m?_v2|NP\d+s)")
"""Sizes that boot images of the first generation only."""
DAY = 86400


def image_for(arm: ArmApi, offer: Offer, *, region: str, os_images: Mapping[str, str]) -> str:
    """`PUBLISHER:OFFER:SKU:VERSION`, or an id. `os_images` maps `gpu`, `cpu`, `cpu-arm` or the name of a GPU.

    Raises `NoCapacity` for a GPU that the default images cannot drive: other offers may do.
    """
    gpu, arch = offer.resources.gpu, offer.resources.cpu_arch or "x86"
    suffix = "-arm" if arch == "arm" else ""
    wanted = [gpu.name.lower(), f"gpu{suffix}", f"nvidia{suffix}"] if gpu else [f"cpu{suffix}"]
    said = {name.lower(): image for name, image in os_images.items()}
    named = next((said[name] for name in wanted if name in said), "")
    if not named and gpu and (offer.instance_type.startswith("Standard_NV") or suffix):
        raise NoCapacity(
            f"{offer.instance_type}: the default image has no driver for it (NVIDIA GRID, or of another maker): "
            f"`os_images: {{{gpu.name.lower()}: IMAGE}}` of the backend names one",
            retry_after=DAY,
        )
    image = named or (_of_gpu(gpu.name) if gpu else _of_cpu(offer.instance_type, arch))
    return image if image.startswith("/") else _exact(arm, image, region=region)


def _of_gpu(name: str) -> str:
    return AMD if name.startswith("MI") else NVIDIA


def _of_cpu(instance_type: str, arch: str) -> str:
    return ARM if arch == "arm" else FIRST_GENERATION if OLD.fullmatch(instance_type) else PLAIN


def _exact(arm: ArmApi, image: str, *, region: str) -> str:
    parts = image.split(":")
    if len(parts) != 4 or not all(parts):
        raise BackendError(f"os_images: {image} should be PUBLISHER:OFFER:SKU:VERSION, or the id of an image")
    publisher, offer, sku, version = parts
    if version != "latest":
        return image
    path = (
        f"{arm.root}/providers/Microsoft.Compute/locations/{region}/publishers/{publisher}"
        f"/artifacttypes/vmimage/offers/{offer}/skus/{sku}/versions"
    )
    found = arm.found(path, version=arm.compute)
    versions = [str(one.get("name", "")) for one in found] if isinstance(found, list) else []
    newest = max(versions, key=lambda text: [int(part) for part in re.findall(r"\d+", text)], default="")
    if not newest:
        raise BackendError(f"image {image}: {region} has no version of it")
    return f"{publisher}:{offer}:{sku}:{newest}"
