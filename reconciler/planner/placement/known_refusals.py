"""What the state knows of backends and offers that launch nothing now. Pure."""

from __future__ import annotations

from reconciler.planner.draft import Draft
from schemas.state import Capacity


def strangers_of(draft: Draft) -> dict[str, str]:
    """backend -> why whoever answers for it now is not who has what we know: nothing is bought of them, anywhere."""
    return {
        place.config.name: f"{place.name} is answered by {place.answered_by}, not by {place.identity}"
        for place in draft.world.state.places
        if place.answered_by and not place.forgotten and draft.is_cloud(place.config.name)
    }


def capacity_now(draft: Draft) -> dict[tuple[str, str, str, bool, str], Capacity]:
    """(place, type, zone, spot, reservation) -> the refusal that still holds."""
    return {
        (each.place, each.instance_type, each.zone, each.spot, each.reservation): each
        for each in draft.world.state.capacity
        if each.until > draft.now
    }
