"""Ask clouds for what bills and is no instance, once an hour, and remove what an apply has marked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from backends.base import Backend
from backends.errors import CallFailed, PartlyListed
from reconciler.engine.ports import Connections
from reconciler.state.observe.unowned_leftovers import Removed, removable
from reconciler.state.pending_effects import Remove
from schemas.instance import Listing
from schemas.leftover import BILLS, Leftover
from schemas.state import Place

EVERY = 3600
"""Seconds between two questions for the leftovers of one place."""


FREE = frozenset(kind for kind, bills in BILLS.items() if not bills)


class LeftoverAnswer(NamedTuple):
    """What a place lists. `refused`: kind -> why it may not be listed."""

    found: tuple[Leftover, ...]
    refused: Mapping[str, str] = {}


def questions(
    groups: Mapping[str, Sequence[Place]], connections: Connections, *, now: int
) -> dict[str, Callable[[], LeftoverAnswer]]:
    """A call for each place of a cloud that is due. One place answers for all of its group."""

    def ask(place: Place) -> Callable[[], LeftoverAnswer]:
        return lambda: listed(connections.to(place))

    return {name: ask(group[0]) for name, group in groups.items() if _due(group[0], now=now)}


def listed(backend: Backend) -> LeftoverAnswer:
    """Raises `CallFailed` where it lists nothing at all."""
    try:
        return LeftoverAnswer(tuple(backend.leftovers()))
    except PartlyListed as error:
        return LeftoverAnswer(error.found, error.refused)


def kinds_of(kind: str) -> str:
    """`volumes`, `addresses`."""
    return f"{kind}{'es' if kind.endswith('s') else 's'}"


def _due(place: Place, *, now: int) -> bool:
    traits = place.config.traits
    asked = place.leftovers_at
    recent = asked is not None and 0 <= now - asked < EVERY  # a clock that was ahead puts nothing off
    return traits.kind == "cloud" and traits.regional and not recent


def with_leftovers(listing: Listing, answers: Mapping[str, LeftoverAnswer | str]) -> Listing:
    """The listing with what its place answered; a text is why it did not answer."""
    answer = answers.get(listing.place)
    if answer is None:
        return listing
    if isinstance(answer, str):
        return replace(listing, leftovers_asked=True, leftovers=None)
    return replace(
        listing, leftovers_asked=True, leftovers=answer.found, leftovers_refused=tuple(sorted(answer.refused))
    )


def unanswered(answers: Mapping[str, LeftoverAnswer | str]) -> tuple[str, ...]:
    """A sentence for each place that could not list its leftovers, and for each kind of them that it refused."""
    whole = {place: answer for place, answer in answers.items() if isinstance(answer, str)}
    return (
        *(
            f"{place}: unowned volumes and addresses were not checked ({answer}); the next check is in an hour"
            for place, answer in whole.items()
        ),
        *(
            f"{place}: unowned {kinds_of(kind)} were not checked ({why}); the next check is in an hour"
            for place, answer in answers.items()
            if not isinstance(answer, str)
            for kind, why in answer.refused.items()
            if kind not in FREE  # the others cost nothing: `dstack gc` tells of them
        ),
    )


def remove(backend: Backend, effect: Remove, *, lineage: str) -> Removed:
    """Remove what is still listed and still unused. What is no longer listed is gone."""
    answer = listed(backend)
    there = {(one.kind, one.id): one for one in answer.found}
    gone, kept = [], []
    for key, kind, id in effect.resources:
        one = there.get((kind, id))
        why = answer.refused.get(kind, "")
        if one is not None:
            why = _removed(backend, one, lineage=lineage)
        if why:
            kept.append((key, why))
        else:
            gone.append(key)
    return Removed(gone=tuple(gone), kept=tuple(kept))


def _removed(backend: Backend, one: Leftover, *, lineage: str) -> str:
    """Why it is kept; "" where it was removed."""
    if one.in_use:
        return f"it is used by {one.in_use}"
    if not removable(one, lineage=lineage):
        return "its tags or its price changed"
    try:
        backend.remove(one)
    except CallFailed as error:
        return str(error)
    return ""
