"""Arithmetic of blocks: the part of an instance that a job holds, and what is left of it. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from reconciler.state.status import lost_gpus
from schemas.base import Price
from schemas.instance import Instance
from schemas.resources import Gpu, Resources
from schemas.run import Job


def blocks_of(blocks: int, resources: Resources) -> int:
    """How many an instance or an offer with these resources has."""
    if blocks == 1:
        return 1
    gpus = resources.gpu.count if resources.gpu else 0
    return max(1, blocks or gpus)


def shared(one: Instance) -> int:
    """The blocks of an instance; 1 where it is up and the UUIDs of its GPUs are not known."""
    if one.blocks == 1:
        return 1
    gpu = one.resources.gpu
    known = one.phase != "ready" or gpu is None or not gpu.count or len(gpu.uuids) == gpu.count
    return blocks_of(one.blocks, one.resources) if known else 1


def part(resources: Resources, *, blocks: int, of: int) -> Resources:
    """What so many blocks have."""
    if blocks >= of:
        return resources
    gpu = _gpus(resources.gpu, blocks=blocks, of=of) if resources.gpu else None
    return replace(
        resources,
        cpus=resources.cpus * blocks // of,
        memory=resources.memory * blocks // of,
        disk=resources.disk * blocks // of,
        gpu=gpu,
    )


def _gpus(gpu: Gpu, *, blocks: int, of: int) -> Gpu | None:
    count = gpu.count * blocks // of
    return replace(gpu, count=count, uuids=()) if count else None


def part_price(price: Price | None, *, blocks: int, of: int) -> Price | None:
    """A run's price is its share's."""
    return price if price is None or blocks >= of else price * blocks / of


def share_of(one: Instance, job: Job) -> Instance:
    """The instance as the job has it: its share of the resources and of the price."""
    of = shared(one)
    if of == 1:
        return one
    gpu = one.resources.gpu
    own = part(one.resources, blocks=job.blocks, of=of)
    if own.gpu is not None and gpu is not None:
        own = replace(own, gpu=replace(own.gpu, count=len(job.gpus), uuids=job.gpus))
    return replace(one, resources=own, price=part_price(one.price, blocks=job.blocks, of=of))


def left_of(one: Instance) -> Instance:
    """The instance without the GPUs that its host lost."""
    gpu, lost = one.resources.gpu, lost_gpus(one)
    if gpu is None or not lost:
        return one
    left = tuple(uuid for uuid in gpu.uuids if uuid not in lost)
    kept = replace(gpu, count=len(left), uuids=left) if left else None
    return replace(one, resources=replace(one.resources, gpu=kept))


def used(jobs: Iterable[Job], *, of: int) -> int:
    """Blocks that its jobs hold: those not settled yet."""
    return min(of, sum(max(1, job.blocks) for job in jobs))
