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

from msgspec.structs import replace

from backends.base import BackendDefaults
from backends.errors import BackendError, TryLater
from backends.fake.machine import FakeJob, FakeMachine, Fault, digest_of, names_of, none_now, sells, throttled, without
from schemas.backend_type import BackendType
from schemas.backend_types import TYPES
from schemas.instance import Seen
from schemas.launch import Ending, LaunchAnswer, Made, Refused, Request, TerminateAnswer
from schemas.leftover import Leftover
from schemas.offer import Offer
from schemas.resources import Need, Where

__all__ = ["FakeBackend", "FakeJob", "FakeMachine", "FakeWorld", "Fault", "throttled"]


@dataclass(kw_only=True)
class FakeWorld:
    """The truth, and the knobs that a test turns. `now` is its clock.

    `lag` is by how many listings an answer is late. `boot`, `ending` and `staging` (of a job that is held back) are
    seconds. `shown` is for how many seconds after its end a machine is still listed (`None`: for ever). `script`
    gives a job's (seconds, exit code). `jump` is what leads to a machine, `address` where it is. `room` is how many of
    a type can live at once; it and `sold_out` know a type anywhere (`small`), in a place (`fake/r1 small`) and by
    purchase (`fake/r1 small spot`). `launched` counts real machines by instance id, `started` real starts by job id.
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
    kind: BackendType = TYPES["fake"]
    """The traits that the world's backends keep: how they launch, their batches, their scope."""
    delay: int = 0
    """For how many seconds a new machine is in no listing."""
    late: set[str] = field(default_factory=set)
    """Like `sold_out`, but the request is accepted: the listing tells the refusal `late_after` seconds later."""
    late_after: int = 20
    twins: int = 0
    """How many more machines are made twice, with one mark."""
    asked_at: int | None = None
    """When the last launch request came, for a kind with `launch_interval`."""
    faults: list[Fault] = field(default_factory=list)
    blind: bool = False
    machines: dict[str, FakeMachine] = field(default_factory=dict)
    tokens: dict[str, tuple[Request, tuple[str, ...]]] = field(default_factory=dict)
    snapshots: dict[str, list[tuple[Seen, ...]]] = field(default_factory=dict)
    launched: Counter[str] = field(default_factory=Counter)
    started: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)
    leftovers: list[Leftover] = field(default_factory=list)
    """What is there besides machines, of every project."""
    lock: threading.RLock = field(default_factory=threading.RLock)

    def place(self, name: str, *, region: str = "", project: str = "", lineage: str = "") -> FakeBackend:
        """The backend of one place of this world, as one lineage of a project sees it."""
        return FakeBackend(self, name, region=region, project=project, lineage=lineage)

    def living(self) -> list[FakeMachine]:
        """What bills now."""
        return [machine for machine in self.machines.values() if not self.over(machine)]

    def over(self, machine: FakeMachine) -> bool:
        return machine.ends_at is not None and machine.ends_at <= self.now()

    def forgotten(self, machine: FakeMachine) -> bool:
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

    def stop(self, external_id: str) -> None:
        """Powered off, and not ended: its jobs are gone, its bill is not."""
        machine = self.machines[external_id]
        machine.stopped = machine.silent = True

    def lose_host(self, external_id: str, *, why: str = "its host does not answer") -> None:
        """The backend still lists the machine, but cannot tell whether it works."""
        machine = self.machines[external_id]
        machine.silent, machine.unfit = True, why

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


