"""A project's places in the strict double of AWS: what tests of the backend and of the reconciler over it share."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from backends.aws.backend import AwsBackend
from backends.base import Backend
from backends.boot.spec import Boot
from backends.fake.backend import FakeMachine
from reconciler.engine.ports import Ports
from schemas.desired import BackendConfig, Desired
from schemas.instance import HostReport, Instance
from schemas.launch import Request
from schemas.offer import Offer
from schemas.pool import Pool
from schemas.resources import Gpu, Resources
from schemas.run import RunSpec
from tests.doubles.aws.aws_double import REGION, Account
from tests.worlds.world import PROJECT, Clock, FakeRunner, Site

SMALL = Resources(cpus=2, memory=8 * 1024, disk=16 * 1024 * 1024)
ARM = Resources(cpus=2, memory=8 * 1024, disk=16 * 1024 * 1024, cpu_arch="arm")
A10G = Resources(cpus=4, memory=16 * 1024, disk=16 * 1024 * 1024, gpu=Gpu(name="A10G", memory=24 * 1024))


# As a catalog has it: a root volume may be as large as anybody asks.
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
        backend="aws",
        region=region,
        instance_type=kind,
        resources=resources,
        price=Decimal(price),
        spot=spot,
        source="test",
    )


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
            project=self.around.project,
            lineage=lineage or self.around.lineage,
            now=self.around.now,
            boot=self.around.boot,
        )
        return AwsBackend(config, region, around, offers=lambda config, region: self.offers(region))


# ---------------------------------------------------------------- a whole project on it


@dataclass
class AwsSite(Site):
    """A project whose machines are EC2's, as the double has it, and whose hosts are the fake world's.

    `ahead`: by how many seconds our clock is ahead of EC2's.
    """

    account: Account = field(kw_only=True)
    regions: tuple[str, ...] = (REGION,)
    steady: bool = False
    ahead: float = 0
    selling: Callable[[str], Sequence[Offer]] = sold
    clock: Clock = field(default_factory=lambda: Clock(at=int(time.time())))

    def __post_init__(self) -> None:
        super().__post_init__()
        self._synced = 0.0
        self.places = AwsPlaces(
            account=self.account,
            around=Around(project=PROJECT, now=self.clock.now),
            offers=lambda region: self.selling(region),
        )

    def ports(self, *, who: str = "ann@laptop") -> Ports:
        return dataclasses.replace(
            super().ports(who=who),
            regions=lambda config: self.regions,
            runner=Truthful(self.world, self.scratch, self.sync),
            catalog=lambda desired: [one for region in self.regions for one in self.selling(region)],
        )

    def connect(self, config: BackendConfig, region: str, lineage: str) -> Backend:
        self.account.set(ahead=round(self.clock.at - self.ahead - time.time()))
        return self.places.place(region, lineage=lineage or "none", **config.options)

    def sync(self) -> None:
        """The hosts are those that EC2 has; an instance that is no more has none. `steady`: once for each moment."""
        if self.steady and self._synced == self.clock.at:
            return
        self._synced = self.clock.at
        living = {one["id"]: one for region in self.regions for one in self.account.living(region)}
        for id, one in living.items():
            if id not in self.world.machines:
                launch = one["tags"].get("dstack-launch", "")
                request = Request(
                    place="aws", launch=launch, token="", ids=(id,), names=("",), pool="", instance_type=one["type"]
                )
                self.world.machines[id] = FakeMachine(
                    external_id=id, request=request, index=0, region=REGION, resources=SMALL, born=self.clock.now()
                )
        for id, machine in self.world.machines.items():
            if id not in living and machine.ends_at is None:
                machine.ends_at = self.clock.now()


class Truthful(FakeRunner):
    """Every call sees the machines as EC2 has them at that moment."""

    def __init__(self, world: Any, scratch: Any, sync: Callable[[], None]) -> None:
        super().__init__(world, scratch)
        self._sync = sync

    def look(self, instance: Instance, **named: Any) -> HostReport:
        self._sync()
        return super().look(instance, **named)


def papers(*, pools: Sequence[Pool], runs: Sequence[RunSpec] = (), regions: tuple[str, ...] = (REGION,)) -> Desired:
    return Desired(
        project=PROJECT,
        project_name="demo",
        backends=(BackendConfig(name="aws", type="aws", regions=regions),),
        pools=tuple(pools),
        runs=tuple(runs),
    )
