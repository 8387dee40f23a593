"""Ask a backend whose listing covers its whole account once, and split the answer over its places. Pure.

A machine that an instance of the state has is answered by the place of that instance. Any other is answered by the
place of its region. One in a region that is no place yet is answered by the first place of the backend, where it
becomes an orphan with its own region, unless a launch knows it. An absence counts for every place of the backend, and
so does an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from schemas.instance import Listing, Seen
from schemas.state import Place, State


def grouped(places: Iterable[Place]) -> dict[str, tuple[Place, ...]]:
    """First place -> all places that its listing answers for. A place of no account-wide backend stands alone."""
    groups: dict[str, list[Place]] = {}
    for place in places:
        wide = place.config.traits.scope == "account"
        groups.setdefault(f"account {place.config.name}" if wide else f"place {place.name}", []).append(place)
    return {group[0].name: tuple(group) for group in groups.values()}


def split(listing: Listing, places: Sequence[Place], state: State) -> tuple[Listing, ...]:
    """A listing for each of `places`, which together have every machine of `listing` once."""
    if len(places) == 1:
        return (listing,)
    names = {place.name for place in places}
    known = {one.external_id: one.place for one in state.instances if one.external_id and one.place in names}
    expected = {id: intent.request.place for intent in state.intents for id in intent.request.ids}
    regions = {place.region: place.name for place in places}
    found: dict[str, list[Seen]] = {name: [] for name in names}
    for seen in listing.instances:
        name = known.get(seen.external_id) or regions.get(seen.region) or expected.get(seen.id, "")
        found[name if name in names else places[0].name].append(seen)
    whole = replace(listing, leftovers_asked=False, leftovers=None, leftovers_refused=())
    first = replace(listing, instances=tuple(found[listing.place]))
    others = (place.name for place in places if place.name != listing.place)
    return (first, *(replace(whole, place=name, instances=tuple(found[name])) for name in others))
