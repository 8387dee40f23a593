"""Offers that refused a launch are skipped until their backoff ends. One entry per offer; the newest wins. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from schemas.state import Capacity


def shun(known: Iterable[Capacity], refused: Iterable[Capacity]) -> tuple[Capacity, ...]:
    """With the newest word on each offer, the last one in `refused`; `since` stays that of the first refusal."""
    found = {_offer(each): each for each in known}
    for each in refused:
        before = found.pop(_offer(each), each)
        since = min((at for at in (before.since, each.since) if at is not None), default=None)
        found[_offer(each)] = replace(each, since=since)
    return tuple(found.values())


def _offer(capacity: Capacity) -> tuple[str, str, str, bool, str]:
    return capacity.place, capacity.instance_type, capacity.zone, capacity.spot, capacity.reservation
