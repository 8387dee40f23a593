"""A project on a fake world, for tests: every port in memory, one thread, a clock that the test moves."""

from __future__ import annotations

import hashlib
import itertools
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from backends.base import Backend
from backends.fake.backend import FakeBackend, FakeWorld
from backends.fake.hosts import FakeHosts, NotHeld, Silent, StaleReconciler
from reconciler.engine.ports import Ports
from reconciler.engine.request import TickAsk
from reconciler.engine.tick import TickResult, tick
from reconciler.hosts.runner import CollectedFiles, Fenced, HeldJob, HostError, JobOrder, Unreachable
from reconciler.state.authority import GitFacts
from reconciler.state.errors import StateMoved
from reconciler.store.statefile import dumps, loads
from schemas.backend_type import BackendType
from schemas.backend_types import TYPES
from schemas.desired import BackendConfig, Desired
from schemas.instance import HostReport, Instance
from schemas.lease import Lease
from schemas.offer import Offer
from schemas.pool import Pool
from schemas.resources import Gpu, Resources
from schemas.run import RunSpec
from schemas.state import Applied, Revision, State

PROJECT = "proj12345"
START = 1_800_000_000


@dataclass
class Clock:
    """Wall and boot time at once."""

    at: float = START

    def now(self) -> int:
        return int(self.at)

    def clock(self) -> float:
        return self.at

    def sleep(self, seconds: float) -> None:
        self.at += seconds


class MemoryStore:
    """A store that writes and reads real bytes. `clock` is its own, if any; `dated` how often it was asked."""

    address = "memory"

    def __init__(self) -> None:
        self.clock: Callable[[], int] | None = None
        self.dated = 0
        self.notes: list[str] = []
        self.data = b""
        self.writes = 0
        self.before_write: Callable[[], None] = lambda: None

    def read(self) -> tuple[State | None, str]:
        return (loads(self.data, "memory"), self._token()) if self.data else (None, "")

    def write(self, state: State, token: str) -> str:
        hook, self.before_write = self.before_write, lambda: None
        hook()
        if token != self._token():
            raise StateMoved("moved")
        self.data = dumps(state)
        self.writes += 1
        return self._token()

    def keep_copy(self, name: str) -> str:
        return f"memory.{name}"

    def date(self) -> int | None:
        self.dated += 1
        return self.clock() if self.clock else None

    def _token(self) -> str:
        return hashlib.sha256(self.data).hexdigest() if self.data else ""


class MemoryBlobs:
    def __init__(self) -> None:
        self.data: dict[str, bytes] = {}

    def put(self, data: bytes | Path) -> str:
        content = data if isinstance(data, bytes) else data.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        self.data[digest] = content
        return digest

    def get(self, digest: str) -> bytes:
        return self.data[digest]

    def path(self, digest: str) -> Path | None:
        return Path("/blobs", digest) if digest in self.data else None


class MemoryMarkers:
    def __init__(self) -> None:
        self.known: set[tuple[str, str]] = set()

    def put(self, name: str, hash: str) -> None:
        self.known.add((name, hash))

    def all(self) -> frozenset[tuple[str, str]]:
        return frozenset(self.known)


class FakeRunner:
    """The runner's contract over a fake world's hosts."""

    def __init__(self, world: FakeWorld, scratch: Path) -> None:
        self._hosts = FakeHosts(world)
        self._scratch = scratch

    def look(self, instance: Instance, *, now: int, lease: Lease | None = None) -> HostReport:
        return self._hosts.look(instance.external_id, instance=instance.id, now=now)

    def admit(self, instance: Instance, keys: tuple[str, ...], *, generation: int) -> None:
        raise AssertionError(f"{instance.id} is given keys in no test of this world")

    def arm(self, instance: Instance, *, generation: int, kind: BackendType) -> None:
        raise AssertionError(f"{instance.id} has its timer armed in no test of this world")

    def start(self, instance: Instance, order: JobOrder) -> HeldJob | None:
        hosts, hold = self._hosts, bool(order.hold_back)
        ready = _asked(
            lambda: hosts.start(
                instance.external_id, order.job, generation=order.generation, run=order.name, hold_back=hold
            )
        )
        return HeldJob(staged=ready, port=20000) if hold else None

    def release(self, instance: Instance, job: str, *, generation: int, port: int) -> None:
        _asked(lambda: self._hosts.release(instance.external_id, job, generation=generation))

    def stop(self, instance: Instance, job: str, *, generation: int, abort: bool, why: str) -> None:
        _asked(lambda: self._hosts.stop(instance.external_id, job, generation=generation, why=why))

    def collect(self, instance: Instance, job: str, *, artifacts: tuple[str, ...]) -> CollectedFiles:
        handle, name = tempfile.mkstemp(dir=self._scratch)
        os.close(handle)
        log = Path(name)
        log.write_bytes(_asked(lambda: self._hosts.collect(instance.external_id, job)))
        return CollectedFiles(log=log)

    def clean(self, instance: Instance, job: str, *, generation: int) -> None:
        _asked(lambda: self._hosts.clean(instance.external_id, job, generation=generation))

    def read_log(self, instance: Instance, job: str, *, offset: int, to_the_end: bool = False) -> bytes:
        return _asked(lambda: self._hosts.collect(instance.external_id, job))[offset:]

    def retire(self, instance: Instance, *, generation: int) -> None:
        raise HostError("not asked for")


class DatedPlace(FakeBackend):
    """A place that tells the time. `ahead`: by how many seconds the clock of whoever asks is ahead of its own."""

    def __init__(self, world: FakeWorld, place: str, *, region: str, lineage: str, ahead: Callable[[], int]) -> None:
        super().__init__(world, place, region=region, project=PROJECT, lineage=lineage)
        self._ahead = ahead

    def clock(self) -> int | None:
        return self._ahead()


