"""Launch what is wanted: for pending runs, then for requests of `pool add`, then for minima of pools. Pure.

A request that cannot be met is given up here.
"""

from __future__ import annotations

from collections import Counter

from reconciler.planner.draft import Draft
from reconciler.planner.placement.launch_order import LaunchOrder
from reconciler.planner.rules.scale_up import GIVEN_UP_AFTER, Growth, ceiling_of, grow_floors, terms_of
from reconciler.planner.rules.schedule_runs import serve
from reconciler.text.durations import words
from schemas.plan import Update
from schemas.pool import Pool
from schemas.state import Wish


def launch_wanted(draft: Draft) -> None:
    """Assign pending runs, and launch what is missing: in the order of who may take what there is."""
    growth = Growth(draft)
    serve(draft, growth)
    grow_wishes(growth)
    grow_floors(growth)
    growth.launches()


def grow_wishes(growth: Growth) -> None:
    """`pool add`: what is asked for and not launched yet; given up when its retry window is over, and at `destroy`."""
    draft = growth.draft
    if not draft.world.state.wishes:
        return
    made = Counter(
        each.wish for each in draft.world.state.instances if each.phase != "terminated" or each.ready_at is not None
    )
    for wish in sorted(draft.world.state.wishes, key=lambda each: (each.at, each.id)):
        if draft.may.destroy_all:
            _give_up(draft, wish, why="the project is destroyed")
            continue
        pool = draft.pools.get(draft.pool_name(wish.pool))
        missing = wish.count - made[wish.id]
        if missing <= 0 or not draft.covers(id=wish.id, pool=wish.pool):
            continue
        if pool is None:
            _give_up(draft, wish, why=f"there is no pool {wish.pool}")
            continue
        why = _grow_wish(growth, wish, pool=pool, missing=missing)
        if why:
            late = wish.retry.duration is not None and draft.now >= wish.at + wish.retry.duration
            over = late or not (wish.retry.no_capacity or growth.backing_off(pool, since=wish.at))
            draft.cannot(f"pool {pool.name}", f"added instances: {why}")
            if over and not _may_come(draft, wish):
                _give_up(draft, wish, why=why, late=late and wish.retry.no_capacity)


def _may_come(draft: Draft, wish: Wish) -> bool:
    """A place that might have had one did not answer."""
    named = wish.where.backends
    configs = {place.name: place.config for place in draft.world.state.places}
    silent = (configs[place] for place in draft.unknown)
    return any(not config.is_server and (not named or config.name in named) for config in silent)


def _grow_wish(growth: Growth, wish: Wish, *, pool: Pool, missing: int) -> str:
    shape = growth.shapes.shape(
        pool=pool.name,
        need=wish.need,
        where=wish.where,
        ceiling=ceiling_of(wish.confirmed_price, where=wish.where),
        unpriced=wish.confirmed_unpriced,
    )
    for _ in range(missing):
        why = growth.backing_off(pool, since=wish.at) or growth.hopeless(pool)
        offer = None if why else growth.search(shape).offer()
        if offer is None:
            return why or growth.search(shape).funnel()
        order = LaunchOrder(
            pool=pool.name,
            offer=offer,
            origin="added",
            idle_duration=wish.idle_duration,
            idle_source=wish.idle_source,
            hold=pool.hold,
            wish=wish.id,
            why=f"added by {wish.by or 'a person'}",
            terms=terms_of(growth, pool, offer, need=wish.need, where=wish.where),
        )
        growth.order(order, n=1, subject="", name=wish.name if wish.count == 1 else "")
    return ""


def _give_up(draft: Draft, wish: Wish, *, why: str, late: bool = False) -> None:
    word = f"{GIVEN_UP_AFTER}{words(wish.retry.duration or 0)}" if late else "given up"
    draft.actions.append(
        Update(
            subject=f"wish {wish.id}",
            name=wish.name or wish.id,
            pool=wish.pool,
            changes={"given_up": why},
            why=f"{word}: {why}",
        )
    )
