"""The price that was confirmed, as the limit for failover to other offers. Pure."""

from __future__ import annotations

from reconciler.planner.placement.blocks import share_of_offer
from schemas.base import Price
from schemas.plan import Launch, Plan
from schemas.resources import Need


def confirmed(plan: Plan, need: Need) -> Price | None:
    """$/h of one machine, of a run's share of it in a pool of blocks: the dearest that is bought. `None`: none is.

    It is held against one offer at a time, so that the nodes of a gang do not add up.
    """
    launches = [one for one in plan.actions if isinstance(one, Launch)]
    shares = (share_of_offer(need, one.offer, blocks=one.blocks) if one.blocks != 1 else one.offer for one in launches)
    return max((offer.price or Price(0) for offer in shares), default=None)
