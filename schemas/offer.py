"""An offer: a machine that a place would give us, at a price."""

from __future__ import annotations

from typing import Literal

from schemas.base import Price, Seconds, Value, place_of
from schemas.resources import Resources

Availability = Literal["available", "unknown", "no-capacity", "no-quota"]


class Offer(Value, frozen=True, kw_only=True):
    """`price` is $/h, `None` where unknown (it then fails every budget and `max_price`).

    `cloud` is true where a new machine is bought: only there do the defaults
    `cpu 2.. memory 8GB.. disk 100GB..` apply to what was not asked.
    `at` is its place where backend and region do not tell it: a declared host is one of its own.
    `free` is how many more of it the place has now; `None` is unknown.
    `source` is who said the price, `priced_at` when; `at_most`: it may cost less, never more.
    """

    backend: str
    region: str
    instance_type: str
    resources: Resources
    price: Price | None
    zone: str = ""
    spot: bool = False
    cloud: bool = True
    availability: Availability = "unknown"
    free: int | None = None
    source: str = ""
    priced_at: Seconds | None = None
    at_most: bool = False
    at: str = ""
    handle: str = ""
    """The vendor's own id of what is offered, where a launch must name it."""
    self_termination: Literal["", "lease", "cap", "none"] = ""
    """What ends the machine when no apply comes any more, with this configuration; "": the best of its type."""

    @property
    def image(self) -> None:
        """An offer fits a run of any image: where the image is the machine, it is made of the run's."""
        return None

    @property
    def place(self) -> str:
        return self.at or place_of(self.backend, self.region if self.cloud else "")
