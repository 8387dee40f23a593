"""Remember leftovers that bill from their first sighting to their removal. Pure.

A leftover is remembered while its place lists it, nothing uses it, and this state made it. What other kinds of
leftovers there are, and what says nothing of its maker, is for `dstack gc`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from msgspec.structs import replace

from reconciler.state.observe.listing_scope import homes, scope_of
from reconciler.state.unowned import PlaceContents, judged
from schemas.base import Value
from schemas.instance import Listing
from schemas.leftover import Leftover
from schemas.state import Place, State, Unowned


class Removed(Value, frozen=True, kw_only=True):
    """What came of the removal of leftovers of one place. Each is a key of `State.unowned`."""

    gone: tuple[str, ...] = ()
    kept: tuple[tuple[str, str], ...] = ()
    """Those that are still there, and why."""


def absorb_leftovers(state: State, listings: Sequence[Listing]) -> State:
    """The state with what places answered when asked for leftovers. `state` has their listings already.

    Of a place that did not answer, or whose clock is not ours, nothing is dropped and nothing is learned.
    """
    asked = {one.place: one for one in listings if one.leftovers_asked and not one.partial}
    places = tuple(
        replace(place, leftovers_at=asked[place.name].at) if place.name in asked else place for place in state.places
    )
    home = homes(places)
    answered = [
        (place, asked[place.name]) for place in places if place.name in asked and believed(place) and not place.skew
    ]
    told = {home[place.name] for place, one in answered if one.leftovers is not None}
    hidden = {(home[place.name], kind) for place, one in answered for kind in one.leftovers_refused}
    known = {one.key: one for one in state.unowned}
    found = {one.key: one for place, listing in answered for one in _sighted(state, place, listing, home[place.name])}
    kept = [
        _known(one, found.get(one.key))
        for one in state.unowned
        if one.key in found or one.place not in told or (one.place, one.kind) in hidden
    ]
    new = [one for key, one in found.items() if key not in known]
    unowned = tuple(_still_ours(state, (*kept, *new), places=home))
    if places == state.places and unowned == state.unowned:
        return state
    return replace(state, places=places, unowned=unowned)


def believed(place: Place) -> bool:
    """Whether its last answer was good, and its own."""
    return not (place.error or place.answered_by or place.forgotten)


def after_removal(unowned: Iterable[Unowned], removed: Removed, *, now: int) -> tuple[Unowned, ...]:
    """Without those that are gone. The grace of those that are still there begins again."""
    kept = {key for key, _ in removed.kept}
    return tuple(
        replace(one, removing_at=None, since=now) if one.key in kept else one
        for one in unowned
        if one.key not in removed.gone
    )


def _known(one: Unowned, again: Unowned | None) -> Unowned:
    """Its first sighting counts, unless that was by a clock that was ahead."""
    return one if again is None or one.since <= again.since else replace(one, since=again.since)


def _sighted(state: State, place: Place, listing: Listing, home: str) -> Iterator[Unowned]:
    if listing.leftovers is None:
        return
    found = PlaceContents(place.name, scope_of(place), listing.instances, listing.leftovers)
    for one in judged(state, [found]):
        if one.kind != "instance" and removable(one, lineage=state.lineage):
            yield Unowned(
                place=home, kind=one.kind, id=one.id, launch=one.launch, since=listing.at, hourly=one.hourly
            )  # fmt: skip


def removable(one: Leftover, *, lineage: str) -> bool:
    """Whether an apply may remove it: it bills, nothing uses it, and it says that this state made it."""
    return one.bills and not one.in_use and bool(lineage) and one.lineage == lineage


def _still_ours(state: State, unowned: Iterable[Unowned], *, places: Iterable[str]) -> Iterator[Unowned]:
    """Not those of an open launch, nor of a place that is no more."""
    opened, known = {intent.id for intent in state.intents}, set(places)
    return (one for one in unowned if one.place in known and one.launch not in opened)
