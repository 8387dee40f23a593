"""Find what carries the project's id and has no owner. Pure.

An instance is owned while the state counts it and does not call it an orphan, or while its launch is open. What goes
with instances is owned while something uses it, or while an instance or an open launch of its pool is in that place.
What another lineage of the project's state made is left alone: another copy of the state owns it. So is everything
where the state is older than what it finds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from reconciler.state.observe.generations import distrust
from schemas.instance import Seen
from schemas.leftover import ORDER, Leftover
from schemas.state import State

SHARED = ("security-group", "placement-group")


@dataclass(frozen=True)
class Found:
    """What one place answered."""

    place: str
    instances: Sequence[Seen]
    others: Sequence[Leftover]


def unowned(state: State, found: Iterable[Found]) -> tuple[Leftover, ...]:
    """In the order of their removal; `state` must have been read after the places answered.

    Raises `StateRefused` where an instance carries a generation above the state's: it knows nothing of what a newer
    one bought, and would take that for garbage.
    """
    found = tuple(found)
    seen = {each.place: [one for one in each.instances if one.lineage == state.lineage] for each in found}
    distrust(state, seen=seen, reports=())
    made = [one for each in found for one in _of(state, each)]
    return tuple(sorted(made, key=lambda one: (ORDER.index(one.kind), one.place, one.id)))


def _of(state: State, found: Found) -> Iterable[Leftover]:
    living = [seen for seen in found.instances if seen.phase != "ended"]
    yield from (_instance(seen, found.place) for seen in living if not _owned(state, found.place, seen))
    pools = _pools(state, found.place, living)
    asked = {intent.id for intent in state.intents}  # what it makes is not attached at once
    for one in found.others:
        if one.in_use or one.lineage not in ("", state.lineage) or one.launch in asked:
            continue
        if one.kind in SHARED and (one.pool in pools or (not one.pool and pools)):
            continue
        yield one


def _owned(state: State, place: str, seen: Seen) -> bool:
    """Or on its way out already, or of another lineage."""
    if seen.phase == "ending" or seen.lineage not in ("", state.lineage):
        return True
    if any(seen.launch and seen.launch == intent.id for intent in state.intents):
        return True
    return any(
        one.place == place and seen.external_id == one.external_id and one.phase != "terminated" and not one.orphan
        for one in state.instances
    )


def _pools(state: State, place: str, living: Iterable[Seen]) -> frozenset[str]:
    """Pools with anything there that lives or is asked for, whoever owns it: their groups are needed."""
    known = (one.pool for one in state.instances if one.place == place and one.phase != "terminated")
    asked = (intent.request.pool for intent in state.intents if intent.request.place == place)
    return frozenset((*known, *asked, *(seen.pool for seen in living if seen.lineage not in ("", state.lineage))))


def _instance(seen: Seen, place: str) -> Leftover:
    return Leftover(
        kind="instance",
        id=seen.external_id,
        place=place,
        name=seen.id,
        pool=seen.pool,
        launch=seen.launch,
        lineage=seen.lineage,
        created_at=seen.created_at,
        hourly=seen.price,
    )
