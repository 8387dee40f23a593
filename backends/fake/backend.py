"""A fake backend for tests, as unreliable as real ones, on a clock that is passed in. Nothing is random.

Listings lag, offers sell out, calls are throttled, answers get lost after the deed, spot
machines are taken away, another account answers, hosts fall silent and come back rebooted.
`backends.fake.hosts` has the machines' insides.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from msgspec.structs import replace

from backends.base import Backend
from backends.errors import BackendError, CallFailed, NoCapacity, QuotaExceeded, TryLater
from schemas.instance import Seen
from schemas.launch import Ending, LaunchAnswer, Made, Request, TerminateAnswer
from schemas.offer import Offer
from schemas.resources import Need, Resources, Where


@dataclass(kw_only=True)
class FakeJob:
    """A job's folder on a machine. One that was `halted` before its start never starts. `run` is its run's name."""

    run: str = ""
    started_at: int | None = None
    ends_at: int | None = None
    held_at: int | None = None
    exit_code: int | None = None
    reason: str = ""
    boot: int = 0
    halted: bool = False
    cleaned: bool = False
    lost: bool = False


@dataclass(kw_only=True)
class Machine:
    """One machine, from its launch on; it stays known after its end. So many of its first GPUs are `broken`."""

    external_id: str
    request: Request
    index: int
    region: str
    resources: Resources
    born: int
    ends_at: int | None = None
    interrupted: bool = False
    by_itself: bool = False
    reason: str = ""
    boot: int = 1
    silent: bool = False
    broken: int = 0
    fence: int = 0
    jobs: dict[str, FakeJob] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return self.request.ids[self.index]

    @property
    def gpus(self) -> tuple[str, ...]:
        """UUIDs, as its host knows them."""
        gpu = self.resources.gpu
        return tuple(f"GPU-{self.external_id}-{number}" for number in range(gpu.count if gpu else 0))


@dataclass(kw_only=True)
class Fault:
    """The next `times` calls of that name fail; with `after`, the deed is done first and its answer is lost."""

    call: str
    error: CallFailed
    times: int = 1
    after: bool = False


@dataclass(kw_only=True)
class FakeWorld:
    """The truth, and the knobs that a test turns. `now` is its clock.

    `lag` is by how many listings an answer is late. `boot`, `ending` and `staging` (of a job that is held back) are
    seconds. `shown` is for how many seconds after its end a machine is still listed (`None`: for ever). `script`
    gives a job's (seconds, exit code). `jump` is what leads to a machine, `address` where it is. `room` is how many of
    a type can live at once; it and `sold_out` know a type anywhere (`small`), in a place (`fake/r1 small`) and by
    purchase (`fake/r1 small spot`). `launched` counts real machines by instance id and `started` real starts by job id:
    either above 1 is a defect of whoever asked.
    """

    now: Callable[[], int]
    offers: Sequence[Offer] = ()
    lag: int = 0
    boot: int = 0
    ending: int = 0
    shown: int | None = None
    staging: int = 0
    identity: str = "account-1"
    script: Callable[[str], tuple[int, int]] = lambda job: (60, 0)
    jump: Callable[[str], str] = lambda external_id: ""
    address: Callable[[str], str] = lambda external_id: f"10.0.0.{external_id[2:]}"
    sold_out: set[str] = field(default_factory=set)
    quotas: dict[str, str] = field(default_factory=dict)
    room: dict[str, int] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    blind: bool = False
    machines: dict[str, Machine] = field(default_factory=dict)
    tokens: dict[str, tuple[Request, tuple[str, ...]]] = field(default_factory=dict)
    snapshots: dict[str, list[tuple[Seen, ...]]] = field(default_factory=dict)
    launched: Counter[str] = field(default_factory=Counter)
    started: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def place(self, name: str, *, region: str = "", project: str = "", lineage: str = "") -> FakeBackend:
        """The backend of one place of this world, as one lineage of a project sees it."""
        return FakeBackend(self, name, region=region, project=project, lineage=lineage)

    def living(self) -> list[Machine]:
        """What bills now."""
        return [machine for machine in self.machines.values() if not self.over(machine)]

    def over(self, machine: Machine) -> bool:
        return machine.ends_at is not None and machine.ends_at <= self.now()

    def forgotten(self, machine: Machine) -> bool:
        """It ended so long ago that its place no longer knows it."""
        return self.shown is not None and machine.ends_at is not None and self.now() >= machine.ends_at + self.shown

    def interrupt(self, external_id: str, *, reason: str = "spot interruption") -> None:
        """The place takes the machine away, now."""
        machine = self.machines[external_id]
        machine.ends_at, machine.interrupted, machine.reason = self.now(), True, reason

    def power_off(self, external_id: str) -> None:
        """From within: by its dead-man timer, say."""
        machine = self.machines[external_id]
        machine.ends_at, machine.by_itself = self.now(), True

    def reboot(self, external_id: str) -> None:
        """Its running jobs die without an exit code; the folders survive."""
        machine = self.machines[external_id]
        machine.boot += 1
        machine.silent = False

    def fault(self, call: str) -> Fault | None:
        """The fault that this call meets, used up by it."""
        self.calls[call] += 1
        found = next((fault for fault in self.faults if fault.call == call and fault.times > 0), None)
        if found is not None:
            found.times -= 1
        return found


Phase = Literal["starting", "running", "ending", "ended"]


class FakeBackend(Backend):
    """See `backends.base.Backend`."""

    def __init__(self, world: FakeWorld, place: str, *, region: str, project: str, lineage: str) -> None:
        self.place = place
        self._world, self._region, self._project, self._lineage = world, region, project, lineage

    def identity(self) -> str:
        with self._world.lock:
            self._meet("identity")
            return self._world.identity

    def offers(self, need: Need, where: Where) -> Sequence[Offer]:
        """All of this place; what is sold out says so, as far as a catalog may know."""
        with self._world.lock:
            self._meet("offers")
            return [offer for offer in self._world.offers if offer.place == self.place]

    def prepare(self, request: Request, offer: Offer) -> Request:
        with self._world.lock:
            self._meet("prepare")
            return replace(request, inputs=(("image", "fake-image"),), digest=_digest(request))

    def launch(self, request: Request) -> Mapping[str, LaunchAnswer]:
        """A batch: all of it or nothing. The same token with other parameters is an error, as clouds have it."""
        world = self._world
        with world.lock:
            fault = world.fault("launch")
            if fault is not None and not fault.after:
                raise fault.error
            made = self._known(request) or self._made(request)
            if fault is not None:
                raise fault.error
            return {world.machines[external_id].id: Made(external_id=external_id) for external_id in made}

    def instances(self, ids: Sequence[str] | None = None) -> Sequence[Seen]:
        """As the world was `lag` listings ago; a look-up by id is no fresher than the last listing."""
        world = self._world
        with world.lock:
            self._meet("instances" if ids is None else "instances_by_id")
            if world.blind:
                return []
            taken = world.snapshots.setdefault(self.place, [])
            if ids is None or not taken:
                taken.append(tuple(self._seen(machine) for machine in self._mine()))
            seen = taken[max(0, len(taken) - 1 - world.lag)]
            return [one for one in seen if ids is None or one.external_id in ids]

    def terminate(self, ids: Sequence[str], *, generation: int = 0) -> Mapping[str, TerminateAnswer]:
        world = self._world
        with world.lock:
            fault = world.fault("terminate")
            if fault is not None and not fault.after:
                raise fault.error
            for external_id in ids:
                machine = world.machines.get(external_id)
                if machine is not None and machine.ends_at is None:
                    machine.ends_at = world.now() + world.ending
                    machine.reason = "terminated on request"
            if fault is not None:
                raise fault.error
            return {id: Ending() for id in ids}

    def _meet(self, call: str) -> None:
        if fault := self._world.fault(call):
            raise fault.error

    def _mine(self) -> list[Machine]:
        machines = self._world.machines.values()
        mine = (one for one in machines if one.request.place == self.place and one.request.project == self._project)
        return [one for one in mine if not self._world.forgotten(one)]

    def _known(self, request: Request) -> tuple[str, ...]:
        first, made = self._world.tokens.get(request.token, (None, ()))
        if first is not None and first != request:
            raise BackendError("IdempotentParameterMismatch: this token was used with other parameters")
        return made

    def _made(self, request: Request) -> tuple[str, ...]:
        world = self._world
        offer = next((one for one in world.offers if _sells(one, request)), None)
        if request.digest != _digest(request):
            raise BackendError("the request was not prepared here")
        if offer is None:
            raise BackendError(f"{request.instance_type} is not offered in {self.place}")
        if request.instance_type in world.quotas:
            quota = world.quotas[request.instance_type]
            raise QuotaExceeded(f"{quota} forbids another {request.instance_type}", quota=quota)
        names, n = _names(request), len(request.ids)
        living = Counter(name for one in world.living() for name in _names(one.request)) if world.room else Counter()
        if names & world.sold_out or any(living[one] + n > world.room[one] for one in names & world.room.keys()):
            raise NoCapacity(f"no {request.instance_type} in {self.place} now", retry_after=45 if request.spot else 180)
        made = tuple(self._boot(request, index, offer) for index in range(len(request.ids)))
        world.tokens[request.token] = (request, made)
        return made

    def _boot(self, request: Request, index: int, offer: Offer) -> str:
        world = self._world
        external_id = f"i-{len(world.machines) + 1}"
        machine = Machine(
            external_id=external_id,
            request=request,
            index=index,
            region=self._region,
            resources=offer.resources,
            born=world.now(),
        )
        world.machines[external_id] = machine
        world.launched[machine.id] += 1
        return external_id

    def _seen(self, machine: Machine) -> Seen:
        world, request = self._world, machine.request
        offer = next((one for one in world.offers if _sells(one, request)), None)
        return Seen(
            external_id=machine.external_id,
            id=machine.id,
            launch=request.launch,
            pool=request.pool,
            lineage=request.lineage,
            generation=request.generation,
            phase=self._phase(machine),
            interrupted=machine.interrupted,
            by_itself=machine.by_itself and world.over(machine),
            reason=machine.reason if world.over(machine) else "",
            region=machine.region,
            zone=request.zone,
            instance_type=request.instance_type,
            spot=request.spot,
            price=offer.price if offer else None,
            resources=machine.resources,
            address=world.address(machine.external_id),
            via=world.jump(machine.external_id),
            machine_id=f"machine-{machine.external_id}",
            created_at=machine.born,
        )

    def _phase(self, machine: Machine) -> Phase:
        world = self._world
        if world.over(machine):
            return "ended"
        if machine.ends_at is not None:
            return "ending"
        return "starting" if world.now() < machine.born + world.boot else "running"


def throttled() -> CallFailed:
    """What a busy place says: nothing is known of the call."""
    return TryLater("RequestLimitExceeded: slow down")


def _sells(offer: Offer, request: Request) -> bool:
    return (offer.place, offer.instance_type, offer.spot) == (request.place, request.instance_type, request.spot)


def _names(request: Request) -> set[str]:
    """By which a scarce kind of machine may be called."""
    there = f"{request.place} {request.instance_type}"
    return {request.instance_type, there, f"{there} {'spot' if request.spot else 'on-demand'}"}


def _digest(request: Request) -> str:
    return f"rendered:{request.launch}:{request.generation}"
