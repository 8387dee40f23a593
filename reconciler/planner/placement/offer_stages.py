"""The conditions of an offer, in the order in which a search checks them, and their words. Pure."""

from __future__ import annotations

from reconciler.text.format import OLD, dated
from schemas.offer import Offer

STAGES = (
    "blocks",
    "gpu",
    "container runtime",
    "image",
    "cpu architecture",
    "cpu",
    "memory",
    "disk",
    "over",
    "backend",
    "region",
    "zone",
    "instance type",
    "spot",
    "price",
    "ceiling",
    "self-termination",
    "nodes",
    "elsewhere",
    "port",
    "place",
    "quota",
    "available",
    "budget",
    "autoscale",
)


LACKS = ("available", "quota")


STAGE_WORDS = {
    "port": "its port free",
    "place": "a place to ask now", "quota": "quota left", "available": "capacity now", "budget": "budget left",
    "autoscale": "an autoscale rule left",
}  # fmt: skip


HELD_BACK = {
    "budget": "over budget", "autoscale": "no autoscale rule left", "nodes": "its backend takes no multi-node runs",
}  # fmt: skip


def cheapest_of(what: str, offer: Offer | None, *, now: int) -> str:
    """In words; a price that is older than two weeks with its age, since that may be what decides."""
    if offer is None:
        return ""
    at_most = "≤ " if offer.at_most else ""
    price = "no known price" if offer.price is None else f"{at_most}${offer.price:.2f}"
    old = offer.price is not None and offer.priced_at is not None and now - offer.priced_at >= OLD
    age = f" ({dated(offer.source, offer.priced_at, now=now)}: `dstack offers --refresh`)" if old else ""
    return f", the cheapest {what}: {offer.instance_type} {price}{age}"
