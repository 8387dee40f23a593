"""Decide whether a machine fits. The one matcher of plan, apply, ps and explain. Pure.

`misfit` walks the rules in order and names the first that fails, with both numbers; `fits`
is the same walk. The halves are public for whoever asks for many machines at once:
`shortage` depends on the resources alone, `refusal` on everything else.
"""

from __future__ import annotations

from typing import Protocol

from schemas.base import Price
from schemas.pool import Pool
from schemas.resources import USUAL_DISK, Gpu, GpuNeed, Need, Resources, Span, Where

# Not asked for, yet nobody wants to buy less: new cloud machines only.
CLOUD_CPU = Span(min=2)
CLOUD_MEMORY = Span(min=8 * 1024)
CLOUD_DISK = Span(min=USUAL_DISK)
FEW = 3  # names in a sentence
CLOUD_ARCH = "x86"  # most images and wheels are for that one; who names a GPU takes the processor that comes with it


class FitSubject(Protocol):
    """What `Where` judges, and what there is of resources: an instance or an offer."""

    @property
    def resources(self) -> Resources: ...
    @property
    def backend(self) -> str: ...
    @property
    def region(self) -> str: ...
    @property
    def zone(self) -> str: ...
    @property
    def instance_type(self) -> str: ...
    @property
    def spot(self) -> bool: ...
    @property
    def price(self) -> Price | None: ...
    @property
    def image(self) -> str | None: ...


def fits(need: Need, where: Where, machine: FitSubject, *, cloud: bool) -> bool:
    """`cloud` is true where a new machine would be bought (see `Offer.cloud`)."""
    short = shortage(need, machine.resources, cloud=cloud) or other_image(need, machine)
    return not short and not refusal(where, machine)


def misfit(need: Need, where: Where, machine: FitSubject, *, cloud: bool) -> str:
    """Why not, with numbers ("gpu 1xA100 asked, it has none"); "" where it fits."""
    short = shortage(need, machine.resources, cloud=cloud)
    if short:
        return f"{asked(need, kind=short, cloud=cloud)} asked, it has {has(machine.resources, kind=short)}"
    if other_image(need, machine):
        if need.engine and machine.image == need.image:
            return "docker or podman asked (entrypoint, user, volumes …), it is itself a container"
        return f"image {need.image} asked, it is a container of {machine.image or 'an unknown image'}"
    refused = refusal(where, machine)
    return f"{accepted(where, kind=refused)} accepted, it is {_is(machine, kind=refused)}" if refused else ""


def excluded(pool: Pool, need: Need) -> str:
    """Why the pool takes no run of that need, whatever it asks of a machine; "" if it may."""
    if pool.isolation == "container" and not need.container:
        return f"pool {pool.name} runs containers only (isolation: container), and the run has no image"
    return ""


def other_image(need: Need, machine: FitSubject) -> bool:
    """Whether the machine is itself a container, and cannot be that of the run: of another image, or for lack of an
    engine that the run's entrypoint, user, privileges or volumes need."""
    fixed = machine.image is not None and machine.resources.runtime == "image"
    return fixed and need.container and (need.engine or machine.image != need.image)


# ---------------------------------------------------------------- resources


def shortage(need: Need, resources: Resources, *, cloud: bool) -> str:
    """The first kind of resource that does not suffice: gpu, cpu, memory, disk …; "" if all do."""
    if need.gpu is not None and not _gpu_suffices(need.gpu, resources.gpu):
        return "gpu"
    if need.container and resources.runtime in ("none", "process"):  # where it is not known yet, its host will tell
        return "container runtime"
    if need.cpu_arch and need.cpu_arch != resources.cpu_arch:
        return "cpu architecture"
    cpu, memory, disk = need.cpu, need.memory, need.disk
    if cloud:
        cpu = cpu if cpu.asked else CLOUD_CPU
        memory = memory if memory.asked else CLOUD_MEMORY
        disk = disk if disk.asked else CLOUD_DISK
    if not cpu.holds(resources.cpus):
        return "cpu"
    if not memory.holds(resources.memory):
        return "memory"
    # A catalog that does not say how large the disk is (0) sells it in any size.
    return "" if disk.holds(resources.disk) or (cloud and resources.disk == 0) else "disk"


def _gpu_suffices(need: GpuNeed, gpu: Gpu | None) -> bool:
    if gpu is None or gpu.count == 0:
        return need.count.holds(0)
    return (
        need.count.holds(gpu.count)
        and (not need.names or gpu.name.lower() in need.names)
        and (not need.vendor or gpu.vendor.lower() == need.vendor.lower())
        and need.memory.holds(gpu.memory)
        and need.total_memory.holds(gpu.memory * gpu.count)
        and need.compute_capability.holds(gpu.compute_capability)
    )


