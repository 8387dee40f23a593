"""The conditions of an offer, in the order in which a search checks them, and their words. Pure."""

from __future__ import annotations

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


def cheapest_of(what: str, offer: Offer | None) -> str:
    if offer is None:
        return ""
    at_most = "≤ " if offer.at_most else ""
    price = "no known price" if offer.price is None else f"{at_most}${offer.price:.2f}"
    return f", the cheapest {what}: {offer.instance_type} {price}"
