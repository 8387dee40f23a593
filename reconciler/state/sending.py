"""When the requests of launches may be sent, and for how long their machines are looked for. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from msgspec.structs import replace

from schemas.backend_type import BackendType
from schemas.backend_types import type_of
from schemas.base import Seconds
from schemas.desired import BackendConfig
from schemas.launch import Intent
from schemas.plan import Launch, Plan
from schemas.state import Pace, Place, State

APART: Seconds = 300
"""Good listings that lack a machine prove that it is gone only this far apart."""
PUNCTUAL: Seconds = 60
"""A scheduled request is not sent later than this after its time: from then on it is looked for, or planned anew."""
PATIENCE: Seconds = 30
"""One apply waits this long for the time of a request; what is due later is left for the next apply."""
AGAIN: Seconds = 60
"""A scheduled request without an answer is sent again after this time at the earliest."""
LATEST: Seconds = 3600
"""No request is scheduled for later than this."""
REMEMBERED: Seconds = 86400
"""A pace is kept for this long after its last request."""


def type_at(state: State, place: str) -> BackendType:
    """The type of the backend of that place; that of an unknown cloud where the state does not know the place."""
    return type_of(next((one.config.type for one in state.places if one.name == place), ""))


def type_for(backends: Mapping[str, BackendConfig], backend: str) -> BackendType:
    """The type of that backend; where it is not configured, the one of that name."""
    return type_of(backends[backend].type if backend in backends else backend)


def batch_of(backends: Mapping[str, BackendConfig], backend: str, *, whole: bool, most: int) -> int:
    """The most machines of one request; `whole`: of a gang, which a backend that knows gangs gets undivided."""
    kind = type_for(backends, backend)
    return kind.batch if whole and kind.gang == "native" else min(most, kind.batch)


def scheduled(kind: BackendType) -> bool:
    """Whether each of its requests has a time, written before it is sent, and is sent by the apply that wrote it."""
    return kind.launch == "once" or kind.launch_interval > 0


def counted_from(intent: Intent, kind: BackendType) -> int:
    """From when on a good listing without its machines counts as one that lacks them."""
    if kind.launch == "once":
        return (intent.opened_at if intent.send_at is None else intent.send_at) + PUNCTUAL + kind.settle
    return intent.request.not_after


def apart(kind: BackendType) -> Seconds:
    """How far apart two good listings must be that both lack a machine which was never seen."""
    return kind.settle_apart if kind.launch == "once" else APART


def account_of(place: Place) -> str:
    """Whose requests are counted together: all places of one identity."""
    return place.identity or place.config.name


def paced(state: State, plan: Plan, *, now: int) -> tuple[Plan, tuple[str, ...]]:
    """The plan without the launches whose request is due too late for this apply, and a note on each backend."""
    paces = {pace.account: pace for pace in state.paces}
    places = {place.name: place for place in state.places}
    late: dict[str, set[str]] = {}
    for launch in plan.actions:
        place = places.get(launch.offer.place) if isinstance(launch, Launch) else None
        if not isinstance(launch, Launch) or place is None:
            continue
        kind, pace = type_of(place.config.type), paces.get(account_of(place), Pace(account=account_of(place)))
        due = _due(kind, pace, now=now)
        if due > now + PATIENCE:
            late.setdefault(place.config.name, set()).add(launch.launch)
        else:
            paces[pace.account] = replace(pace, at=due)
    if not late:
        return plan, ()
    gone = frozenset[str]().union(*late.values())
    kept = tuple(one for one in plan.actions if not (isinstance(one, Launch) and one.launch in gone))
    return replace(plan, actions=kept), tuple(_note(name, len(ids)) for name, ids in late.items())


def _note(backend: str, count: int) -> str:
    launches = "1 launch waits" if count == 1 else f"{count} launches wait"
    return f"{launches}: {backend} takes no more requests now. The next apply sends them."


def _due(kind: BackendType, pace: Pace, *, now: int) -> int:
    """When the next request of that account may be sent."""
    last = pace.at if pace.at <= now + LATEST else 0  # a clock that was ahead wrote that
    return max(now, pace.not_before, last + kind.launch_interval if kind.launch_interval else now)


def scheduled_sends(state: State, ids: Collection[str], *, now: int) -> State:
    """With a time for the request of each of these launches, where their type asks for one."""
    paces = {pace.account: pace for pace in state.paces}
    places = {place.name: place for place in state.places}
    intents = []
    for intent in state.intents:
        place = places.get(intent.request.place)
        kind = type_of(place.config.type if place else "")
        if place is not None and intent.id in ids and scheduled(kind):
            pace = paces.get(account_of(place), Pace(account=account_of(place)))
            due = _due(kind, pace, now=now)
            if due <= now + PATIENCE or intent.send_at is None:
                intent = replace(intent, send_at=due)
                paces[pace.account] = replace(pace, at=due)
        intents.append(intent)
    kept = tuple(pace for pace in paces.values() if max(pace.at, pace.not_before) > now - REMEMBERED)
    return replace(state, intents=tuple(intents), paces=kept)


def held_back(paces: Iterable[Pace], account: str, *, until: int) -> tuple[Pace, ...]:
    """With no further request of that account before `until`; a later time that is known already stays."""
    known = {pace.account: pace for pace in paces}
    mine = known.pop(account, Pace(account=account))
    return (*known.values(), replace(mine, not_before=max(mine.not_before, until)))


def held_off(state: State, *, now: int) -> frozenset[str]:
    """Places whose vendor asked us to send nothing yet."""
    waiting = {pace.account for pace in state.paces if pace.not_before > now}
    return frozenset(place.name for place in state.places if waiting and account_of(place) in waiting)


def newly_scheduled(state: State, *, was: State | None) -> frozenset[str]:
    """Launches whose request got its time in this write: only who wrote it may send them."""
    before = {intent.id: intent.send_at for intent in was.intents} if was is not None else {}
    return frozenset(one.id for one in state.intents if one.send_at is not None and before.get(one.id) != one.send_at)
