"""Ask every place that the project may have used for its resources, and remove unowned ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from msgspec.structs import replace

from backends.base import Backend
from backends.errors import BackendError, CallFailed, StillUsed, TryLater
from reconciler.engine.begin import place_in
from reconciler.engine.ports import Connections, Ports
from reconciler.state.observe.listing_scope import scope_of
from reconciler.state.unowned import PlaceContents
from reconciler.system.concurrent import awaited, gather
from schemas.launch import Ending, Refused
from schemas.leftover import Leftover
from schemas.state import Place, State

LIMIT = 60.0
LATER = "a machine on its way out still uses it: `dstack gc` removes it once that is gone"


@dataclass(frozen=True)
class GarbageQuestion:
    """`silent`: place -> why it could not say; what it has is not known."""

    found: tuple[PlaceContents, ...]
    silent: dict[str, str]


def ask_everywhere(ports: Ports, state: State, connections: Connections) -> GarbageQuestion:
    """Every region of every cloud that the state or its documents name, whatever regions they name today.

    A place that another account answers for is silent: nothing there is ours to judge.
    """
    silent: dict[str, str] = {}
    places = list(_places(ports, state, silent))
    pinned = {place.config.name: place.identity for place in state.places if place.identity}
    tasks = {place.name: _look(place, connections, pinned=pinned.get(place.config.name, "")) for place in places}
    asked = gather(ports, tasks, limit=LIMIT)
    answers = dict(awaited(asked, {name: name for name in tasks}, asking=ports.asking))
    found = []
    for place in places:
        answer = answers.get(place.name)
        if isinstance(answer, PlaceContents):
            found.append(answer)
        else:
            silent[place.name] = str(answer) if answer else "no answer in time"
    return GarbageQuestion(tuple(found), silent)


def remove_all(
    connections: Connections,
    state: State,
    chosen: Iterable[Leftover],
    *,
    leaving: Iterable[str] = (),
    told: Callable[[Leftover, str], object],
) -> frozenset[str]:
    """One after the other, in their order; `told` hears of each, with "" or why it could not be removed.

    Ids of those that only wait for a machine to be gone: in places of `leaving`, or where one was ended just now.
    """
    leaving, waiting = set(leaving), set()
    known = {place.name: place for place in state.places}
    configs = {place.config.name: place.config for place in state.places}
    if state.applied:
        configs |= {config.name: config for config in state.applied.desired.backends}
    for one in chosen:
        name, _, region = one.place.partition("/")
        backend = connections.to(known.get(one.place) or place_in(configs[name], region))
        try:
            _remove(backend, one, generation=state.generation)
            told(one, "")
            leaving |= {one.place} if one.kind == "instance" else set()
        except StillUsed as error:
            waiting |= {one.id} if one.place in leaving else set()
            told(one, LATER if one.place in leaving else str(error))
        except CallFailed as error:
            told(one, str(error))
    return frozenset(waiting)


def _remove(backend: Backend, one: Leftover, *, generation: int) -> None:
    if one.kind == "instance":
        answer = backend.terminate([one.id], generation=generation).get(one.id)
        if isinstance(answer, Refused):
            raise BackendError(answer.why)
        if not isinstance(answer, Ending):
            raise TryLater(answer.why if answer else f"{one.place} did not say whether it ends {one.id}")
    else:
        backend.remove(one)


def _places(ports: Ports, state: State, silent: dict[str, str]) -> Iterator[Place]:
    known = {place.name: place for place in state.places}
    applied = state.applied.desired.backends if state.applied else ()
    configs = {config.name: config for config in (*(place.config for place in state.places), *applied)}
    for config in configs.values():
        if config.withheld and config.traits.available:
            silent[config.name] = config.withheld
            continue
        if not config.traits.regional or config.unsupported:
            continue
        try:
            regions = ports.regions(replace(config, regions=()))
        except CallFailed as error:
            silent[config.name] = str(error)
            continue
        for region in dict.fromkeys((*regions, *config.regions)):
            place = place_in(config, region)
            yield known.get(place.name, place)


def _look(place: Place, connections: Connections, *, pinned: str) -> Callable[[], PlaceContents]:
    def look() -> PlaceContents:
        backend = connections.to(place)
        identity = backend.identity()
        if pinned and identity != pinned:
            raise BackendError(f"another account answers: {identity}, not {pinned}")
        scope = scope_of(replace(place, identity=identity))
        return PlaceContents(place.name, scope, tuple(backend.instances()), tuple(backend.leftovers()))

    return look
