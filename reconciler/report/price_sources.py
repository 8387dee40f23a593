"""Where the prices of a plan come from, and how old they are. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.text.format import dated
from schemas.plan import Launch, Plan


def explain_prices(plan: Plan, *, now: int) -> Iterator[str]:
    """A line for all that is bought at a catalog's price; none where nothing is."""
    bought = (action.offer for action in plan.actions if isinstance(action, Launch))
    said = (dated(offer.source, offer.priced_at, now=now) for offer in bought if offer.priced_at is not None)
    if sayings := "; ".join(dict.fromkeys(said)):
        yield f"{sayings} (`dstack offers --refresh` asks for younger ones)"