def contradiction(pool: Pool, need: Need) -> str:
    """Why no machine that the pool allows can have what the run asks; "" where one could, or takes it in part."""
    if pool.blocks != 1:
        return ""
    mine, theirs = need.gpu, pool.need.gpu
    if mine is not None and theirs is not None and (_apart(mine.count, theirs.count) or _other(mine, theirs)):
        return f"asks {asked(need, kind='gpu')}, pool {pool.name} allows {asked(pool.need, kind='gpu')}"
    for kind in ("cpu", "memory", "disk"):
        if _apart(getattr(need, kind), getattr(pool.need, kind)):
            return f"asks {asked(need, kind=kind)}, pool {pool.name} allows {asked(pool.need, kind=kind)}"
    return ""


def _apart(one: Span, other: Span) -> bool:
    """No amount is in both."""
    low = max(one.min or 0, other.min or 0)
    return any(span.max is not None and span.max < low for span in (one, other))


def _other(one: GpuNeed, other: GpuNeed) -> bool:
    return bool(one.names and other.names and not set(one.names) & set(other.names))


# ---------------------------------------------------------------- everything else


def refusal(where: Where, machine: FitSubject) -> str:
    """The first rule of `where` that is broken: backend, region, zone, instance type, spot, price; else ""."""
    if where.backends and machine.backend not in where.backends:
        return "backend"
    if where.regions and machine.region not in where.regions:
        return "region"
    if where.zones and machine.zone not in where.zones:
        return "zone"
    if where.instance_types and machine.instance_type not in where.instance_types:
        return "instance type"
    if where.spot != "auto" and machine.spot != (where.spot == "spot"):
        return "spot"
    if where.max_price is not None and (machine.price is None or machine.price > where.max_price):
        return "price"
    return ""


# ---------------------------------------------------------------- words


def asked(need: Need, *, kind: str, cloud: bool = False) -> str:
    """What was asked of one kind: `cpu 4..`, `memory 8GB..`, `gpu 1xA100 (80GB..)`."""
    if kind == "container runtime":
        return "a container runtime"
    if kind == "cpu architecture":
        return f"cpu {need.cpu_arch or CLOUD_ARCH}"
    if kind == "gpu":
        return f"gpu {_gpu_asked(need.gpu)}" if need.gpu else "no gpu"
    default = {"cpu": CLOUD_CPU, "memory": CLOUD_MEMORY, "disk": CLOUD_DISK}[kind] if cloud else Span()
    span = {"cpu": need.cpu, "memory": need.memory, "disk": need.disk}[kind]
    return f"{kind} {_span(span if span.asked else default, size=kind != 'cpu')}"


def _gpu_asked(need: GpuNeed) -> str:
    names = ",".join(name.upper() for name in need.names) or need.vendor
    count = "1" if need.count == Span(min=1) else _span(need.count, size=False)
    text = f"{count}x{names}" if names else count
    if need.memory.asked:
        text += f" ({_span(need.memory, size=True)})"
    if need.total_memory.asked:
        text += f" ({_span(need.total_memory, size=True)} in all)"
    if need.compute_capability.asked:
        text += f" (compute capability {(need.compute_capability.min or 0) / 10:g}..)"
    return text


def has(resources: Resources, *, kind: str) -> str:
    """What a machine has of one kind."""
    if kind == "gpu":
        gpu = resources.gpu
        return f"{gpu.count}x{gpu.name} ({size(gpu.memory)})" if gpu and gpu.count else "none"
    if kind == "container runtime":
        if resources.runtime == "process":
            return "none: its backend runs processes only"
        return "neither docker nor podman" if resources.runtime == "none" else resources.runtime
    if kind == "cpu architecture":
        return resources.cpu_arch
    return {"cpu": str(resources.cpus), "memory": size(resources.memory), "disk": size(resources.disk)}[kind]


def _is(machine: FitSubject, *, kind: str) -> str:
    """What a machine is, of one kind of `where`."""
    if kind == "spot":
        return "spot" if machine.spot else "on-demand"
    if kind == "price":
        return "no known price" if machine.price is None else f"${machine.price:.2f}"
    named = {
        "backend": machine.backend, "region": machine.region, "zone": machine.zone,
        "instance type": machine.instance_type,
    }  # fmt: skip
    return named[kind] or f"no {kind}"


def accepted(where: Where, *, kind: str) -> str:
    """What `where` accepts of one kind: `regions us-east-1, us-west-2`, `max_price ≤ $1.00`."""
    if kind == "spot":
        return "spot" if where.spot == "spot" else "on-demand"
    if kind == "price":
        return f"max_price ≤ ${where.max_price:.2f}"
    named = {
        "backend": where.backends, "region": where.regions, "zone": where.zones, "instance type": where.instance_types,
    }  # fmt: skip
    names = named[kind]
    more = f" and {len(names) - FEW} more" if len(names) > FEW + 1 else ""
    return f"{kind}{'s' if len(names) > 1 else ''} {', '.join(names[:FEW] if more else names)}{more}"


def size(mib: int) -> str:
    return f"{round(mib / 1024, 2):g}GB"


def _span(span: Span, *, size: bool) -> str:
    low = "" if span.min is None else _amount(span.min, size=size)
    high = "" if span.max is None else _amount(span.max, size=size)
    return low if low == high else f"{low}..{high}"


def _amount(amount: int, *, size: bool) -> str:
    return f"{round(amount / 1024, 2):g}GB" if size else str(amount)
