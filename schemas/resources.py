"""What a run asks for (`Need`, `Where`) and what a machine has (`Resources`)."""

from __future__ import annotations

from typing import Literal

from schemas.base import Mib, Price, Value

SpotPolicy = Literal["spot", "on-demand", "auto"]


class Span(Value, frozen=True, kw_only=True):
    """An inclusive range; `None` is open. `Span()` holds everything: nothing was asked."""

    min: int | None = None
    max: int | None = None

    def holds(self, amount: int) -> bool:
        return (self.min is None or amount >= self.min) and (self.max is None or amount <= self.max)

    @property
    def asked(self) -> bool:
        return self.min is not None or self.max is not None


class GpuNeed(Value, frozen=True, kw_only=True):
    """GPUs asked for. `count` min 0 accepts machines without one. Names are lower case.

    `memory` is of each GPU, `total_memory` of all; `compute_capability` in tenths (8.6 is 86).
    """

    vendor: str = ""
    names: tuple[str, ...] = ()
    count: Span = Span(min=1)
    memory: Span = Span()
    total_memory: Span = Span()
    compute_capability: Span = Span()


class Need(Value, frozen=True, kw_only=True):
    """Resources asked for one node. An unasked kind is an empty `Span` (see `Offer.cloud`).

    `container`: it runs an image, so the host must have docker or podman.
    """

    cpu_arch: str = ""
    cpu: Span = Span()
    memory: Span = Span()
    disk: Span = Span()
    shm: Mib | None = None
    gpu: GpuNeed | None = None
    container: bool = False
    image: str = ""
    """The run's image as written. An instance that is itself a container must have been made of an equal one."""
    engine: bool = False
    """It uses what only docker or podman gives: an entrypoint, a user, privileges, volumes or a folder of the image."""


class Where(Value, frozen=True, kw_only=True):
    """Which offers and instances are acceptable. An empty tuple accepts every value."""

    backends: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    zones: tuple[str, ...] = ()
    instance_types: tuple[str, ...] = ()
    spot: SpotPolicy = "on-demand"
    max_price: Price | None = None
    reservation: str = ""


class Gpu(Value, frozen=True, kw_only=True):
    """One kind of GPU in a machine. `uuids` is empty until the host was asked."""

    name: str
    memory: Mib
    count: int = 1
    vendor: str = "nvidia"
    compute_capability: int = 0
    uuids: tuple[str, ...] = ()


USUAL_DISK: Mib = 100 * 1024
"""MiB of root disk that a machine is bought with where nobody asks for another size."""


class Resources(Value, frozen=True, kw_only=True):
    """What a machine has, or, on `local`, the share that one instance may use.

    `runtime` runs containers: docker, podman, or `none`; "" until its host has told. Of a type of backend that runs
    no containers inside its instances it is fixed, whatever the host reports: `process` (processes only), or
    `image` (the instance is itself a container, of its `Instance.image`).
    """

    cpus: int
    memory: Mib
    disk: Mib = 0
    cpu_arch: str = "x86"
    gpu: Gpu | None = None
    runtime: str = ""

    @property
    def runtime_fixed(self) -> bool:
        """Whether its type of backend decides how jobs run there, so that a report of its host does not."""
        return self.runtime in ("process", "image")
