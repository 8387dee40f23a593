"""What terminates an instance when no apply comes any more, and whether its pool accepts that. Pure."""

from __future__ import annotations

from reconciler.planner.draft import Draft
from schemas.backend_types import type_of
from schemas.offer import Offer
from schemas.pool import Pool

NOTHING_ENDS_IT = "nothing ends it by itself if no apply comes"


def ends_by(draft: Draft, offer: Offer) -> str:
    """`lease`, `cap` or `none`: what the offer says, else the best of its backend's type."""
    config = draft.backends.get(offer.backend)
    return offer.self_termination or type_of(config.type if config else offer.backend).self_termination


def ends_by_itself(draft: Draft, pool: Pool, offer: Offer) -> bool:
    """A cap is fixed when the machine is made, so that it takes a `max_lifetime`. What is not bought needs no end."""
    if not (offer.cloud and draft.is_cloud(offer.backend)):
        return True
    found = ends_by(draft, offer)
    return found == "lease" or (found == "cap" and pool.max_lifetime is not None)


def unended(draft: Draft, pool: Pool, offer: Offer) -> str:
    """What the line of its launch says; "" where something ends it. Of an unknown type nothing is known."""
    config = draft.backends.get(offer.backend)
    known = offer.self_termination or type_of(config.type if config else offer.backend).available
    return NOTHING_ENDS_IT if known and not ends_by_itself(draft, pool, offer) else ""
