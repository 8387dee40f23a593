"""Look up the image that an instance boots: by SSM parameter, or as configured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from backends.aws.errors import UNSUPPORTED_RETRY
from backends.aws.network import Look
from backends.errors import BackendError, NoCapacity
from schemas.offer import Offer
from schemas.resources import Gpu

# docs.aws.amazon.com/dlami: "AWS Deep Learning Base OSS Nvidia Driver GPU AMI": driver, CUDA, container toolkit, EFA.
GPU = "/aws/service/deeplearning/ami/{arch}/base-oss-nvidia-driver-gpu-ubuntu-24.04/latest/ami-id"
# documentation.ubuntu.com/aws: "Find Ubuntu images on AWS", the Parameter Store.
PLAIN = "/aws/service/canonical/ubuntu/server/24.04/stable/current/{arch}/hvm/ebs-gp3/ami-id"
# NVIDIA's open kernel modules, the only ones of that image, begin with Turing; its driver has left these out.
TOO_OLD = frozenset({"V100", "P100", "P4", "P40", "K80", "K520", "M60"})
ARCHITECTURES = {"x86": ("x86_64", "amd64"), "arm": ("arm64", "arm64")}


class Image(NamedTuple):
    """`size` is the least that its root volume may have, in GiB; `others` its further volumes' devices."""

    id: str
    root: str
    size: int
    architecture: str
    others: tuple[str, ...] = ()


def image_for(look: Look, parameters: Look, offer: Offer, *, os_images: Mapping[str, str]) -> Image:
    """`os_images` maps `gpu`, `cpu`, `gpu-arm`, `cpu-arm` (or `nvidia` for `gpu`), or the name of a GPU, which counts
    first, to an AMI's id or a parameter.

    Raises `NoCapacity` for a GPU that the default image cannot drive: other offers may do.
    """
    gpu = offer.resources.gpu
    kind, arch = "gpu" if gpu else "cpu", offer.resources.cpu_arch or "x86"
    named = _named(os_images, kind, arch, gpu=gpu.name if gpu else "")
    if gpu and not named and (gpu.name in TOO_OLD or gpu.vendor != "nvidia"):
        raise NoCapacity(_no_driver(offer.instance_type, gpu), retry_after=UNSUPPORTED_RETRY)
    machine, debian = ARCHITECTURES.get(arch, ARCHITECTURES["x86"])
    wanted = named or (GPU.format(arch=machine) if kind == "gpu" else PLAIN.format(arch=debian))
    id = wanted if wanted.startswith("ami-") else _by_parameter(parameters, wanted)
    image = _described(look, id)
    if image.architecture != machine:
        raise BackendError(f"the image {id} ({wanted}) is for {image.architecture}, {offer.instance_type} is {machine}")
    return image


def _named(os_images: Mapping[str, str], kind: str, arch: str, *, gpu: str) -> str:
    suffix = "-arm" if arch == "arm" else ""
    names = [gpu.lower(), f"{kind}{suffix}", *([f"nvidia{suffix}"] if kind == "gpu" else [])]
    said = {name.lower(): image for name, image in os_images.items()}
    return next((said[name] for name in names if name and said.get(name)), "")


def _no_driver(instance_type: str, gpu: Gpu) -> str:
    why = "is too old for NVIDIA's open driver" if gpu.vendor == "nvidia" else "is not NVIDIA's"
    return (
        f"{instance_type}: the default image cannot drive its {gpu.name}, which {why}: set `os_images: {{{gpu.name}: "
        "AMI or SSM parameter}` of the backend, an image with a driver for it"
    )


def _by_parameter(look: Look, name: str) -> str:
    answer = look("get_parameters", Names=[name])
    for found in answer["Parameters"]:
        return str(found["Value"])
    raise BackendError(f"there is no image at the SSM parameter {name} in this region: set `os_images` of the backend")


def _described(look: Look, id: str) -> Image:
    images = look("describe_images", ImageIds=[id])["Images"]
    if not images:
        raise BackendError(f"the image {id} is not to be had in this region: set `os_images` of the backend")
    image = images[0]
    root = image.get("RootDeviceName") or "/dev/sda1"
    volumes = {one["DeviceName"]: one["Ebs"] for one in image.get("BlockDeviceMappings", ()) if one.get("Ebs")}
    return Image(
        id=id,
        root=root,
        size=int(volumes.get(root, {}).get("VolumeSize") or 8),
        architecture=image.get("Architecture") or "x86_64",
        others=tuple(sorted(name for name in volumes if name != root)),
    )
