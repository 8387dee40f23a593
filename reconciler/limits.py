"""What may still be launched: pool maxima, budgets and caps, over all that lives or is open. Pure."""

from __future__ import annotations

from collections import Counter

from reconciler.world import Draft, overrides
from schemas.base import Price
from schemas.desired import Cap
from schemas.instance import Instance
from schemas.offer import Offer
from schemas.pool import Pool


class Room:
    """Counts every living instance, open launches and orphans included; `take` counts a new one.

    Everything it refuses, it refuses for the rest of the plan: counts only grow.
    """

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._caps = caps_now(draft)
        self._ruled = bool(self._caps) or not draft.world.desired.autoscale_enabled
        self.count: Counter[str] = Counter()
        self.hourly: dict[str, Price] = {}
        self.total = Price(0)
        self._capped: Counter[int] = Counter()
        alike = Counter((instance.pool, instance.price) for instance in draft.living.values())
        for (pool, price), n in alike.items():
            self._add(draft.renamed.get(pool, pool), price, n=n)
        for instance in draft.living.values() if self._caps else ():
            self._capped.update(self._matching(instance))

    def _add(self, pool: str, price: Price | None, *, n: int) -> None:
        cost = (price or Price(0)) * n
        self.count[pool] += n
        self.hourly[pool] = self.hourly.get(pool, Price(0)) + cost
        self.total += cost

    def _matching(self, machine: Instance | Offer) -> list[int]:
        return [index for index, cap in enumerate(self._caps) if cap_covers(cap, machine)]

    def take(self, pool: str, offer: Offer, n: int = 1) -> None:
        self._add(pool, offer.price, n=n)
        for index in self._matching(offer):
            self._capped[index] += n

    def full(self, pool: Pool, *, n: int) -> str:
        """Why the pool may not have `n` more machines, whatever they are; "" if it may."""
        count = self.count[pool.name]
        if pool.nodes_max is None or count + n <= pool.nodes_max:
            return ""
        more = f", {n} more asked" if n > 1 else ""
        return f"the pool is at its maximum: {count} of {pool.nodes_max} nodes{more}"

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
        if not self._ruled:
            return ""
        if offer.spot and not self._draft.world.desired.autoscale_enabled:
            return "autoscale is disabled: no spot instances"
        matching = self._matching(offer)
        if offer.spot and not matching:
            return f"autoscale allows no spot {offer.instance_type} in {offer.place}"
        for index in matching:
            if self._capped[index] + n > self._caps[index].max:
                kind = "spot" if offer.spot else "on-demand"
                return f"autoscale allows {self._caps[index].max} {kind} {offer.instance_type}"
        return ""

    def excess(self) -> list[tuple[Cap, int]]:
        """Rules with more living instances than they allow, and by how many."""
        counted = ((cap, self._capped[index] - cap.max) for index, cap in enumerate(self._caps))
        return [(cap, excess) for cap, excess in counted if excess > 0]


def caps_now(draft: Draft) -> tuple[Cap, ...]:
    """The documents' rules under the overrides of `autoscale` commands not applied yet.

    An override's subject is an instance type, or "" for every spot instance; no value lifts it.
    """
    caps = list(draft.world.desired.caps)
    for override in overrides(draft.world, kinds=("autoscale",)):
        if override.value is None:
            continue
        if not override.subject:
            caps = [Cap(instance_type="", max=override.value)]
            continue
        caps = [cap for cap in caps if cap.instance_type != override.subject or not cap.spot]
        caps.append(Cap(instance_type=override.subject, max=override.value))
    return tuple(caps)


def cap_covers(cap: Cap, machine: Instance | Offer) -> bool:
    return (
        cap.spot == machine.spot
        and cap.instance_type in ("", machine.instance_type)
        and cap.backend in ("", machine.backend)
        and cap.region in ("", machine.region)
    )


def hourly(draft: Draft) -> Price:
    """$/h of the living that are not on their way out."""
    alike = Counter(each.price for each in draft.living.values() if each.phase != "terminating")
    return sum((price * n for price, n in alike.items() if price is not None), Price(0))
