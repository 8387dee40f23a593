"""The price that was confirmed, as the limit for failover to other offers. Pure."""

from __future__ import annotations

from reconciler.planner.placement.blocks import share_of_offer
from schemas.base import Price
from schemas.plan import Launch, Plan
from schemas.resources import Need


def confirmed(plan: Plan, need: Need) -> Price | None:
    """$/h of one machine, of a run's share of it in a pool of blocks: the dearest known price of what is bought.

    `None`: nothing with a known price is bought. What is bought without one, `unpriced` names.

    It is held against one offer at a time, so that the nodes of a gang do not add up.
    """
    launches = [one for one in plan.actions if isinstance(one, Launch)]
    shares = (share_of_offer(need, one.offer, blocks=one.blocks) if one.blocks != 1 else one.offer for one in launches)
    return max((offer.price for offer in shares if offer.price is not None), default=None)


def unpriced(plan: Plan) -> tuple[str, ...]:
    """What is bought without a known price, as `Offer.purchase`: to confirm the plan confirms these at any price."""
    launches = (one for one in plan.actions if isinstance(one, Launch) and one.offer.price is None)
    return tuple(sorted({one.offer.purchase for one in launches}))
