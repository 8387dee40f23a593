"""A project's places in the strict double of AWS: what tests of the backend and of the reconciler over it share."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from aws_double import REGION, Account

from backends.aws import AwsBackend
from backends.boot import Boot
from schemas.desired import BackendConfig
from schemas.offer import Offer
from schemas.resources import Gpu, Resources

SMALL = Resources(cpus=2, memory=8 * 1024, disk=0)
ARM = Resources(cpus=2, memory=8 * 1024, disk=0, cpu_arch="arm")
A10G = Resources(cpus=4, memory=16 * 1024, disk=0, gpu=Gpu(name="A10G", memory=24 * 1024))


def sold(region: str = REGION) -> tuple[Offer, ...]:
    """A handful of real types: cheap ones, on demand and spot, one with a GPU, one for ARM."""
    return (
        _offer(region, "m5.large", SMALL, "0.107"),
        _offer(region, "m5.large", SMALL, "0.041", spot=True),
        _offer(region, "m5a.large", SMALL, "0.120"),
        _offer(region, "m6g.large", ARM, "0.086"),
        _offer(region, "g5.xlarge", A10G, "1.123"),
        _offer(region, "g5.xlarge", A10G, "0.430", spot=True),
    )


def _offer(region: str, kind: str, resources: Resources, price: str, *, spot: bool = False) -> Offer:
    return Offer(
        backend="aws", region=region, instance_type=kind, resources=resources, price=Decimal(price), spot=spot,
        source="test",
    )  # fmt: skip


def a_boot(launch: str) -> Boot:
    """The same for the same launch, as a derived one is."""
    return Boot(
        host_key_private=f"-----BEGIN OPENSSH PRIVATE KEY-----\n{launch}\n-----END OPENSSH PRIVATE KEY-----",
        host_key_public=f"ssh-ed25519 {launch}",
        authorized_keys=("ssh-ed25519 AAAALOGIN project",),
    )


@dataclass(kw_only=True)
class Around:
    """A `Setting`."""

    project: str = "testproject"
    lineage: str = "lineage1"
    state_address: str = "/state"
    now: Callable[[], float] = time.time
    boot: Callable[[str], Boot] = a_boot


@dataclass(kw_only=True)
class AwsPlaces:
    """`connect` of `Ports`; what is sold is `offers(region)`."""

    account: Account
    around: Around = field(default_factory=Around)
    options: dict[str, object] = field(default_factory=dict)
    offers: Callable[[str], Sequence[Offer]] = sold

    def place(self, region: str = REGION, *, lineage: str = "", **options: object) -> AwsBackend:
        config = BackendConfig(name="aws", type="aws", regions=(region,), options={**self.options, **options})
        around = Around(
            project=self.around.project, lineage=lineage or self.around.lineage, now=self.around.now,
            boot=self.around.boot,
        )  # fmt: skip
        return AwsBackend(config, region, around, offers=lambda config, region: self.offers(region))
