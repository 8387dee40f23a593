"""Find what carries the project's id and has no owner. Pure.

An instance is owned while the state counts it and does not call it an orphan, or while its launch is open. What goes
with instances is owned while something uses it, or while an instance or an open launch of its pool is in that place.
What another lineage of the project's state made is left alone: another copy of the state owns it. So is everything
where the state is older than what it finds. Places that list the same machines are looked at as one, and what they
have is told once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from reconciler.state.observe.generations import distrust
from reconciler.state.observe.listing_scope import ListingScope, scope_of
from schemas.instance import Instance, Seen
from schemas.leftover import ORDER, Leftover
from schemas.state import State

SHARED = ("security-group", "placement-group")


@dataclass(frozen=True)
class PlaceContents:
    """What one place answered. `scope` is of who answered."""

    place: str
    scope: ListingScope
    instances: Sequence[Seen]
    others: Sequence[Leftover]


def unowned(state: State, found: Iterable[PlaceContents]) -> tuple[Leftover, ...]:
    """In the order of their removal; `state` must have been read after the places answered.

    Raises `StateRefused` where an instance carries a generation above the state's: it knows nothing of what a newer
    one bought, and would take that for garbage.
    """
    found = tuple(found)
    seen = {each.place: [one for one in each.instances if one.lineage == state.lineage] for each in found}
    distrust(state, seen=seen, reports=())
    return judged(state, found)


def judged(state: State, found: Iterable[PlaceContents]) -> tuple[Leftover, ...]:
    """As `unowned`, of listings that are known to be no newer than the state."""
    found = tuple(found)
    known = _Known(state, found)
    made: dict[tuple[ListingScope, str, str], Leftover] = {}
    for each in found:
        for one in known.leftovers(each):
            made.setdefault((each.scope, one.kind, one.id), one)
    return tuple(sorted(made.values(), key=lambda one: (ORDER.index(one.kind), one.place, one.id)))


class _Known:
    """What the state knows of each scope."""

    def __init__(self, state: State, found: Iterable[PlaceContents]) -> None:
        found = tuple(found)
        self._state = state
        self._scopes = {place.name: scope_of(place) for place in state.places}
        self._scopes |= {each.place: each.scope for each in found}
        living = [one for one in state.instances if one.phase != "terminated"]
        self._owned = {self._machine(one) for one in living if not one.orphan}
        self._asked = {intent.id for intent in state.intents}  # what it makes is not attached at once
        self._pools: dict[ListingScope, set[str]] = {each.scope: set() for each in found}
        for one in living:
            self._pools.setdefault(self._scope(one.place), set()).add(one.pool)
        for intent in state.intents:
            self._pools.setdefault(self._scope(intent.request.place), set()).add(intent.request.pool)
        for each in found:
            theirs = (seen for seen in each.instances if seen.phase != "ended" and not self._ours(seen.lineage))
            self._pools[each.scope] |= {seen.pool for seen in theirs}

    def leftovers(self, found: PlaceContents) -> Iterator[Leftover]:
        """A group is needed by the pools with anything there that lives or is asked for, whoever owns it."""
        living = (seen for seen in found.instances if seen.phase != "ended")
        yield from (_instance(seen, found.place) for seen in living if not self._is_owned(found.scope, seen))
        pools = self._pools[found.scope]
        for one in found.others:
            if one.in_use or not self._ours(one.lineage) or one.launch in self._asked:
                continue
            if one.kind in SHARED and (one.pool in pools or (not one.pool and pools)):
                continue
            yield one

    def _is_owned(self, scope: ListingScope, seen: Seen) -> bool:
        """Or on its way out already, or of another lineage."""
        if seen.phase == "ending" or not self._ours(seen.lineage):
            return True
        return seen.launch in self._asked or (scope, seen.external_id) in self._owned

    def _ours(self, lineage: str) -> bool:
        return lineage in ("", self._state.lineage)

    def _machine(self, one: Instance) -> tuple[ListingScope, str]:
        return self._scope(one.place), one.external_id

    def _scope(self, place: str) -> ListingScope:
        return self._scopes.get(place, ListingScope("", place, ""))


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
