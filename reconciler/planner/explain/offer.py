"""Explain what an instance type is to each pool: what of it fits, or what it fails. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.planner.draft import draft_of
from reconciler.planner.explain.conditions import failed
from reconciler.planner.placement.browse import browse
from reconciler.planner.world import World
from schemas.base import Price
from schemas.explanation import OfferExplained, PoolVerdict
from schemas.offer import Offer
from schemas.resources import Where


def explain_offer(world: World, instance_type: str) -> OfferExplained | None:
    """None where no backend offers that type."""
    found = tuple(_verdicts(world, instance_type))
    return OfferExplained(name=instance_type, pools=found) if found else None


def _verdicts(world: World, instance_type: str) -> Iterator[PoolVerdict]:
    mine = [one for one in world.offers if one.instance_type == instance_type]
    for pool in draft_of(world).pools.values():
        if pool.hosts or not mine:
            continue
        judged = [(failed(pool.need, pool.where, one, cloud=one.cloud), one) for one in mine]
        conditions, offer = min(judged, key=lambda each: (len(each[0]), _price(each[1])))
        where = Where(instance_types=(instance_type,), spot="auto")
        found = () if conditions else browse(world, pool, need=pool.need, where=where).found
        why = next((one.why for one in found if one.offer == offer), "")
        yield PoolVerdict(pool=pool.name, offer=offer, conditions=conditions, why=why)


def _price(offer: Offer) -> tuple[bool, Price]:
    return offer.price is None, offer.price or Price(0)
