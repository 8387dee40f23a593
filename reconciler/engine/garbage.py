"""Ask every place that the project may have used for its resources, and remove unowned ones."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from msgspec.structs import replace

from backends.base import Backend
from backends.errors import BackendError, CallFailed, StillUsed, TryLater
from reconciler.engine.ask_leftovers import kinds_of, listed
from reconciler.engine.begin import place_in
from reconciler.engine.ports import Connections, Ports
from reconciler.state.observe.listing_scope import scope_of
from reconciler.state.unowned import PlaceContents
from reconciler.system.concurrent import awaited, gather
from reconciler.text.format import by_number, few
from schemas.launch import Ending, Refused
from schemas.leftover import Leftover
from schemas.state import Place, State

LIMIT = 60.0
LATER = "a machine on its way out still uses it: `dstack gc` removes it once that is gone"


@dataclass(frozen=True)
class GarbageQuestion:
    """`silent`: place -> why it could not say; what it has is not known.

    `refused`: place -> kind of resources that it may not list -> why; "" is all that is no instance.
    """

    found: tuple[PlaceContents, ...]
    silent: dict[str, str]
    refused: dict[str, Mapping[str, str]]

    @property
    def whole(self) -> bool:
        """Whether everything that was asked for was answered."""
        return not (self.silent or self.refused)


def ask_everywhere(ports: Ports, state: State, connections: Connections) -> GarbageQuestion:
    """Every region of every cloud that the state or its documents name, whatever regions they name today.

    A place that another account answers for is silent: nothing there is ours to judge.
    """
    silent: dict[str, str] = {}
    places = list(_places(ports, state, silent))
    pinned = {one.config.name: one.identity for one in state.places if one.identity and not one.forgotten}
    accounts = _Accounts()
    tasks = {
        place.name: _look(
            place, connections, pinned=place.identity or pinned.get(place.config.name, ""), accounts=accounts
        )
        for place in places
    }
    asked = gather(ports, tasks, limit=LIMIT)
    answers = dict(awaited(asked, {name: name for name in tasks}, asking=ports.asking))
    found: list[PlaceContents] = []
    refused: dict[str, Mapping[str, str]] = {}
    for place in places:
        match answers.get(place.name):
            case _Contents() as answer:
                found.append(answer.contents)
                refused |= {place.name: answer.refused} if answer.refused else {}
            case _Asked():
                continue
            case answer:
                silent[place.name] = str(answer) if answer else "no answer in time"
    return GarbageQuestion(tuple(found), silent, refused)


def unanswered(silent: Mapping[str, str], refused: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    """A sentence for each different answer, with the places that gave it.

    `silent`: place -> why it could not say what it has. `refused`: place -> kind of resources -> why it may not be
    listed; "" is all that is no instance.
    """
    for why, places in _by_answer(silent):
        yield f"{few(places)} cannot say what {'it has' if len(places) == 1 else 'they have'}: {why}"
    for kind in sorted({kind for kinds in refused.values() for kind in kinds}):
        answers = {place: kinds[kind] for place, kinds in refused.items() if kind in kinds}
        for why, places in _by_answer(answers):
            what = kinds_of(kind) if kind else "what is no instance"
            yield f"{what} in {few(places)} could not be listed, and may be there: {why}"


def _by_answer(answers: Mapping[str, str]) -> Iterator[tuple[str, list[str]]]:
    grouped: dict[str, list[str]] = {}
    for place in sorted(answers, key=by_number):
        grouped.setdefault(answers[place], []).append(place)
    yield from grouped.items()


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
    """Forgotten ones too, each of the account that it had: what is not asked must not be called empty."""
    yield from (one for one in state.places if one.forgotten and one.config.traits.bought)
    known = {place.name: place for place in state.places if not place.forgotten}
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
        chosen = tuple(dict.fromkeys((*regions, *config.regions)))
        # One answer is of the whole account there: whichever region is asked.
        for region in chosen[:1] if config.traits.scope == "account" else chosen:
            place = place_in(config, region)
            yield known.get(place.name, place)


class _Contents(NamedTuple):
    contents: PlaceContents
    refused: Mapping[str, str]


class _Asked(NamedTuple):
    """Another backend of the same account is asked."""


class _Accounts:
    """Those of account-wide types that have answered already. Thread-safe.

    The backends of one account ask one after the other: a key that may not list says nothing of what another may.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._of: dict[tuple[str, str], _Account] = {}

    def of(self, place: Place, identity: str) -> _Account:
        """One that nobody has asked yet, where each place of a type is asked by itself."""
        if place.config.traits.scope != "account":
            return _Account()
        with self._lock:
            return self._of.setdefault((place.config.type, identity), _Account())


class _Account:
    """Whether its machines, and its other resources, were told. Held while one backend asks."""

    def __init__(self) -> None:
        self.turn = threading.Lock()
        self.machines = self.others = False


def _look(
    place: Place, connections: Connections, *, pinned: str, accounts: _Accounts
) -> Callable[[], _Contents | _Asked]:
    """The machines first: that other resources are refused keeps none of them unseen."""

    def look() -> _Contents | _Asked:
        backend = connections.to(place)
        identity = backend.identity()
        if pinned and identity != pinned:
            raise BackendError(f"another account answers: {identity}, not {pinned}")
        account = accounts.of(place, identity)
        with account.turn:
            if account.machines and account.others:
                return _Asked()
            scope = scope_of(replace(place, identity=identity))
            machines = () if account.machines else tuple(backend.instances())
            account.machines = True
            try:
                others, refused = listed(backend)
            except CallFailed as error:
                others, refused = (), {"": str(error)}
            account.others = not refused
            return _Contents(PlaceContents(place.name, scope, machines, others), refused)

    return look
