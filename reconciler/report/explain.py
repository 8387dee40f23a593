"""Format explanations of runs, instances and pools as text and JSON. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from reconciler.text.columns import columns, wrap
from reconciler.text.format import clean, clock, counted, hourly, rough, stamp
from schemas.explanation import (
    Explained,
    FailedCondition,
    InstanceEnd,
    InstanceExplained,
    OfferExplained,
    OfferGroup,
    PoolExplained,
    RunExplained,
)
from schemas.offer import Offer

Located = Callable[[str, str], str]
"""(`pool gpu`, key) → `.dstack/pools.yml:12:5`; "" where it is not written there."""
TITLE = 4


def explained_text(found: Explained, *, now: int, width: int, located: Located) -> str:
    """As `dstack explain` prints it; `width` in columns, 0: as wide as needed."""
    match found:
        case RunExplained():
            return run_text(found, width=width)
        case InstanceExplained():
            return instance_text(found, now=now, width=width, located=located)
        case PoolExplained():
            return pool_text(found, width=width, located=located)
        case OfferExplained():
            return offer_text(found, width=width)


def explained_json(found: Explained, *, located: Located) -> dict[str, Any]:
    """The same for programs."""
    match found:
        case RunExplained():
            return run_json(found)
        case InstanceExplained():
            return instance_json(found, located=located)
        case PoolExplained():
            return pool_json(found, located=located)
        case OfferExplained():
            return offer_json(found)


def run_text(one: RunExplained, *, width: int) -> str:
    """Each instance, the offers that fit, those that do not by what they fail, and the smallest relaxation."""
    lines = _para(
        f"run {one.run}: {one.status}{f' ({one.reason})' if one.reason else ''}, pool {one.pool}", width=width
    )
    if one.refused:
        lines += _para(f"The pool takes no such run: {one.refused}", width=width)
    if one.instances:
        rows = [
            (f"{'✓' if not each.why else '✗'} {each.name}", "; ".join(each.why) or "fits") for each in one.instances
        ]
        lines += ["", "INSTANCES", *columns([tuple(map(clean, row)) for row in rows], width=width)]
    if one.fitting:
        rows3 = [(_offer(offer), price_of(offer), why or "available") for offer, why in one.fitting]
        lines += ["", "OFFERS THAT FIT", *columns([tuple(map(clean, row)) for row in rows3], width=width, right=(1,))]
    if one.groups:
        lines += ["", f"OFFERS THAT DO NOT FIT (of {one.offers:,})"]
        groups = [(f"{group.count:,}", _group(group)) for group in one.groups]
        lines += columns([tuple(map(clean, row)) for row in groups], width=width, right=(0,))
    elif not one.fitting:
        lines += ["", "No offers are known: run `dstack offers --refresh`."] if not one.instances else []
    if one.relaxations and not any(not why for _, why in one.fitting):
        lines += ["", "SMALLEST CHANGES THAT WOULD MATCH"]
        rows = [(_relaxed(each.condition), f"{_offer(each.offer)}, {price_of(each.offer)}") for each in one.relaxations]
        lines += columns([tuple(map(clean, row)) for row in rows], width=width)
    return "\n".join(lines) + "\n"


def instance_text(one: InstanceExplained, *, now: int, width: int, located: Located) -> str:
    """What keeps it, and what terminates it when and by which setting."""
    on = f", running {', '.join(one.runs)}" if one.runs else ""
    lines = _para(f"instance {one.name}: {one.status}{on}, {one.price}, created for {one.made_for}", width=width)
    for title, found in (("KEPT BY", one.keeps), ("TERMINATES BY", one.ends)):
        if found:
            rows = [(_when(each, now=now), f"{each.what}{_from(each, located)}") for each in found]
            lines += ["", title, *columns([tuple(map(clean, row)) for row in rows], width=width)]
    if not one.ends:
        lines += ["", *_para(f"Nothing terminates it but a command: dstack pool remove {one.name}", width=width)]
    return "\n".join(lines) + "\n"


def pool_text(one: PoolExplained, *, width: int, located: Located) -> str:
    """Every setting with where it was written and when an edit reaches instances."""
    lines = _para(f"pool {one.pool}: {counted(len(one.members), 'instance')}", width=width)
    lines += _para(f"It creates nothing now: {one.closed}", width=width) if one.closed else []
    rows = [("SETTING", "VALUE", "FROM", "AN EDIT REACHES INSTANCES")]
    for each in one.settings:
        owner = f"pool {one.pool}" if each.source == "pool" else each.source
        where = located(owner, each.key)
        rows.append(
            (each.key, clean(each.value) or "-", f"{each.source}{f' ({where})' if where else ''}", each.reaches)
        )
    return "\n".join([*lines, "", *columns(rows, width=width)]) + "\n"


def offer_text(found: OfferExplained, *, width: int) -> str:
    """What an instance type is to each pool."""
    rows = []
    for one in found.pools:
        why = "; ".join(each.words for each in one.conditions) or one.why or "may be launched now"
        rows.append((f"{'✗' if one.conditions or one.why else '✓'} pool {one.pool}", price_of(one.offer), clean(why)))
    return "\n".join([f"offer {clean(found.name)}", *columns(rows, width=width, right=(1,))]) + "\n"


def _group(group: OfferGroup) -> str:
    failed = "; ".join(one.words for one in group.conditions)
    return f"{failed}. Cheapest: {_offer(group.cheapest)}, {price_of(group.cheapest)}"


def _para(text: str, *, width: int) -> list[str]:
    return wrap(clean(text), width=width, hang=TITLE)


def _offer(offer: Offer) -> str:
    place = offer.backend + (f" {offer.region}" if offer.region and offer.region != offer.backend else "")
    kind = f" {offer.instance_type}" if offer.instance_type != offer.backend else ""
    return f"{place}{kind}{' spot' if offer.spot else ''}"


def price_of(offer: Offer) -> str:
    """`≤$1.01/h`."""
    return ("≤" if offer.at_most else "") + hourly(offer.price)


def _relaxed(one: FailedCondition) -> str:
    """`memory 8GB instead of 16GB..`."""
    return f"{one.kind} {one.has} instead of {one.asked.removeprefix(one.kind).strip()}"


def _when(one: InstanceEnd, *, now: int) -> str:
    if one.at is None:
        return ""
    return "now" if one.at <= now else f"in {rough(one.at - now)}, at {clock(one.at)}"


def _from(one: InstanceEnd, located: Located) -> str:
    if not one.source:
        return ""
    where = located(one.source, one.key) if one.key else ""
    return f" (from {one.source}{f', {where}' if where else ''})"


# ---------------------------------------------------------------- JSON


def run_json(one: RunExplained) -> dict[str, Any]:
    """What `dstack explain RUN --json` prints under `run`."""
    return {
        "name": one.run,
        "status": one.status,
        "reason": one.reason,
        "pool": one.pool,
        "refused": one.refused or None,
        "instances": [{"name": each.name, "fits": not each.why, "why": list(each.why)} for each in one.instances],
        "offers": one.offers,
        "fitting": [{**_offer_json(offer), "why": why or None} for offer, why in one.fitting],
        "groups": [
            {
                "count": each.count,
                "conditions": [_condition(condition) for condition in each.conditions],
                "cheapest": _offer_json(each.cheapest),
            }
            for each in one.groups
        ],
        "relaxations": [
            {"condition": _condition(each.condition), "offer": _offer_json(each.offer)} for each in one.relaxations
        ],
    }


def instance_json(one: InstanceExplained, *, located: Located) -> dict[str, Any]:
    """What `dstack explain INSTANCE --json` prints under `instance`."""
    return {
        "name": one.name,
        "pool": one.pool,
        "status": one.status,
        "made_for": one.made_for,
        "price": one.price,
        "runs": list(one.runs),
        "keeps": list(_endings(one.keeps, located)),
        "ends": list(_endings(one.ends, located)),
    }


def pool_json(one: PoolExplained, *, located: Located) -> dict[str, Any]:
    """What `dstack explain POOL --json` prints under `pool`."""
    return {
        "name": one.pool,
        "closed": one.closed or None,
        "instances": list(one.members),
        "settings": [
            {
                "key": each.key,
                "value": each.value or None,
                "source": each.source,
                "where": located(f"pool {one.pool}" if each.source == "pool" else each.source, each.key) or None,
                "reaches": each.reaches,
            }
            for each in one.settings
        ],
    }


def offer_json(found: OfferExplained) -> dict[str, Any]:
    """What `dstack explain offer TYPE --json` prints under `offer`."""
    return {
        "name": found.name,
        "pools": [
            {
                "pool": one.pool,
                "offer": _offer_json(one.offer),
                "conditions": [_condition(each) for each in one.conditions],
                "why": one.why or None,
            }
            for one in found.pools
        ],
    }


def _endings(found: tuple[InstanceEnd, ...], located: Located) -> Iterator[dict[str, Any]]:
    for one in found:
        where = located(one.source, one.key) if one.source and one.key else ""
        yield {
            "what": one.what, "at": stamp(one.at), "source": one.source or None, "key": one.key or None,
            "where": where or None,
        }  # fmt: skip


def _condition(one: FailedCondition) -> dict[str, Any]:
    return {"kind": one.kind, "asked": one.asked, "has": one.has, "of": one.of or None}


def _offer_json(one: Offer) -> dict[str, Any]:
    return {
        "backend": one.backend,
        "region": one.region,
        "instance_type": one.instance_type,
        "spot": one.spot,
        "price": None if one.price is None else float(one.price),
        "at_most": one.at_most,
    }
