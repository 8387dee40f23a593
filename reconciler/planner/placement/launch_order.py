"""What is to be launched, before it is a launch of a plan. Pure."""

from __future__ import annotations

from typing import Literal, NamedTuple

from schemas.base import Mib, Price, Seconds
from schemas.offer import Offer


class LaunchTerms(NamedTuple):
    """What the machines are to have beyond their offer."""

    max_price: Price | None = None
    disk: Mib = 0
    reservation: str = ""
    image: str = ""
    """Where the machines are themselves containers: what they are made of."""
    runtime: str = ""
    """`Resources.runtime`, where the type of the backend fixes it."""
    engine: bool = False
    """They are to run containers, and are machines."""


class LaunchOrder(NamedTuple):
    """What machines of one batch have in common."""

    pool: str
    offer: Offer
    origin: Literal["declared", "run", "added"]
    idle_duration: Seconds | None
    idle_source: str
    hold: Seconds
    wish: str = ""
    reserved_for: str = ""
    why: str = ""
    terms: LaunchTerms = LaunchTerms()


class Wanted(NamedTuple):
    """One machine of an order, and the name of the run that it is for. `name` is its own, where that was chosen."""

    subject: str
    name: str
    runs: list[str]
    """Of the runs of one node that are to use it: id and name of each in turn."""
