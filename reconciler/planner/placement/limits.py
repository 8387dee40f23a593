"""What may still be launched under pool maxima, budgets and caps. Counts open launches, too. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from reconciler.planner.draft import Draft, overrides
from reconciler.planner.placement.host_ports import clash
from reconciler.state.autoscale_rules import Rules, covers, kind, rules_of
from reconciler.state.forget import billing, left_at
from reconciler.text.format import counted, few
from schemas.base import Price
from schemas.instance import Instance
from schemas.offer import Offer
from schemas.plan import Launch
from schemas.pool import Pool


class HeldRoom(NamedTuple):
    """How many more machines a pool may have that only the run of that name may launch. `until` (Unix time) it cannot
    start; None: nobody knows how long."""

    machines: int
    run: str
    until: int | None


NOTHING_HELD = HeldRoom(0, "", None)


class Room:
    """Counts every living instance, open launches and orphans included; `take` counts a new one.

    Everything it refuses, it refuses for the rest of the plan: counts only grow.
    """

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._rules = rules_now(draft)
        self.count: Counter[str] = Counter()
        self.hourly: dict[str, Price] = {}
        self.total = Price(0)
        self._capped: Counter[int] = Counter()
        self.held: dict[str, HeldRoom] = {}
        """By pool."""
        alike = Counter((instance.pool, instance.price) for instance in draft.living.values())
        for (pool, price), n in alike.items():
            self._add(draft.renamed.get(pool, pool), price, n=n)
        for instance in draft.living.values() if self._rules.caps else ():
            self._capped.update(self._matching(instance))

    def _add(self, pool: str, price: Price | None, *, n: int) -> None:
        cost = (price or Price(0)) * n
        self.count[pool] += n
        self.hourly[pool] = self.hourly.get(pool, Price(0)) + cost
        self.total += cost

    def _matching(self, machine: Instance | Offer) -> list[int]:
        return [index for index, cap in enumerate(self._rules.caps) if covers(cap, machine)]

    def take(self, pool: str, offer: Offer, n: int = 1) -> None:
        self._add(pool, offer.price, n=n)
        for index in self._matching(offer):
            self._capped[index] += n

    def full(self, pool: Pool, *, n: int) -> str:
        """Why the pool may not have `n` more machines, whatever they are; "" if it may."""
        count, (held, run, _) = self.count[pool.name], self.held.get(pool.name, NOTHING_HELD)
        if pool.nodes_max is None or count + held + n <= pool.nodes_max:
            return ""
        more = f", {held} held for run {run}" if held else ""
        more += f", {n} more asked" if n > 1 else ""
        return f"the pool is at its maximum: {count} of {counted(pool.nodes_max, 'node')}{more}"

    def port_taken(self, offer: Offer, ports: tuple[int, ...]) -> str:
        """Why no job with these ports can be on the machine that the offer is a share of; "" where one can."""
        return clash(self._draft, offer, ports)

    def unaffordable(self, pool: Pool, offer: Offer, *, n: int) -> str:
        """Why a budget forbids it. No dearer offer passes where a cheaper one failed."""
        limits = (
            ("max_hourly of the pool", pool.max_hourly, self.hourly.get(pool.name, Price(0))),
            ("budget of the project", self._draft.world.desired.budget, self.total),
        )
        for name, limit, spent in limits:
            if limit is None:
                continue
            if offer.price is None:
                return f"{offer.instance_type} has no known price, and there is a {name} of ${limit:.2f}/h"
            if spent + offer.price * n > limit:
                return f"${spent:.2f}/h now + ${offer.price * n:.2f}/h would pass the {name}, ${limit:.2f}/h"
        return ""

    def capped(self, offer: Offer, *, n: int) -> str:
        """Why an `autoscale` rule forbids it."""
        if why := self._rules.forbids(offer):
            return why
        for index in self._matching(offer):
            cap = self._rules.caps[index]
            if self._capped[index] + n > cap.max:
                return f"autoscale allows {cap.max} {kind(offer)} {offer.instance_type}"
        return ""


def rules_now(draft: Draft) -> Rules:
    """The autoscale rules that this plan keeps to."""
    return rules_of(draft.world.desired, overrides(draft.world, kinds=("autoscale",)))


def hourly(draft: Draft) -> Price:
    """$/h of the living. What is to end bills until its backend shows that it ends: a refused end goes on costing."""
    alike = Counter(each.price for each in draft.living.values() if each.phase != "terminating" or not each.ending)
    return sum((price * n for price, n in alike.items() if price is not None), Price(0))


def uncounted(draft: Draft) -> Iterator[str]:
    """A sentence for all that bills, or may, and is in no sum: what is not looked at is not nothing."""
    for place in draft.world.state.places:
        if not place.config.traits.bought:
            continue
        if place.forgotten and (known := billing(left_at(draft.world.state, place.name))):
            yield f"{place.name} was forgotten with {known}: it may bill still. `dstack destroy` asks it"
        elif place.error and place.observed_at is None and not place.forgotten:
            yield f"{place.name} was never seen ({place.error}): what it has is not known"
    bought = (one for one in draft.living.values() if one.price is None and draft.is_cloud(one.backend))
    if names := sorted(one.name for one in bought):
        yield f"the price of {few(names)} is unknown"
    launches = (one for one in draft.actions if isinstance(one, Launch) and one.offer.price is None)
    if names := sorted(name for one in launches if draft.is_cloud(one.offer.backend) for name in one.names):
        yield f"the price of {few(names)} is known once it is there"
