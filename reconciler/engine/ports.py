"""Everything outside the program that one pass may touch, as one value."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from backends.base import Backend
from backends.errors import CallFailed
from reconciler.store.markers.base import DoneMarkers
from reconciler.system.concurrent import Asking, unheard
from schemas.delivery import Delivery
from schemas.desired import BackendConfig, Desired
from schemas.offer import Offer
from schemas.run import RUN_ENDED, Container, RunSpec
from schemas.state import Applied, Place, Revision, State

if TYPE_CHECKING:
    from reconciler.hosts.runner import Runner
    from reconciler.hosts.uploads import Delivered
    from reconciler.state.authority import GitFacts
    from reconciler.store.base import Store
    from reconciler.store.blobs.folder import Blobs


class Configuration(Protocol):
    """The compiled documents of a checkout; `digest` is of their bytes."""

    @property
    def root(self) -> Path: ...
    @property
    def desired(self) -> Desired: ...
    @property
    def digest(self) -> str: ...


@dataclass(frozen=True, kw_only=True)
class Ports:
    """`connect(config, region, lineage)` gives a place; lineage "" asks for everything of the project.

    `boot_time` gives the id of this start of the machine and the seconds since then, `("", 0)` where that is unknown.
    `now` is the wall clock (whole seconds), `clock` one that also counts while the machine
    sleeps (boot time, seconds). `nonce` gives 8 new characters of a-z and 0-9.
    `spawn` runs its argument on a daemon thread (tests: at once). `who` is user@host.
    `lacking` says why a run's secrets or variables are not to be had here ("" if they are), `undeclared` why nowhere;
    `resolve` gives them, `fill` an image's name and login with theirs in place.
    `bundle(root, files, never)` packs a run's files, without those that secrets lie in (`never`);
    `facts(mine, applied)` is what git proves. `artifacts` is where artifacts go, `blobs` where it is `None`.
    `deliver(job, seconds)` lets a host put a job's result itself; `delivered` is what it put.
    `tidy` removes what lies beside the state and nobody needs; what it could not do, in words.
    `record` appends entries to the ledger; one with a known id is dropped.
    `regions(config)` are those that a backend has, where the documents name none.
    `asking` hears whom a tick waits for.
    `catalog` gives the offers of clouds that have a catalog, whether or not they are places yet.
    """

    store: Store
    blobs: Blobs
    markers: DoneMarkers
    record: Callable[[Sequence[Any]], object]
    connect: Callable[[BackendConfig, str, str], Backend]
    runner: Runner
    now: Callable[[], int]
    clock: Callable[[], float]
    sleep: Callable[[float], None]
    nonce: Callable[[], str]
    spawn: Callable[[Callable[[], None]], object]
    who: str
    lacking: Callable[[RunSpec, Desired], str]
    undeclared: Callable[[RunSpec, Desired], str]
    resolve: Callable[[RunSpec, Desired], Mapping[str, str]]
    fill: Callable[[Container, Desired], Container]
    bundle: Callable[[Path, tuple[str, ...] | None, tuple[str, ...]], Path]
    facts: Callable[[Revision, Applied], GitFacts | None]
    unattended: bool = False
    boot_time: Callable[[], tuple[str, int]] = lambda: ("", 0)
    regions: Callable[[BackendConfig], Sequence[str]] = lambda config: ()
    catalog: Callable[[Desired], Sequence[Offer]] = lambda desired: ()
    artifacts: Blobs | None = None
    deliver: Callable[[str, int | None], tuple[Delivery, ...]] | None = None
    delivered: Callable[[str], Delivered | None] | None = None
    tidy: Callable[[State], Sequence[str]] | None = None
    asking: Asking = unheard


class Connections:
    """The places of one lineage, each connected once, when first needed. Thread-safe."""

    def __init__(self, ports: Ports, lineage: str) -> None:
        self._ports = ports
        self._lineage = lineage
        self._lock = threading.Lock()
        self._open: dict[str, Backend] = {}

    def to(self, place: Place) -> Backend:
        """Raises `CallFailed` where it cannot be connected."""
        with self._lock:
            if place.name not in self._open:
                self._open[place.name] = self._ports.connect(place.config, place.region, self._lineage)
            return self._open[place.name]

    def notes(self) -> tuple[str, ...]:
        """What the places say of what was done there, each sentence once."""
        return tuple(dict.fromkeys(note for backend in tuple(self._open.values()) for note in backend.notes()))

    def confirm_ended(self, state: State) -> None:
        """Tell each backend that `state` is stored, so that it may forget the instances that ended in it."""
        living = frozenset(one.id for one in state.instances if one.phase != "terminated")
        for backend in tuple(self._open.values()):
            with suppress(CallFailed):  # it reports them again, and the next apply confirms again
                backend.confirm_ended(living)


def lacking_of(ports: Ports, state: State, desired: Desired, *, acts: bool) -> tuple[dict[str, str], dict[str, str]]:
    """Run name -> what keeps it from starting, and what it needs that this machine lacks and need not have.

    Whoever acts needs all of it; a plan assumes that whoever applies it has what this machine lacks.
    """
    specs = (*desired.runs, *(run.spec for run in state.runs if run.status not in RUN_ENDED))
    here = {spec.name: why for spec in specs if (why := ports.lacking(spec, desired))}
    if acts:
        return here, {}
    nowhere = {spec.name: why for spec in specs if (why := ports.undeclared(spec, desired))}
    return nowhere, {name: why for name, why in here.items() if name not in nowhere}
