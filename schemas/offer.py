"""An offer: a machine that a place would give us, at a price."""

from __future__ import annotations

from typing import Literal

from schemas.base import Price, Seconds, Value, place_of
from schemas.resources import Resources

Availability = Literal["available", "unknown", "no-capacity", "no-quota"]


class Offer(Value, frozen=True, kw_only=True):
    """A machine that a backend would make, at a price."""

    backend: str
    region: str
    instance_type: str
    resources: Resources
    price: Price | None
    """$/h; None where unknown. An unknown price fails every budget and `max_price`."""
    zone: str = ""
    spot: bool = False
    cloud: bool = True
    """A new machine is bought. Only there do the defaults `cpu 2.. memory 8GB.. disk 100GB..` apply."""
    availability: Availability = "unknown"
    free: int | None = None
    """How many more of it the backend has now; None: unknown."""
    source: str = ""
    """Where the price comes from."""
    priced_at: Seconds | None = None
    """Unix time of the price."""
    at_most: bool = False
    """It may cost less than `price`, never more."""
    at: str = ""
    """Key of its place, where backend and region do not tell it: a declared host is a place of its own."""
    handle: str = ""
    """The vendor's own id of what is offered, where a launch must name it."""
    self_termination: Literal["", "lease", "cap", "none"] = ""
    """What ends the machine when no apply comes any more, with this configuration; "": the best of its type."""

    @property
    def image(self) -> None:
        """An offer fits a run of any image: where the image is the machine, it is made of the run's."""
        return None

    @property
    def purchase(self) -> str:
        """`aws p5.4xlarge on-demand`: what is bought of whom, wherever it is."""
        return f"{self.backend} {self.instance_type} {'spot' if self.spot else 'on-demand'}"

    @property
    def place(self) -> str:
        return self.at or place_of(self.backend, self.region if self.cloud else "")
