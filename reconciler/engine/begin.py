"""Begin a pass: read the state, or make a first one, with every place that must be asked.

A missing state is not an empty one: every place is asked for the project first, and if
anything answers, or a place cannot say, nothing is begun.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from backends.errors import CallFailed
from reconciler.engine.account_listings import grouped
from reconciler.engine.ports import Connections, Ports
from reconciler.state.host_place import config_of
from reconciler.system.concurrent import awaited, gather
from schemas.base import place_of
from schemas.desired import BackendConfig, Desired
from schemas.instance import Seen
from schemas.plan import Launch
from schemas.state import VERSION, Place, State


class TickRefused(Exception):
    """Nothing was done. The message says why, and names the next command."""


class ProjectDestroyed(TickRefused):
    """A person destroyed the project, and nobody revived it."""


@dataclass(frozen=True, kw_only=True)
class Begin:
    """`state` has every place of the stored one and of `desired`. `missing`: nothing is stored yet.

    `stored` and `token` are as read.
    """

    state: State
    missing: bool
    stored: State | None = None
    token: str = ""


def begin(ports: Ports, *, desired: Desired | None) -> Begin:
    """The state to observe from. `desired` are the caller's documents, where it brought any."""
    stored, token = ports.store.read()
    if stored is not None:
        if why := why_copied(ports, stored):
            raise TickRefused(why)
        return Begin(state=with_places(stored, desired), missing=False, stored=stored, token=token)
    if desired is None:
        raise TickRefused("nothing is applied yet: `dstack apply`")
    if not desired.project:
        raise TickRefused("the project has no id yet: `dstack init`")
    fresh = State(version=VERSION, project=desired.project, lineage="")
    asked = with_places(fresh, desired)
    try:
        _refuse_living(ports, everywhere(ports, asked, desired))
    except TickRefused:
        # Another first apply may have written it since, and made what was found.
        stored, token = ports.store.read()
        if stored is None:
            raise
        return Begin(state=with_places(stored, desired), missing=False, stored=stored, token=token)
    return Begin(state=replace(asked, lineage=ports.nonce() + ports.nonce()), missing=True)


def why_copied(ports: Ports, state: State) -> str:
    """Why `state` must not be used here: it is a copy, and the original has the instances. "": it may be used."""
    for place in state.places:
        if place.config.traits.kind == "machine" and place.config.traits.scope == "host" and not place.forgotten:
            try:
                found = ports.connect(place.config, place.region, state.lineage).why_copied()
            except CallFailed:
                continue  # its listing says so, and nothing is done there
            if found:
                return found
    return ""


def everywhere(ports: Ports, state: State, desired: Desired) -> State:
    """`state` with every region of each backend whose documents name none: where nothing is remembered, all are asked.

    Raises `TickRefused` where a backend cannot say which there are.
    """
    new: list[Place] = []
    for config in desired.backends:
        if config.withheld and config.traits.available:
            raise TickRefused(
                f"there is no state at {ports.store.address}, and {config.name} cannot be asked whether this project "
                f"has instances there: {config.withheld}"
            )
        if config.unsupported or config.regions or not config.traits.regional:
            continue
        try:
            new += [place_in(config, region) for region in ports.regions(config)]
        except CallFailed as error:
            raise TickRefused(
                f"there is no state at {ports.store.address}, and {config.name} cannot say whether this project has "
                f"instances there ({error}): try again when it answers"
            ) from None
    known = {place.name for place in state.places}
    return replace(state, places=(*state.places, *(place for place in new if place.name not in known)))


def place_in(config: BackendConfig, region: str, *, known: Iterable[Place] = ()) -> Place:
    """Pinned from its first day to who answers for the backend's other regions among `known`."""
    siblings = known if config.traits.regional else ()
    pins = (one.identity for one in siblings if one.config.name == config.name and one.identity and not one.forgotten)
    return Place(name=place_of(config.name, region), config=config, region=region, identity=next(pins, ""))


def pinned(state: State, identities: Mapping[str, str]) -> State:
    """`state` with those places pinned that were not: place -> who looked up there what is to be launched."""
    places = tuple(
        replace(one, identity=identities[one.name]) if one.name in identities and not one.identity else one
        for one in state.places
    )
    return state if places == state.places else replace(state, places=places)


