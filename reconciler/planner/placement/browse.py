"""List offers for a need, cheapest first, and why the others do not match: as the plan does. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from reconciler.planner.draft import draft_of
from reconciler.planner.placement.blocks import fewest
from reconciler.planner.placement.idle_pool import Shapes
from reconciler.planner.placement.limits import Room
from reconciler.planner.placement.offer_search import Market, Search
from reconciler.planner.world import World
from reconciler.state.blocks import blocks_of, part, part_price
from schemas.base import Price
from schemas.offer import Offer
from schemas.pool import Pool
from schemas.resources import Need, Resources, Where


@dataclass(frozen=True, kw_only=True)
class FoundOffers:
    """An offer that suits. `why`: what keeps it from being had now, "" where nothing does.

    `blocks` of `of` are what one run would take of it, `price` and `resources` those of this share.
    """

    offer: Offer
    why: str
    price: Price | None
    resources: Resources
    blocks: int = 1
    of: int = 1


@dataclass(frozen=True, kw_only=True)
class Browsed:
    """`funnel` is how many of the `total` each thing that was asked left."""

    found: tuple[FoundOffers, ...]
    total: int
    funnel: str


def browse(world: World, pool: Pool, *, need: Need, where: Where) -> Browsed:
    """Those that may be had by price, then those that may not now, under the limits of the pool and the project."""
    draft = draft_of(world)
    shape = Shapes().shape(pool=pool.name, need=need, where=where)
    search = Search(Market(draft), Room(draft), shape=shape, pool=pool)
    found = [_found(offer, why, need=need, pool=pool) for offer, why in search.suiting()]
    found.sort(key=lambda one: (bool(one.why), one.price is None, one.price or Price(0)))
    return Browsed(found=tuple(found), total=len(world.offers), funnel=search.funnel())


def _found(offer: Offer, why: str, *, need: Need, pool: Pool) -> FoundOffers:
    of = blocks_of(pool.blocks, offer.resources)
    blocks = (fewest(need, offer.resources, of=of) or of) if of > 1 else 1
    return FoundOffers(
        offer=offer,
        why=why,
        price=part_price(offer.price, blocks=blocks, of=of),
        resources=part(offer.resources, blocks=blocks, of=of),
        blocks=blocks,
        of=of,
    )
