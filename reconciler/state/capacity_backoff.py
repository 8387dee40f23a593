"""Offers that refused a launch are skipped until their backoff ends. One entry per offer; the newest wins. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from schemas.launch import Intent, Refused, Request
from schemas.state import Capacity

BACKOFF = 600
"""Seconds without another request after a quota or a permanent refusal, where the vendor does not say."""
LATE = 4
"""A late refusal is remembered for this many times as long as it took to learn of it."""
LONGEST = 3600
"""Seconds for which a late refusal is remembered at most, unless the vendor asks for longer."""
SOLD_OUT = 180
"""Seconds without another request after a refusal for want of capacity, where the vendor does not say."""


def capacity_of(request: Request, refused: Refused, *, now: int) -> Capacity:
    """How long not to ask for such a machine again, and why; after a permanent refusal, not for any of that place."""
    until = now + (refused.retry_after or (SOLD_OUT if refused.meaning == "capacity" else BACKOFF))
    if refused.meaning == "permanent":
        return Capacity(
            place=request.place, instance_type="", until=until, why=refused.why, reservation=request.reservation
        )
    return Capacity(
        place=request.place,
        instance_type=request.instance_type,
        zone=request.zone,
        spot=request.spot,
        until=until,
        since=now,
        why=refused.why,
        quota=refused.quota,
        reservation=request.reservation,
    )


def capacities_of(request: Request, refused: Iterable[Refused], *, now: int) -> tuple[Capacity, ...]:
    """What the refusals of one request say together: one memory for its place first, then one for its offer."""
    found = merged(capacity_of(request, each, now=now) for each in refused)
    return tuple(sorted(found, key=lambda one: bool(one.instance_type)))


def late_capacity(intent: Intent, refused: Refused, *, now: int) -> Capacity:
    """As `capacity_of`, and for longer where it took long to learn of it.

    Otherwise applies that are far apart would ask the same few offers in turn, and never the next one.
    """
    found = capacity_of(intent.request, refused, now=now)
    learnt = min(LONGEST, LATE * (now - intent.opened_at))
    return replace(found, until=max(found.until, now + learnt))


def merged(refused: Iterable[Capacity]) -> tuple[Capacity, ...]:
    """One memory for each offer of what was refused at once: the longest wait, every reason and quota."""
    alike: dict[tuple[str, str, str, bool, str], list[Capacity]] = {}
    for each in refused:
        alike.setdefault(_offer(each), []).append(each)
    return tuple(
        replace(
            found[-1],
            until=max(each.until for each in found),
            why="; ".join(dict.fromkeys(each.why for each in found)),
            quota=", ".join(dict.fromkeys(each.quota for each in found if each.quota)),
        )
        for found in alike.values()
    )


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
