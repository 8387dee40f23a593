"""Ask clouds for what bills and is no instance, once an hour, and remove what an apply has marked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from msgspec.structs import replace

from backends.base import Backend
from backends.errors import CallFailed
from reconciler.engine.ports import Connections
from reconciler.state.observe.unowned_leftovers import Removed, removable
from reconciler.state.pending_effects import Remove
from schemas.instance import Listing
from schemas.leftover import Leftover
from schemas.state import Place

EVERY = 3600
"""Seconds between two questions for the leftovers of one place."""

Answer = tuple[Leftover, ...]


def questions(
    groups: Mapping[str, Sequence[Place]], connections: Connections, *, now: int
) -> dict[str, Callable[[], Answer]]:
    """A call for each place of a cloud that is due. One place answers for all of its group."""

    def ask(place: Place) -> Callable[[], Answer]:
        return lambda: tuple(connections.to(place).leftovers())

    return {name: ask(group[0]) for name, group in groups.items() if _due(group[0], now=now)}


def _due(place: Place, *, now: int) -> bool:
    traits = place.config.traits
    asked = place.leftovers_at
    recent = asked is not None and 0 <= now - asked < EVERY  # a clock that was ahead puts nothing off
    return traits.kind == "cloud" and traits.regional and not recent


def with_leftovers(listing: Listing, answers: Mapping[str, Answer | str]) -> Listing:
    """The listing with what its place answered; a text is why it did not answer."""
    answer = answers.get(listing.place)
    if answer is None:
        return listing
    return replace(listing, leftovers_asked=True, leftovers=None if isinstance(answer, str) else answer)


def unanswered(answers: Mapping[str, Answer | str]) -> tuple[str, ...]:
    """A sentence for each place that could not list its leftovers."""
    return tuple(
        f"{place}: unowned volumes and addresses were not checked ({answer}); the next check is in an hour"
        for place, answer in answers.items()
        if isinstance(answer, str)
    )


def remove(backend: Backend, effect: Remove, *, lineage: str) -> Removed:
    """Remove what is still listed and still unused. What is no longer listed is gone."""
    there = {(one.kind, one.id): one for one in backend.leftovers()}
    gone, kept = [], []
    for key, kind, id in effect.resources:
        one = there.get((kind, id))
        why = _removed(backend, one, lineage=lineage) if one is not None else ""
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
