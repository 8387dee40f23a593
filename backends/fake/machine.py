"""What a fake world is made of: machines, the jobs on them, and faults that calls meet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from backends.errors import CallFailed, StillUsed, TryLater
from schemas.launch import Refused, Request
from schemas.leftover import Leftover
from schemas.offer import Offer
from schemas.resources import Resources

Phase = Literal["starting", "running", "stopped", "ending", "ended"]


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
class FakeMachine:
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
    stubborn: bool = False
    """Its jobs do not end when they are told to."""
    broken: int = 0
    fence: int = 0
    stopped: bool = False
    """Powered off, and still listed and billed."""
    unfit: str = ""
    """Why its backend says that it cannot be used now."""
    failure: Refused | None = None
    """What its launch is refused for at `ends_at`, though its request was accepted."""
    ahead: int = 0
    """By how many seconds the clock of its host is ahead."""
    jobs: dict[str, FakeJob] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return self.request.ids[self.index]

    @property
    def gpus(self) -> tuple[str, ...]:
        """UUIDs, as its host knows them."""
        gpu = self.resources.gpu
        return tuple(f"GPU-{self.external_id}-{number}" for number in range(gpu.count if gpu else 0))

    def phase(self, *, over: bool, now: int, boot: int) -> Phase:
        """As its place lists it at `now`; `over`: it has ended, `boot`: seconds until it runs."""
        if over:
            return "ended"
        if self.failure is not None:
            return "starting"
        if self.ends_at is not None:
            return "ending"
        if self.stopped:
            return "stopped"
        return "starting" if now < self.born + boot else "running"


@dataclass(kw_only=True)
class Fault:
    """The next `times` calls of that name fail; with `after`, the deed is done first and its answer is lost."""

    call: str
    error: CallFailed
    times: int = 1
    after: bool = False


def throttled() -> CallFailed:
    """What a busy place says: nothing is known of the call."""
    return TryLater("RequestLimitExceeded: slow down")


def sells(offer: Offer, request: Request) -> bool:
    return (offer.place, offer.instance_type, offer.spot) == (request.place, request.instance_type, request.spot)


def names_of(request: Request) -> set[str]:
    """By which a scarce kind of machine may be called."""
    there = f"{request.place} {request.instance_type}"
    return {request.instance_type, there, f"{there} {'spot' if request.spot else 'on-demand'}"}


def digest_of(request: Request) -> str:
    return f"rendered:{request.launch}:{request.generation}"


def none_now(request: Request, place: str) -> Refused:
    """The refusal of a type that is sold out."""
    why = f"no {request.instance_type} in {place} now"
    return Refused(meaning="capacity", why=why, retry_after=45 if request.spot else 180)


def without(leftovers: Sequence[Leftover], gone: Leftover) -> list[Leftover]:
    """The others of them. Raises `StillUsed` where something uses the one that is to go."""
    for one in leftovers:
        if one.id == gone.id and one.in_use:
            raise StillUsed(f"{one.kind} {one.id} is used by {one.in_use}")
    return [one for one in leftovers if one.id != gone.id]
