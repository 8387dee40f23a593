"""The offers that fit what is asked: idle instances first, then busy ones, then what could be had."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from reconciler.cli.terminal import out, say, show
from reconciler.place import fits, misfit
from reconciler.render_offers import OfferRow, offer_table, shown
from reconciler.share import left_of
from reconciler.status import degraded, instance_status, jobs_by_instance, unreachable
from schemas.instance import Instance
from schemas.offer import Offer
from schemas.pool import Pool
from schemas.resources import Need, Where
from schemas.state import State

LEFT_OUT = frozenset({"terminating", "terminated"})
WORDS = {"available": "", "unknown": "", "no-capacity": "no capacity", "no-quota": "no quota"}


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What must fit: a run's or a wish's need and limits, and those of its pool. `instance`: that one alone."""

    need: Need
    where: Where
    pool: Pool
    new: bool = True
    existing: bool = True
    instance: str = ""


def offer_rows(asked: Asked, *, state: State, offers: Iterable[Offer]) -> list[OfferRow]:
    """Idle, then new ones by price with the unavailable last, then busy ones."""
    had = _existing(asked, state) if asked.existing else []
    new = [_offer(one) for one in offers if _offer_fits(asked, one)] if asked.new else []
    ordered = sorted(new, key=lambda row: (bool(row.availability), row.price is None, row.price or Decimal(0)))
    idle = [row for row in had if row.availability == "idle"]
    return [*idle, *ordered, *(row for row in had if row.availability != "idle")]


def why_none(asked: Asked, *, offers: Iterable[Offer]) -> str:
    """Of offers that do not fit: each reason with its numbers, the most frequent first."""
    whys = Counter(_misfit(asked, one) for one in offers)
    said = [f"{why} ({number} offers)" if number > 1 else why for why, number in whys.most_common(3)]
    return "; ".join(said)


def show_offers(rows: Sequence[OfferRow], *, most: int) -> None:
    """The table with the first `most`, and how many there are."""
    if not rows:
        say("no offer fits")
        return
    show(offer_table(rows[:most]))
    out(shown(rows[:most], total=len(rows)) + "\n")
    sys.stdout.flush()


def _misfit(asked: Asked, one: Offer) -> str:
    found = (
        misfit(need, where, one, cloud=one.cloud)
        for need, where in ((asked.need, asked.where), (asked.pool.need, asked.pool.where))
    )
    return next((why for why in found if why), "it fits")


def _existing(asked: Asked, state: State) -> list[OfferRow]:
    jobs = jobs_by_instance(state.attempts)
    rows = []
    for one in state.instances:
        status = instance_status(one, jobs)
        shared = degraded(one, allow_foreign=asked.pool.allow_foreign)
        flagged = unreachable(one) or one.draining or one.quarantined or shared or one.orphan
        if asked.instance not in ("", one.name):
            continue
        if one.pool != asked.pool.name or status in LEFT_OUT or flagged:
            continue
        if not fits(asked.need, asked.where, left_of(one), cloud=False):
            continue
        rows.append(_instance(one, availability="idle" if status == "idle" else "busy"))
    return sorted(rows, key=lambda row: (row.availability != "idle", row.price is None, row.price or Decimal(0)))


def _instance(one: Instance, *, availability: str) -> OfferRow:
    return OfferRow(
        backend=one.backend, region=one.region, instance=f"{one.instance_type} ({one.name})", resources=one.resources,
        spot=one.spot, price=one.price, availability=availability,
    )  # fmt: skip


def _offer(one: Offer) -> OfferRow:
    taken = "busy" if one.free == 0 else ""
    return OfferRow(
        backend=one.backend, region=one.region, instance=one.instance_type, resources=one.resources, spot=one.spot,
        price=one.price, availability=WORDS[one.availability] or taken,
    )  # fmt: skip


def _offer_fits(asked: Asked, one: Offer) -> bool:
    return all(
        fits(need, where, one, cloud=one.cloud)
        for need, where in ((asked.need, asked.where), (asked.pool.need, asked.pool.where))
    )
