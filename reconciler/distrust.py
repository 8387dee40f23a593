"""Whether the world is ahead of the state: then the state is an old one, or a server lies. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from reconciler.store import StateRefused
from schemas.instance import HostReport, Seen
from schemas.state import State


def distrust(state: State, *, seen: Mapping[str, Sequence[Seen]], reports: Sequence[HostReport]) -> Mapping[str, str]:
    """Declared servers whose claim or fence is above the state's generation while the others agree: place -> why.

    Whoever has a server's login can write any number there. It is believed of a place that keeps our tags itself, and
    where the servers that say so outnumber what agrees with the state. Raises `StateRefused` then: a restored backup.
    `seen` is by place.
    """
    highest = _highest(state, seen, reports)
    newer = {place: top for place, top in highest.items() if top[0] > state.generation}
    if not newer:
        return {}
    agreeing = len(highest) - len(newer)
    servers = {place.name for place in state.places if place.config.type == "ssh"}
    if newer.keys() <= servers and agreeing >= len(newer):
        return {place: _why(state, top[0], agreeing=agreeing) for place, top in newer.items()}
    generation, who = max(newer.values())
    raise StateRefused(
        f"the state is older than the world: generation {state.generation}, but {who} carries {generation}; "
        "it looks like a restored backup, or another copy of it is in use: put the newer one back, or `dstack state rebuild`"
    )


def _highest(
    state: State, seen: Mapping[str, Sequence[Seen]], reports: Sequence[HostReport]
) -> dict[str, tuple[int, str]]:
    """place -> the highest generation that it or a host there carries, and who. One that carries none says nothing."""
    there = {instance.id: instance.place for instance in state.instances}
    said = [(place, one.generation, one.id) for place, ours in seen.items() for one in ours]
    said += [(there.get(one.instance, ""), one.generation, one.instance) for one in reports if not one.error]
    highest: dict[str, tuple[int, str]] = {}
    for place, generation, who in said:
        if generation:
            highest[place] = max(highest.get(place, (0, "")), (generation, who))
    return highest


def _why(state: State, generation: int, *, agreeing: int) -> str:
    others = "another place agrees" if agreeing == 1 else f"{agreeing} other places agree"
    return (
        f"it carries generation {generation}, this state is at {state.generation} and {others}: this project did not "
        "write that, and uses and ends nothing there; see who has that login before it gets work again"
    )
