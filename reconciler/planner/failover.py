"""Other offers that an approval covers after a refusal, up to 1.5 times the confirmed price. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from decimal import Decimal

from msgspec.structs import replace

from reconciler.planner.approve import approve, runs_of, started
from reconciler.text.format import few
from schemas.base import Price
from schemas.plan import Assign, Launch, Plan, Unmet

DEARER = Decimal("1.5")


def failover(
    fresh: Plan,
    approved: Plan,
    *,
    refused: Mapping[str, int],
    hindered: Collection[str] = (),
    starts: bool = False,
) -> Plan:
    """`approve`, and launches in place of those refused: as many by pool, none dearer than the limit.

    `starts` as in `approve`. `hindered`: pools of which launches could not even be prepared; what is left of their
    approval may go elsewhere.
    """
    allowed = approve(fresh, approved, starts=starts)
    if not refused and not hindered:
        return allowed
    kept = {one.launch for one in allowed.actions if isinstance(one, Launch)}
    limits, left = _limits(approved), dict(refused)
    at_any = {
        (one.pool, one.offer.purchase)
        for one in approved.actions
        if isinstance(one, Launch) and one.offer.price is None
    }
    open_ = _machines(approved) - _machines(allowed)
    left |= {pool: max(left.get(pool, 0), open_[pool]) for pool in hindered}
    extra, dear = set(), []
    for one in fresh.actions:
        if not isinstance(one, Launch) or one.launch in kept or len(one.ids) > left.get(one.pool, 0):
            continue
        if starts and one.made_for and started(approved).isdisjoint(runs_of(one)):
            continue
        covered = one.offer.price is not None and one.offer.price <= limits.get(one.pool, Price(0))
        if not covered and (one.pool, one.offer.purchase) not in at_any:
            dear.append(_too_dear(one, limits))
            continue
        left[one.pool] -= len(one.ids)
        extra.add(one.launch)
    allowed_ids = {id(one) for one in allowed.actions}
    actions = tuple(
        one
        for one in fresh.actions
        if id(one) in allowed_ids or one in allowed.actions or (isinstance(one, Launch) and one.launch in extra)
    )
    return replace(allowed, actions=actions if extra else allowed.actions, unmet=(*allowed.unmet, *dear))


def left_waiting(fresh: Plan, kept: Plan) -> tuple[str, ...]:
    """A sentence on the runs that `fresh` starts and `kept`, the part of it that was approved, does not."""
    begun = {action.attempt for action in kept.actions if isinstance(action, Assign)}
    left = [one.name for one in fresh.actions if isinstance(one, Assign) and one.attempt not in begun]
    if not left:
        return ()
    runs = f"run {left[0]}" if len(set(left)) == 1 else f"runs {few(dict.fromkeys(left))}"
    return (f"{runs} can start now, which the approved plan did not say: run `dstack apply` again to approve it",)


def _too_dear(launch: Launch, limits: Mapping[str, Price]) -> Unmet:
    price = "at no known price" if launch.offer.price is None else f"at ${launch.offer.price:.2f}"
    most = limits.get(launch.pool)
    bound = "and no price was confirmed" if most is None else f"above 1.5 × the confirmed price (${most:.2f})"
    why = (
        f"what was confirmed is not to be had; next would be {launch.offer.instance_type} in {launch.offer.place} "
        f"{price}, {bound}: apply again to be asked"
    )
    return Unmet(subject=f"pool {launch.pool}", why=why)


def _machines(plan: Plan) -> Counter[str]:
    """pool -> how many are launched."""
    found: Counter[str] = Counter()
    for one in plan.actions:
        if isinstance(one, Launch):
            found[one.pool] += len(one.ids)
    return found


def _limits(approved: Plan) -> dict[str, Price]:
    """pool -> the most that one of its machines may cost."""
    limits: dict[str, Price] = {}
    for one in approved.actions:
        if isinstance(one, Launch) and one.offer.price is not None:
            limits[one.pool] = max(limits.get(one.pool, Price(0)), one.offer.price * DEARER)
    return limits
