"""Look up everything that a plan's actions need before they are written. Makes nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from msgspec.structs import replace

from backends.errors import BackendError, LackingHere, NoCapacity, TryLater
from reconciler.engine.backend_answers import refusal_of
from reconciler.engine.job_spec import CannotOrder, bundle_of
from reconciler.engine.ports import Connections, Ports
from reconciler.secrets.errors import SecretLacking
from reconciler.state.access_modes import way_to
from reconciler.state.capacity_backoff import capacity_of
from reconciler.state.observe.merge import another_account
from reconciler.state.sending import type_at
from reconciler.system.concurrent import gather
from schemas.desired import Desired
from schemas.launch import Request
from schemas.plan import Assign, Launch, Plan, Update
from schemas.run import Run
from schemas.state import Capacity, State

LIFE = 600  # seconds in which an open launch may be sent again; tokens live longer
SOON = 60
LIMIT = 120.0


class Rendered(NamedTuple):
    """`bare` is what `request` was made from, `identity` who looked it up: "" where that is known already."""

    bare: Request
    request: Request
    identity: str


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """`requests` by launch id. What could not be prepared is to be planned around: `capacity` and `lacking` say why.

    `identities`: place -> who looked it up, where nobody had been before. `pools` are those that a launch could not
    be prepared for. `here` is of this machine alone, which lacks something, and is not to be stored.
    """

    requests: dict[str, Request] = field(default_factory=dict)
    identities: dict[str, str] = field(default_factory=dict)
    pools: frozenset[str] = frozenset()
    capacity: tuple[Capacity, ...] = ()
    here: tuple[Capacity, ...] = ()
    lacking: dict[str, str] = field(default_factory=dict)

    @property
    def hindered(self) -> bool:
        return bool(self.capacity or self.here or self.lacking)


def prepare(
    ports: Ports,
    plan: Plan,
    state: State,
    *,
    desired: Desired,
    connections: Connections,
    ready: dict[str, Rendered],
) -> Prepared:
    """`ready` remembers, by launch id, what was rendered from what, so that planning again renders nothing again."""
    now = ports.now()
    bare = {one.launch: _request(one, state, now=now) for one in plan.actions if isinstance(one, Launch)}
    launches = {one.launch: one for one in plan.actions if isinstance(one, Launch)}
    tasks = {
        id: _rendered(launches[id], request, state, connections)
        for id, request in bare.items()
        if id not in ready or not _alike(ready[id].bare, request)
    }
    capacity, here = [], []
    answers = dict(gather(ports, tasks, limit=LIMIT))
    for id in tasks:
        answer = answers.get(id, TryLater(f"no answer within {LIMIT:.0f} s"))
        refused = _by_zone(launches[id], state, now=now)
        if isinstance(answer, LackingHere):
            here.append(capacity_of(bare[id], refusal_of(answer), now=now))
        elif not isinstance(answer, Rendered):
            capacity.append(_capacity(bare[id], answer, refused=refused, now=now))
        elif again := next((one for one in refused if one.zone == answer.request.zone), None):
            # The place knows no other zone: what that one said holds for whoever names none.
            capacity.append(replace(again, zone=launches[id].offer.zone))
        else:
            ready[id] = answer
    return Prepared(
        requests={id: ready[id].request for id in bare if id in ready},
        identities={ready[id].request.place: ready[id].identity for id in bare if id in ready and ready[id].identity},
        pools=frozenset(request.pool for id, request in bare.items() if id not in ready),
        capacity=tuple(capacity),
        here=tuple(here),
        lacking=_lacking(ports, plan, state, desired=desired),
    )


def _request(launch: Launch, state: State, *, now: int) -> Request:
    return Request(
        place=launch.offer.place,
        launch=launch.launch,
        token=f"{state.project}-{launch.launch}"[:64],
        ids=launch.ids,
        names=launch.names,
        pool=launch.pool,
        instance_type=launch.offer.instance_type,
        zone=launch.offer.zone,
        spot=launch.offer.spot,
        price=launch.offer.price,
        max_price=launch.max_price,
        disk=launch.disk,
        reservation=launch.reservation,
        together=launch.together,
        way=way_to(state, place=launch.offer.place, pool=launch.pool),
        near=launch.near,
        handle=launch.offer.handle,
        image=launch.image,
        engine=launch.engine,
        deadline=_deadline(launch, state, now=now),
        avoid=tuple(sorted({one.zone for one in _by_zone(launch, state, now=now)})),
        tags=launch.tags,
        lineage=state.lineage,
        generation=state.generation + 1,
        project=state.project,
        not_after=now + LIFE,
    )


def _deadline(launch: Launch, state: State, *, now: int) -> int:
    """When its backend is to end it by itself, where that can be told it; 0: never."""
    if launch.max_lifetime is None or not type_at(state, launch.offer.place).own_deadline:
        return 0
    return now + launch.max_lifetime


def _by_zone(launch: Launch, state: State, *, now: int) -> list[Capacity]:
    """What zones of its place said a moment ago that had none of it."""
    offer = launch.offer
    alike = (offer.place, offer.instance_type, offer.spot, launch.reservation)
    return [
        one for one in state.capacity
        if one.zone and one.until > now and (one.place, one.instance_type, one.spot, one.reservation) == alike
    ]  # fmt: skip


def _alike(one: Request, other: Request) -> bool:
    """But for what follows from the time at which it was asked for."""
    return replace(one, not_after=0, deadline=0) == replace(other, not_after=0, deadline=0)


def _rendered(launch: Launch, request: Request, state: State, connections: Connections) -> Callable[[], Rendered]:
    place = next((known for known in state.places if known.name == request.place), None)

    def render() -> Rendered:
        if place is None:
            raise BackendError(f"{request.place} is not known")
        backend = connections.to(place)
        # Where a listing was believed, it was that of who the place is pinned to.
        who = backend.identity() if place.observed_at is None else ""
        if who and place.identity and who != place.identity:
            raise BackendError(another_account(place, who))
        return Rendered(request, backend.prepare(request, launch.offer), who)

    return render


def _capacity(request: Request, error: Rendered | Exception, *, refused: Sequence[Capacity], now: int) -> Capacity:
    if not isinstance(error, BackendError):
        # Throttled, or out of reach: the place is left alone for a while. Of its capacity that says nothing.
        wait = (error.retry_after if isinstance(error, TryLater) else 0) or SOON
        return Capacity(place=request.place, instance_type="", until=now + wait, why=str(error))
    found = capacity_of(request, refusal_of(error), now=now)
    if isinstance(error, NoCapacity) and refused:  # for want of a zone: in the words of the place itself
        found = replace(found, why=f"{error} ({refused[0].why})", quota=refused[0].quota)
    return found


def _lacking(ports: Ports, plan: Plan, state: State, *, desired: Desired) -> dict[str, str]:
    """Runs about to start, or to be bought machines for, whose secrets or files are not to be had here, and why."""
    enrolled = tuple(one.enrol for one in plan.actions if isinstance(one, Update) and one.enrol is not None)
    runs = {run.id: run for run in (*state.runs, *enrolled)}
    starting = {one.run for one in plan.actions if isinstance(one, Assign)}
    buying = {one.pool for one in plan.actions if isinstance(one, Launch) and one.origin == "run"}
    found: dict[str, str] = {}
    known: dict[object, str] = {}
    for run in runs.values():
        waits = run.status == "submitted" and not run.held and run.spec.pool in buying
        if run.id not in starting and not waits:
            continue
        values = (run.spec.env, run.spec.sealed, run.spec.container)
        why = known[values] if values in known else known.setdefault(values, _unresolved(ports, run, desired=desired))
        why = why or (_no_files(ports, run) if run.id in starting else "")
        if why:
            found[run.spec.name] = why
    return found


def _unresolved(ports: Ports, run: Run, *, desired: Desired) -> str:
    try:
        ports.resolve(run.spec, desired)
        if run.spec.container:
            ports.fill(run.spec.container, desired)
    except SecretLacking as error:
        return str(error)
    return ""


def _no_files(ports: Ports, run: Run) -> str:
    try:
        bundle_of(ports, run)
    except CannotOrder as error:
        return str(error)
    return ""
