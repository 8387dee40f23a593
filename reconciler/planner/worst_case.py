"""Compute what the configuration permits to cost: every maximum reached, by the dearest offers that fit. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from reconciler.planner.draft import Draft
from reconciler.planner.placement.fit import refusal, shortage
from reconciler.planner.placement.limits import rules_now
from reconciler.state.autoscale_rules import covers
from schemas.base import Price
from schemas.configuration import PlanCost, PoolCost
from schemas.instance import Instance
from schemas.offer import Offer
from schemas.plan import Launch, Terminate
from schemas.pool import Pool

NOTHING = Price(0)


class _Slot(NamedTuple):
    """What an instance of a pool may cost. `most`: of how many; None: of all."""

    price: Price | None
    most: int | None


def cost(draft: Draft) -> PlanCost:
    """$/h of each pool now, after the plan, and at most; pools without instances that cost nothing at most included."""
    ended = {one.instance for one in draft.actions if isinstance(one, Terminate)}
    launches: dict[str, list[Launch]] = {}
    for one in draft.actions:
        if isinstance(one, Launch):
            launches.setdefault(one.pool, []).append(one)
    dearest = _Dearest(draft)
    pools = []
    names = dict.fromkeys((*draft.pools, *(draft.pool_of(one) for one in draft.living.values())))
    for name in names:
        mine = [one for one in draft.living.values() if draft.pool_of(one) == name]
        pool = draft.pools.get(name)
        pools.append(_of_pool(name, pool, mine, launches.get(name, []), ended=ended, dearest=dearest, draft=draft))
    unlimited = tuple(one.pool for one in pools if one.worst is None)
    total = None if unlimited else sum((one.worst or NOTHING for one in pools), NOTHING)
    budget, after = draft.world.desired.budget, sum((one.after for one in pools), NOTHING)
    if budget is not None:
        total = max(budget, after) if total is None else min(total, max(budget, after))
    return PlanCost(pools=tuple(pools), worst=total, unlimited=unlimited)


def _of_pool(
    name: str,
    pool: Pool | None,
    living: Sequence[Instance],
    launches: Sequence[Launch],
    *,
    ended: set[str],
    dearest: _Dearest,
    draft: Draft,
) -> PoolCost:
    counted = [one for one in living if one.phase != "terminating" or not one.ending]
    before = sum((one.price or NOTHING for one in counted), NOTHING)
    staying = [one.price or NOTHING for one in counted if one.id not in ended]
    made = [(one.offer.price or NOTHING) for one in launches for _ in one.ids]
    after = sum((*staying, *made), NOTHING)
    worst: Price | None = after
    unpriced = any(one.price is None and draft.is_cloud(one.backend) for one in living)
    unpriced = unpriced or any(one.offer.price is None and draft.is_cloud(one.offer.backend) for one in launches)
    if pool is not None:
        slots = dearest.of(pool)
        worst = _filled(pool, sorted((*staying, *made), reverse=True), slots)
        if pool.max_hourly is not None:
            worst = max(pool.max_hourly, after) if worst is None else min(worst, max(pool.max_hourly, after))
        unpriced = unpriced or any(slot.price is None for slot in slots)
    return PoolCost(
        pool=name,
        before=before,
        after=after,
        worst=worst,
        at_most=any(one.offer.at_most for one in launches) or any(one.at_most for one in living if one.id not in ended),
        unpriced=unpriced,
    )


def _filled(pool: Pool, prices: Sequence[Price], slots: Sequence[_Slot]) -> Price | None:
    """Of as many instances as the pool may have: each as dear as it is, or as one in its place may be.

    `prices` descend, as do those of `slots`. A maximum may be any number: nothing is made for each of it.
    """
    known = [slot for slot in slots if slot.price is not None]
    if pool.nodes_max is None:
        return sum(prices, NOTHING) if all(not slot.price for slot in known) else None
    left, mine, total = max(pool.nodes_max, len(prices)), list(prices), NOTHING
    for slot in known:
        many = left if slot.most is None else min(slot.most, left)
        own, mine = mine[:many], mine[many:]
        price = slot.price or NOTHING
        total += sum((max(each, price) for each in own), NOTHING) + price * (many - len(own))
        left -= many
    return total + sum(mine, NOTHING)


class _Dearest:
    """The offers that pools permit, the dearest first."""

    def __init__(self, draft: Draft) -> None:
        self._draft, self._rules = draft, rules_now(draft)
        self._sorted: list[Offer] | None = None

    def of(self, pool: Pool) -> list[_Slot]:
        """As far as the first that no rule counts. Of servers nothing; where no offer is known, `max_price`."""
        if pool.hosts or pool.nodes_max == 0:
            return []
        found: list[_Slot] = []
        for offer in self._offers():
            if refusal(pool.where, offer) or shortage(pool.need, offer.resources, cloud=offer.cloud):
                continue
            if self._rules.forbids(offer):
                continue
            caps = [cap.max for cap in self._rules.caps if covers(cap, offer)]
            found.append(_Slot(offer.price, min(caps, default=None)))
            if offer.price is not None and not caps:
                break
        if not found and pool.where.max_price is not None and self._buys(pool):
            found.append(_Slot(pool.where.max_price, None))
        return found

    def _buys(self, pool: Pool) -> bool:
        """Whether any of the pool's backends sells machines."""
        named = pool.where.backends
        backends = self._draft.world.desired.backends
        return any(config.traits.bought for config in backends if not named or config.name in named)

    def _offers(self) -> list[Offer]:
        """Those without a price first: they bound nothing."""
        if self._sorted is None:
            unpriced = [one for one in self._draft.world.offers if one.price is None]
            priced = [one for one in self._draft.world.offers if one.price is not None]
            self._sorted = [*unpriced, *sorted(priced, key=lambda one: one.price or NOTHING, reverse=True)]
        return self._sorted