def _asked(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except Silent as error:
        raise Unreachable(str(error)) from error
    except NotHeld as error:
        raise HostError(str(error)) from error
    except StaleReconciler as error:
        raise Fenced(str(error)) from error


def serially(work: Callable[[], None]) -> None:
    """`spawn` on this very thread."""
    work()


@dataclass(frozen=True)
class Papers:
    """Documents, compiled."""

    desired: Desired
    root: Path = Path("/project")

    @property
    def digest(self) -> str:
        return hashlib.sha256(repr(self.desired).encode()).hexdigest()


@dataclass
class Site:
    """One project, its memory and its world."""

    scratch: Path
    clock: Clock = field(default_factory=Clock)
    store: MemoryStore = field(default_factory=MemoryStore)
    blobs: MemoryBlobs = field(default_factory=MemoryBlobs)
    markers: MemoryMarkers = field(default_factory=MemoryMarkers)
    ledger: list[Any] = field(default_factory=list)
    world: FakeWorld = field(init=False)
    missing: dict[str, str] = field(default_factory=dict)
    offers: Sequence[Offer] = ()
    kind: BackendType = TYPES["fake"]
    wrong: int = 0
    """By how many seconds our clock is ahead of the world's."""
    dated: bool = False
    """Whether places tell the time."""
    boot_id: str = ""
    """Of our machine, which started with the world; "": nothing is known of its boots."""
    _nonces: itertools.count[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self.world = FakeWorld(now=self.clock.now, offers=self.offers or OFFERS, kind=self.kind)

    def shaped(self, desired: Desired) -> Desired:
        """The same documents, with the fake backends in them of this world's kind."""
        backends = tuple(
            replace(one, type=self.kind.name) if one.type.startswith("fake") else one for one in desired.backends
        )
        return replace(desired, backends=backends)

    def ports(self, *, who: str = "ann@laptop") -> Ports:
        return Ports(
            store=self.store,
            blobs=self.blobs,
            markers=self.markers,
            record=self.ledger.extend,
            connect=self.connect,
            runner=FakeRunner(self.world, self.scratch),
            now=lambda: self.clock.now() + self.wrong,
            boot_time=lambda: (self.boot_id, self.clock.now() - START + 100),
            clock=self.clock.clock,
            sleep=self.clock.sleep,
            nonce=lambda: f"n{next(self._nonces):07d}",
            spawn=serially,
            who=who,
            lacking=lambda spec, desired: self.missing.get(spec.name, ""),
            undeclared=lambda spec, desired: "",
            resolve=lambda spec, desired: {},
            fill=lambda container, desired: container,
            bundle=self.bundle,
            facts=no_facts,
        )

    def connect(self, config: BackendConfig, region: str, lineage: str) -> Backend:
        name = f"{config.name}/{region}" if region else config.name
        if self.dated:
            return DatedPlace(self.world, name, region=region, lineage=lineage, ahead=lambda: self.wrong)
        return self.world.place(name, region=region, project=PROJECT, lineage=lineage)

    def bundle(self, root: Path, files: tuple[str, ...] | None, never: tuple[str, ...] = ()) -> Path:
        packed = Path(tempfile.mkdtemp(dir=self.scratch), "bundle")
        packed.write_text(repr(files))
        return packed

    @property
    def state(self) -> State:
        state, _ = self.store.read()
        assert state is not None
        return state


def no_facts(mine: Revision, applied: Applied) -> GitFacts:
    return GitFacts()


def apply_ask(desired: Desired, **changes: Any) -> TickAsk:
    """`dstack apply` at a prompt where everything is approved."""
    papers = Papers(desired)
    asked: Mapping[str, Any] = {"prompted": True, "revive": True, **changes}
    return TickAsk(documents=papers, revision=Revision(digest=papers.digest), **asked)


def apply(site: Site, desired: Desired, **changes: Any) -> TickResult:
    return tick(site.ports(), apply_ask(site.shaped(desired), **changes))


def cron(site: Site, **changes: Any) -> TickResult:
    """A tick on the applied documents."""
    return tick(site.ports(), TickAsk(**changes))


def ticks(site: Site, count: int, *, apart: int = 10) -> list[TickResult]:
    """`count` ticks, `apart` seconds between."""
    results = []
    for _ in range(count):
        site.clock.at += apart
        results.append(cron(site))
    return results


# ---------------------------------------------------------------- documents


def offer(kind: str, price: str, *, spot: bool = False, region: str = "r1", gpus: int = 0) -> Offer:
    return Offer(
        backend="fake",
        region=region,
        instance_type=kind,
        resources=Resources(
            cpus=4, memory=16384, disk=204800, gpu=Gpu(name="A100", memory=81920, count=gpus) if gpus else None
        ),
        price=_price(price),
        spot=spot,
        availability="available",
    )


def _price(text: str) -> Any:
    from decimal import Decimal

    return Decimal(text)


OFFERS = (offer("small", "1.00"), offer("large", "1.40"), offer("huge", "9.00"))


def desired(*, pools: Sequence[Pool] = (), runs: Sequence[RunSpec] = (), **fields: Any) -> Desired:
    """Documents on the fake backend; without pools, `default-pool`."""
    return Desired(
        project=PROJECT,
        project_name="demo",
        backends=(BackendConfig(name="fake", type="fake", regions=("r1",)),),
        pools=tuple(pools) or (Pool(name="default-pool", default=True),),
        runs=tuple(runs),
        **fields,
    )


def task(name: str, **fields: Any) -> RunSpec:
    return RunSpec(name=name, commands=("work",), **{"hash": f"hash{name}", "pool": "default-pool", **fields})
