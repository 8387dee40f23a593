"""Rows of `dstack autoscale info`: each rule, its use, and whether capacity is available. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from reconciler.state.autoscale_rules import Rules, covers
from reconciler.state.status import alive
from schemas.base import place_of
from schemas.desired import Cap
from schemas.offer import Offer
from schemas.resources import Resources
from schemas.state import Capacity, State


@dataclass(frozen=True, kw_only=True)
class RuleRow:
    """`resources` is `None` where nothing is offered that it covers. `used`: living ones, open launches too.

    `since` is when the place that lacks it said so, `why` in whose words; `status` says it in ours.
    """

    cap: Cap
    resources: Resources | None
    used: int
    status: str
    since: int | None = None
    why: str = ""


def explain_rules(rules: Rules, state: State | None, *, offers: Iterable[Offer], now: int) -> tuple[RuleRow, ...]:
    """One row a rule, in their order."""
    offers = tuple(offers)
    return tuple(_row(cap, rules, state, offers=offers, now=now) for cap in rules.caps)


def _row(cap: Cap, rules: Rules, state: State | None, *, offers: tuple[Offer, ...], now: int) -> RuleRow:
    alike = [one for one in offers if one.instance_type == cap.instance_type]
    offered = [one for one in alike if covers(cap, one)]
    used = sum(covers(cap, one) for one in state.instances if alive(one)) if state else 0
    lacking = _lacking(cap, offered, state, now=now)
    return RuleRow(
        cap=cap,
        resources=(offered or alike)[0].resources if alike else None,
        used=used,
        status=_status(cap, rules, offered, lacking),
        since=lacking.since if lacking else None,
        why=lacking.why if lacking else "",
    )


def _lacking(cap: Cap, offered: list[Offer], state: State | None, *, now: int) -> Capacity | None:
    """The oldest word that there is none, or that a place refuses whatever it is asked for.

    `None` where something of what the rule covers may be had now.
    """
    memories = [one for one in state.capacity if one.until > now and not one.reservation] if state else []
    alike = (cap.instance_type, cap.spot)
    mine = [one for one in memories if not one.instance_type or (one.instance_type, one.spot) == alike]
    places = {one.place for one in offered}
    lacking = [one for one in mine if one.place in places]
    told = {(one.place, zone) for one in lacking for zone in ([one.zone] if one.zone else _zones(one.place, offered))}
    wanted = {(one.place, one.zone) for one in offered}
    if not lacking or not wanted <= told | {(place, "") for place, zone in told if zone == ""}:
        return None
    return min(lacking, key=lambda one: (one.since is None, one.since or 0, one.place))


def _zones(place: str, offered: list[Offer]) -> list[str]:
    return [one.zone for one in offered if one.place == place]


def _status(cap: Cap, rules: Rules, offered: list[Offer], lacking: Capacity | None) -> str:
    if cap.spot and not rules.enabled:
        return "disabled"
    if not offered:
        return "not offered"
    if lacking is None:
        return "OK"
    if not lacking.instance_type:
        return "refused"
    return f"no quota ({lacking.quota})" if lacking.quota else "no capacity"


def where_of(cap: Cap) -> str:
    """`aws/us-east-1`, `every`: the REGION of a rule."""
    return place_of(cap.backend, cap.region) if cap.backend else cap.region or "every"