def with_launched_places(state: State, desired: Desired, launches: Iterable[Launch]) -> State:
    """`state` with the places that something is to be launched in for the first time."""
    configs = {config.name: config for config in desired.backends}
    known = {place.name for place in state.places}
    new = {
        one.offer.place: place_in(configs[one.offer.backend], one.offer.region, known=state.places)
        for one in launches
        if one.offer.place not in known and one.offer.backend in configs and not one.offer.at
    }
    return replace(state, places=(*state.places, *new.values())) if new else state


def with_places(state: State, desired: Desired | None) -> State:
    """Every place of the documents, and every other one that still has a living instance, or may, or is forgotten."""
    applied = state.applied.desired if state.applied else None
    configs = {name: (config, region) for name, config, region in _places(desired or applied)}
    known = {place.name: place for place in state.places}
    living = {one.place for one in state.instances if one.phase != "terminated"}
    needed = living | _may_have_more(state)
    kept = [
        _as_declared(place, config=configs[place.name][0], used=place.name in living)
        if place.name in configs
        else place
        for place in state.places
        if place.name in configs or place.name in needed or place.forgotten
    ]
    new = [
        replace(place_in(config, region, known=state.places), name=name)  # a server's is not its backend's
        for name, (config, region) in configs.items()
        if name not in known
    ]
    return replace(state, places=(*kept, *new)) if new or tuple(kept) != state.places else state


def _may_have_more(state: State) -> set[str]:
    """Where something that a person forgot, or a launch given up, would be seen if it came: while it is remembered."""
    buried = {stone.id for stone in state.tombstones if stone.kind == "instance"}
    if not buried:
        return set()
    clouds = {place.name for place in state.places if not place.config.is_server}
    return {one.place for one in state.instances if one.id in buried and one.place in clouds}


def _as_declared(place: Place, *, config: BackendConfig, used: bool) -> Place:
    """A declared server that has nothing of ours is pinned to nobody: another machine may stand there now."""
    if config.is_server and not used and (place.forgotten or place.answered_by):
        return Place(name=place.name, config=config, region=place.region)
    return replace(place, config=config)


def _places(desired: Desired | None) -> Iterator[tuple[str, BackendConfig, str]]:
    for config in desired.backends if desired else ():
        if not config.unsupported:
            for region in config.regions or (() if config.traits.regional else ("",)):
                yield place_of(config.name, region), config, region
    for pool in desired.pools if desired else ():
        for host in pool.hosts:
            yield host.place, config_of(host), host.region


def _may_be_silent(state: State, found: Mapping[str, Sequence[Seen] | Exception]) -> frozenset[str]:
    """Declared servers, provided that one of them answered: one that is down must not keep a lab from its first apply.

    What it has of ours is not lost by that: its claim is of another lineage, and is left alone.
    """
    hosts = [place.name for place in state.places if place.config.is_server]
    answered = any(not isinstance(found.get(name, TickRefused()), Exception) for name in hosts)
    return frozenset(hosts) if answered else frozenset()


def _refuse_living(ports: Ports, state: State) -> None:
    connections = Connections(ports, "")

    def ask(place: Place) -> Sequence[Seen]:
        return connections.to(place).instances()

    asked = [group[0] for group in grouped(state.places).values()]  # one listing of an account says it for all regions
    tasks = {place.name: lambda place=place: ask(place) for place in asked}
    answers = gather(ports, tasks, limit=60.0, width=max(32, len(tasks)))
    found = dict(awaited(answers, {name: name for name in tasks}, asking=ports.asking))
    silent = _may_be_silent(state, found)
    for name in tasks:
        answer = found.get(name)
        if answer is None or isinstance(answer, Exception):
            if name in silent:
                continue
            why = answer or "no answer"
            raise TickRefused(
                f"there is no state at {ports.store.address}, and {name} cannot say whether this project has instances "
                f"there ({why}): try again when it answers"
            )
        living = [seen for seen in answer if seen.phase != "ended"]
        if living:
            raise TickRefused(
                f"there is no state at {ports.store.address}, but {name} has {len(living)} of this project's instances "
                f"({', '.join(seen.id or seen.external_id for seen in living[:3])}): the state is missing, not empty. "
                "Put it back, or `dstack state rebuild`"
            )
