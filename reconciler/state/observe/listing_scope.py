"""What one listing of a place covers. Places of one scope list the same machines. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from schemas.backend_types import type_of
from schemas.state import Place


class ListingScope(NamedTuple):
    """Equal for places that list the same machines, whatever their backends are called."""

    type: str
    """Type of the backend; "" for a place that has never answered."""
    identity: str
    """Account, project or machine; the place's name where it has never answered, so that it shares with no other."""
    region: str
    """"" where one listing covers all regions of the account."""


def scope_of(place: Place) -> ListingScope:
    """By the identity that the place is pinned to."""
    if not place.identity:
        return ListingScope("", place.name, "")
    regional = type_of(place.config.type).scope == "region"
    return ListingScope(place.config.type, place.identity, place.region if regional else "")


def homes(places: Iterable[Place]) -> Mapping[str, str]:
    """place -> the first place of its scope: a machine is the same one where this and its external id are equal."""
    first: dict[ListingScope, str] = {}
    return {place.name: first.setdefault(scope_of(place), place.name) for place in places}
