"""Offers that fit a request: idle instances, then busy ones, then new ones."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from msgspec.structs import replace

from reconciler.cli.terminal.streams import out, say, show, width
from reconciler.planner.placement.blocks import SharedBox, fewest
from reconciler.planner.placement.browse import Browsed, FoundOffers, browse
from reconciler.planner.placement.fit import misfit
from reconciler.planner.world import World
from reconciler.report.offers import OfferRow, offer_text
from reconciler.state.blocks import left_of, part, part_price, shared
from reconciler.state.status import degraded, instance_status, jobs_by_instance, unreachable
from schemas.base import Seconds
from schemas.desired import Desired
from schemas.instance import Instance
from schemas.offer import Offer
from schemas.pool import Pool
from schemas.resources import Need, Where
from schemas.run import Job
from schemas.state import State

LEFT_OUT = frozenset({"terminating", "terminated"})
BUSY = "all in use"


@dataclass(frozen=True, kw_only=True)
class OfferQuery:
    """What must fit: a need and limits, and those of its pool and project. `instance`: that one alone."""

    need: Need
    where: Where
    pool: Pool
    desired: Desired = field(default_factory=Desired)
    now: Seconds = 0
    new: bool = True
    existing: bool = True
    instance: str = ""


def offer_rows(asked: OfferQuery, *, state: State, offers: Sequence[Offer]) -> list[OfferRow]:
    """Idle, then new ones by price with the unavailable last, then busy ones."""
    had = _existing(asked, state) if asked.existing else []
    new = [row_of(one) for one in browsed(asked, state=state, offers=offers).found] if asked.new else []
    idle = [row for row in had if row.availability == "idle"]
    return [*idle, *new, *(row for row in had if row.availability != "idle")]


def browsed(asked: OfferQuery, *, state: State, offers: Sequence[Offer]) -> Browsed:
    """What could be had anew, by the plan's own walk."""
    world = World(desired=asked.desired, state=state, offers=offers, now=asked.now, nonce="browsing")
    return browse(world, asked.pool, need=asked.need, where=asked.where)


def show_offers(rows: Sequence[OfferRow], *, most: int, now: Seconds) -> None:
    """The table with the first `most`, and how many there are."""
    if not rows:
        say("no offer fits")
        return
    table, below = offer_text(rows[:most], total=len(rows), now=now, width=width(sys.stdout))
    show(table)
    out(below + "\n")
    sys.stdout.flush()


def row_of(one: FoundOffers) -> OfferRow:
    offer = one.offer
    return OfferRow(
        backend=offer.backend,
        region=offer.region,
        zone=offer.zone,
        instance=offer.instance_type,
        spot=offer.spot,
        resources=one.resources,
        price=one.price,
        availability="busy" if one.why == BUSY else one.why,
        at_most=offer.at_most,
        source=offer.source,
        priced_at=offer.priced_at,
        blocks=one.blocks,
        of=one.of,
    )


def _existing(asked: OfferQuery, state: State) -> list[OfferRow]:
    jobs = jobs_by_instance(state.attempts)
    rows = []
    for one in state.instances:
        status = instance_status(one, jobs)
        foreign = degraded(one, allow_foreign=asked.pool.allow_foreign)
        flagged = unreachable(one) or one.draining or one.quarantined or foreign or one.orphan
        if asked.instance not in ("", one.name):
            continue
        if one.pool != asked.pool.name or status in LEFT_OUT or flagged:
            continue
        left = one if shared(one) > 1 else left_of(one)
        row = _instance(asked, left, jobs=jobs.get(one.id, ()), idle=status == "idle")
        if row is not None:
            rows.append(row)
    return sorted(rows, key=lambda row: (row.availability != "idle", row.price is None, row.price or Decimal(0)))


def _instance(asked: OfferQuery, one: Instance, *, jobs: Sequence[Job], idle: bool) -> OfferRow | None:
    """At what a run's share of it costs; idle where so much of it is free. `None` where it does not fit."""
    of = shared(one)
    blocks = fewest(asked.need, one.resources, of=of) if of > 1 else 1
    own = part(one.resources, blocks=blocks, of=of)
    price = part_price(one.price, blocks=blocks, of=of)
    if not blocks or misfit(asked.need, asked.where, replace(one, resources=own, price=price), cloud=False):
        return None
    free = of > 1 and SharedBox(one, of=of, jobs=jobs).free >= blocks and one.phase == "ready"
    return OfferRow(
        backend=one.backend,
        region=one.region,
        zone=one.zone,
        instance=f"{one.instance_type} ({one.name})",
        resources=own,
        spot=one.spot,
        price=price,
        at_most=one.at_most,
        blocks=blocks,
        of=of,
        availability="idle" if idle or free else "busy",
    )
