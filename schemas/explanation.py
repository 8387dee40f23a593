"""Explanations of runs, instances, pools and offers: what the plan decides by, with both sides of each condition."""

from __future__ import annotations

from schemas.base import Value
from schemas.offer import Offer


class FailedCondition(Value, frozen=True, kw_only=True):
    """One condition that a machine fails."""

    kind: str
    """`gpu`, `cpu`, `memory`, `disk`, `region`, `spot`, `price` …"""
    asked: str
    """What is asked, in words: `memory 16GB..`."""
    has: str
    """What the machine has: `8GB`."""
    of: str = ""
    """`pool gpu`, where its pool asks for it; "": the run does."""

    @property
    def words(self) -> str:
        """`memory 16GB.. asked by pool gpu, it has 8GB`."""
        return f"{self.asked} asked{f' by {self.of}' if self.of else ''}, it has {self.has}"


class InstanceVerdict(Value, frozen=True, kw_only=True):
    """Whether a run could be on an instance of its pool."""

    name: str
    why: tuple[str, ...]
    """Each condition that it fails; empty where it could be."""


class OfferGroup(Value, frozen=True, kw_only=True):
    """Offers that fail the same conditions."""

    count: int
    conditions: tuple[FailedCondition, ...]
    """Those of the cheapest."""
    cheapest: Offer


class Relaxation(Value, frozen=True, kw_only=True):
    """One condition that, given up alone, lets an offer match."""

    condition: FailedCondition
    offer: Offer
    """The cheapest that matches then."""


class RunExplained(Value, frozen=True, kw_only=True):
    """Why a run is where it is, or is not yet anywhere."""

    run: str
    status: str
    reason: str
    pool: str
    refused: str
    """Why the pool takes no such run, whatever it has; "" where it does."""
    instances: tuple[InstanceVerdict, ...]
    offers: int
    """How many there are."""
    fitting: tuple[tuple[Offer, str], ...]
    """The cheapest that fit, and what keeps each from being launched now; "" where nothing does."""
    groups: tuple[OfferGroup, ...]
    """Of those that do not fit: fewest conditions first, then by price."""
    relaxations: tuple[Relaxation, ...]


class InstanceEnd(Value, frozen=True, kw_only=True):
    """One thing that terminates the instance, or keeps it."""

    what: str
    """`idle for 5m`, `max_lifetime 1d`, `minimum of pool gpu: 1`."""
    at: int | None = None
    """Unix time; None: it keeps the instance, or has no time yet."""
    source: str = ""
    """`pool gpu`, `profile p`, `default`: which configuration says so."""
    key: str = ""
    """Its key in the YAML; "": none."""


class InstanceExplained(Value, frozen=True, kw_only=True):
    """Why an instance is there, what keeps it and what ends it."""

    name: str
    pool: str
    status: str
    made_for: str
    """`the minimum of its pool`, `runs`, `pool add`."""
    price: str
    runs: tuple[str, ...]
    """Names of the runs on it now."""
    keeps: tuple[InstanceEnd, ...]
    ends: tuple[InstanceEnd, ...]
    """The soonest first; empty: nothing but a command terminates it."""


class PoolSetting(Value, frozen=True, kw_only=True):
    """One effective setting."""

    key: str
    """As in the YAML."""
    value: str
    """In words; "" where nothing is said."""
    source: str
    """`pool`, `profile NAME` or `default`."""
    reaches: str
    """When an edit takes effect: `at once`, `when idle`, `next launch`."""


class PoolExplained(Value, frozen=True, kw_only=True):
    """The settings of a pool as they are in effect."""

    pool: str
    settings: tuple[PoolSetting, ...]
    closed: str
    """Why it creates nothing now; "" where it may."""
    members: tuple[str, ...]
    """Names of its instances."""


class PoolVerdict(Value, frozen=True, kw_only=True):
    """The cheapest offer of a type for one pool."""

    pool: str
    offer: Offer
    conditions: tuple[FailedCondition, ...]
    """What it fails; empty where the pool permits it."""
    why: str
    """What keeps it from being launched now, where the pool permits it; "": nothing."""


class OfferExplained(Value, frozen=True, kw_only=True):
    """What an instance type is to each pool that buys machines."""

    name: str
    pools: tuple[PoolVerdict, ...]


Explained = RunExplained | InstanceExplained | PoolExplained | OfferExplained