class FakeBackend(BackendDefaults):
    """See `backends.base.Backend`."""

    def __init__(self, world: FakeWorld, place: str, *, region: str, project: str, lineage: str) -> None:
        self.place = place
        self._world, self._region, self._project, self._lineage = world, region, project, lineage

    def identity(self) -> str:
        with self._world.lock:
            self._meet("identity")
            return self._world.identity

    def offers(self, needs: Sequence[Need], where: Where) -> Sequence[Offer]:
        """All of this place; what is sold out says so, as far as a catalog may know."""
        with self._world.lock:
            self._meet("offers")
            return [offer for offer in self._world.offers if offer.place == self.place]

    def prepare(self, request: Request, offer: Offer) -> Request:
        with self._world.lock:
            self._meet("prepare")
            return replace(request, inputs=(("image", "fake-image"),), digest=digest_of(request))

    def launch(self, request: Request) -> Mapping[str, LaunchAnswer]:
        """As the world's kind has it: `token` and `name` make nothing twice, `once` makes another machine each time.

        A token is of a batch, all of it or nothing, and with other parameters an error. A name is of one machine.
        """
        world = self._world
        with world.lock:
            fault = world.fault("launch")
            if fault is not None and not fault.after:
                raise fault.error
            self._check(request)
            answers = self._one_by_one(request) if world.kind.launch == "name" else self._at_once(request)
            if fault is not None:
                raise fault.error
            return answers

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
                if machine is None or world.over(machine):
                    continue
                if machine.ends_at is None or machine.failure is not None:
                    machine.ends_at = world.now() + world.ending
                    machine.reason = "terminated on request"
            if fault is not None:
                raise fault.error
            return {id: Ending() for id in ids}

    def leftovers(self) -> Sequence[Leftover]:
        with self._world.lock:
            self._meet("leftovers")
            return [one for one in self._world.leftovers if one.place == self.place]

    def remove(self, leftover: Leftover) -> None:
        world = self._world
        with world.lock:
            self._meet("remove")
            world.leftovers = without(world.leftovers, leftover)

    def _meet(self, call: str) -> None:
        if fault := self._world.fault(call):
            raise fault.error

    def _mine(self) -> list[FakeMachine]:
        machines = self._world.machines.values()
        everywhere = self._world.kind.scope == "account"
        mine = [
            one for one in machines
            if one.request.project == self._project and (everywhere or one.request.place == self.place)
        ]  # fmt: skip
        shown = self._world.now() - self._world.delay
        return [one for one in mine if one.born <= shown and not self._world.forgotten(one)]

    def _check(self, request: Request) -> None:
        world, kind = self._world, self._world.kind
        if request.digest != digest_of(request):
            raise BackendError("the request was not prepared here")
        if len(request.ids) > kind.batch:
            raise BackendError(f"{len(request.ids)} machines in one request; {kind.name} takes {kind.batch}")
        passed = kind.launch_interval if world.asked_at is None else world.now() - world.asked_at
        if passed < kind.launch_interval:
            raise TryLater("too many requests", retry_after=kind.launch_interval - passed)
        world.asked_at = world.now()

    def _at_once(self, request: Request) -> dict[str, LaunchAnswer]:
        world = self._world
        first, made = world.tokens.get(request.token, (None, ())) if world.kind.launch == "token" else (None, ())
        if first is not None and first != request:
            raise BackendError("IdempotentParameterMismatch: this token was used with other parameters")
        if not made:
            refused = self._refusal(request, len(request.ids))
            if refused is not None:
                return dict.fromkeys(request.ids, refused)
            made = tuple(self._boot(request, index) for index in range(len(request.ids)))
            world.tokens[request.token] = (request, made)
        return {id: Made(external_id=external_id) for id, external_id in zip(request.ids, made, strict=True)}

    def _one_by_one(self, request: Request) -> dict[str, LaunchAnswer]:
        named = {one.id: one.external_id for one in self._world.machines.values()}
        answers: dict[str, LaunchAnswer] = {}
        for index, id in enumerate(request.ids):
            refused = None if id in named else self._refusal(request, 1)
            answers[id] = refused or Made(external_id=named[id] if id in named else self._boot(request, index))
        return answers

    def _refusal(self, request: Request, n: int) -> Refused | None:
        """Why `n` more machines cannot be had."""
        world = self._world
        if not any(sells(one, request) for one in world.offers):
            return Refused(meaning="permanent", why=f"{request.instance_type} is not offered in {self.place}")
        if request.instance_type in world.quotas:
            quota = world.quotas[request.instance_type]
            return Refused(meaning="quota", why=f"{quota} forbids another {request.instance_type}", quota=quota)
        names = names_of(request)
        living = Counter(name for one in world.living() for name in names_of(one.request)) if world.room else Counter()
        if names & world.sold_out or any(living[one] + n > world.room[one] for one in names & world.room.keys()):
            return none_now(request, self.place)
        return None

    def _boot(self, request: Request, index: int) -> str:
        world = self._world
        if world.twins > 0:
            world.twins -= 1
            self._machine(request, index)
        return self._machine(request, index)

    def _machine(self, request: Request, index: int) -> str:
        world = self._world
        offer = next(one for one in world.offers if sells(one, request))
        machine = FakeMachine(
            external_id=f"i-{len(world.machines) + 1}",
            request=request,
            index=index,
            region=self._region,
            resources=offer.resources,
            born=world.now(),
        )
        if names_of(request) & world.late:
            machine.failure = none_now(request, self.place)
            machine.ends_at = world.now() + world.late_after
        world.machines[machine.external_id] = machine
        world.launched[machine.id] += 1
        return machine.external_id

    def _seen(self, machine: FakeMachine) -> Seen:
        world, request = self._world, machine.request
        offer = next((one for one in world.offers if sells(one, request)), None)
        return Seen(
            external_id=machine.external_id,
            id=machine.id,
            launch=request.launch,
            pool=request.pool,
            lineage=request.lineage,
            generation=request.generation,
            phase=machine.phase(over=world.over(machine), now=world.now(), boot=world.boot),
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
            unfit=machine.unfit,
            failure=machine.failure if world.over(machine) else None,
        )
