"""Ask the places that `dstack state forget` took out whether they respond again. No apply asks them."""

from __future__ import annotations

from collections.abc import Callable

from backends.errors import BackendError, CallFailed
from reconciler.engine.ports import Connections, Ports
from reconciler.state.observe.merge import another_account
from reconciler.system.concurrent import awaited, gather
from schemas.state import Place, State

LIMIT = 60.0


def ask_forgotten(ports: Ports, state: State) -> dict[str, str]:
    """Each forgotten place that sells instances, with why its instances are unknown; "" where it responds as before.

    Servers are left out: they cost nothing, and one that is gone for good must not fail every `destroy`.
    """
    connections = Connections(ports, state.lineage)
    places = [place for place in state.places if place.forgotten and place.config.traits.bought]
    if not places:
        return {}
    answers = gather(ports, {place.name: _ask(place, connections) for place in places}, limit=LIMIT)
    found = dict(awaited(answers, {place.name: place.name for place in places}, asking=ports.asking))
    return {place.name: _why(found.get(place.name)) for place in places}


def _ask(place: Place, connections: Connections) -> Callable[[], bool]:
    def ask() -> bool:
        backend = connections.to(place)
        who = backend.identity()
        if place.identity and who != place.identity:
            raise BackendError(another_account(place, who))
        backend.instances()
        return True

    return ask


def _why(answer: bool | Exception | None) -> str:
    if answer is True:
        return ""
    return str(answer) if isinstance(answer, CallFailed) else f"no answer ({answer})" if answer else "no answer in time"
