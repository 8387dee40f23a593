"""Launch instances for pending runs, for `pool add` requests and for pools below their minimum. Pure.

Over the offers by price, within maxima, caps and budgets. Orders are gathered and become
launches at the end: machines that are alike in everything are asked for in one batch.
"""

from __future__ import annotations

from collections.abc import Mapping

from reconciler.planner.draft import Draft
from reconciler.planner.placement.fit import CLOUD_DISK
from reconciler.planner.placement.idle_pool import Requirement, Shapes
from reconciler.planner.placement.launch_order import LaunchOrder, LaunchTerms, Wanted
from reconciler.planner.placement.limits import Room
from reconciler.planner.placement.machine_image import image_for
from reconciler.planner.placement.offer_search import Market, Search
from reconciler.planner.rules.attach_hosts import attaching, waits
from reconciler.planner.self_termination import unended
from reconciler.state.relaunch.launch_backoff import after_failures, backoff_words, given_up
from reconciler.state.sending import batch_of, type_for
from reconciler.text.format import counted, few
from schemas.base import Price
from schemas.offer import Offer
from schemas.plan import Launch
from schemas.pool import Pool
from schemas.resources import Need, Where
from schemas.run import Run

BATCH, RESERVED = 50, 20 * 60  # machines a launch, seconds
GIVEN_UP_AFTER = "given up after "
"""How the reason of a request begins that ends because its time is over."""
FAILOVER = Price("1.5")


class Growth:
    """The launches in the making, and what they may still be."""

    def __init__(self, draft: Draft) -> None:
        self.draft = draft
        self.room = Room(draft)
        self.market = Market(draft)
        self.shapes = Shapes()
        self.ordered: dict[str, int] = {}
        self.newest: Offer | None = None
        self.newest_runs: list[str] = []
        self.latest: Offer | None = None
        """What was ordered last, whoever may share it."""
        failed = given_up(draft.actions, draft.living)
        known = after_failures(draft.world.state.backoffs, failed, now=draft.now)
        self.backoffs = {draft.pool_name(one.pool): one for one in known}
        self._orders: dict[tuple[object, ...], tuple[LaunchOrder, list[Wanted]]] = {}
        self._searches: dict[Requirement, Search] = {}
        self._offers: dict[int, Offer] = {}

    def search(self, shape: Requirement) -> Search:
        found = self._searches.get(shape)
        if found is None:
            pool = self.draft.pools[shape.pool]
            found = self._searches[shape] = Search(self.market, self.room, shape=shape, pool=pool)
        return found

    def hopeless(self, pool: Pool, *, n: int = 1) -> str:
        """Why the pool may not grow at all, or ""."""
        return self.draft.closed.get(pool.name, "") or (
            waits(self.draft, pool) if pool.hosts else self.room.full(pool, n=n)
        )

    def backing_off(self, pool: Pool, *, since: int | None = None) -> str:
        """Why the pool waits after machines that were never ready; "" if it does not, or not for what is newer."""
        backoff = self.backoffs.get(pool.name)
        if backoff is None or self.draft.now >= backoff.until or (since is not None and since > backoff.at):
            return ""
        return backoff_words(backoff, now=self.draft.now)

    def order(self, order: LaunchOrder, *, n: int, subject: str, name: str = "", run: str = "") -> None:
        """`subject` (a run's name) is listed in the reason; `name` is the instance's, if it was chosen.

        `run` is the id of the run that is to use it, where that is one of one node.
        """
        self.room.take(order.pool, order.offer, n)
        self.market.take(order.pool, order.offer, n=n)
        self.latest = order.offer
        self.newest = None if order.terms.image else order.offer  # shared by runs of its image alone, once it is there
        self.ordered[order.pool] = self.ordered.get(order.pool, 0) + n
        key = (*order[:1], id(order.offer), *order[2:])
        _, wanted = self._orders.setdefault(key, (order, []))
        self.newest_runs = [run, subject] if run else []
        wanted.extend(Wanted(subject, name, self.newest_runs) for _ in range(n))

    def launches(self) -> None:
        """Turn the orders into actions, each of at most a batch of its backend; a native gang's are one launch."""
        for order, wanted in self._orders.values():
            size = batch_of(self.draft.backends, order.offer.backend, whole=bool(order.reserved_for), most=BATCH)
            for start in range(0, len(wanted), size):
                self.draft.actions.append(_launch(self.draft, order, wanted[start : start + size]))


def _launch(draft: Draft, order: LaunchOrder, wanted: list[Wanted]) -> Launch:
    id, pool = draft.mint(), draft.pools[order.pool]
    subjects = list(dict.fromkeys(one.subject for one in wanted if one.subject))
    why = order.why or f"for run{'s' if len(subjects) > 1 else ''} {few(subjects)}{draft.again(subjects)}"
    return Launch(
        launch=id,
        pool=pool.name,
        ids=tuple(f"{id}-{index}" for index in range(len(wanted))),
        names=tuple(one.name or draft.name_for(pool.name) for one in wanted),
        offer=order.offer,
        why="; ".join(filter(None, (why, unended(draft, pool, order.offer)))),
        origin=order.origin,
        wish=order.wish,
        reserved_for=order.reserved_for,
        reserved_until=draft.now + RESERVED if order.reserved_for else None,
        idle_duration=order.idle_duration,
        idle_source=order.idle_source,
        gang=bool(order.reserved_for),
        together=bool(order.reserved_for) or pool.placement == "cluster",
        near=draft.near(pool) if order.offer.cloud else "",
        max_price=order.terms.max_price,
        disk=order.terms.disk,
        reservation=order.terms.reservation,
        image=order.terms.image,
        runtime=order.terms.runtime,
        engine=order.terms.engine,
        made_for=tuple(tuple(one.runs) for one in wanted) if any(one.runs for one in wanted) else (),
        tags=pool.tags,
        max_lifetime=pool.max_lifetime,
        hold=order.hold,
        unattended=pool.unattended,
        prevent_destroy=pool.prevent_destroy,
        blocks=pool.blocks,
    )


# ---------------------------------------------------------------- for a run


def ceiling_of(confirmed: Price | None, *, where: Where) -> Price | None:
    """The most that a machine may cost in $/h after a refusal, where no `max_price` says so; None: no limit."""
    return None if confirmed is None or where.max_price is not None else confirmed * FAILOVER


def grow_for(growth: Growth, run: Run, shape: Requirement) -> str:
    """Order one machine for the run; "" when it was, else why not."""
    pool = growth.draft.pools[shape.pool]
    if shape.instance_name:
        return f"only instance {shape.instance_name} may run it"
    if shape.reuse_only:
        return "it may only reuse an instance"
    if pool.hosts and attaching(growth.draft, pool):
        return ""
    why = growth.hopeless(pool)
    if why:
        return why if pool.hosts or growth.search(shape).may_fit() else growth.search(shape).funnel()
    offer = growth.search(shape).offer()
    if offer is None:
        return growth.search(shape).funnel()
    growth.order(_for_run(growth, run, shape, offer=offer, pool=pool), n=1, subject=run.spec.name, run=run.id)
    return ""


def grow_gang(
    growth: Growth, run: Run, shape: Requirement, *, have: Mapping[tuple[str, str], int], only: tuple[str, str] | None
) -> tuple[str, tuple[str, str] | None]:
    """Order all machines that the gang misses in one region, reserved for it: (why not, the region).

    `have` are the nodes at hand by (backend, region); `only` the region it is bound to by now.
    """
    pool = growth.draft.pools[shape.pool]
    if shape.reuse_only or shape.instance_name:
        return "it may only reuse instances", None
    missing = shape.nodes - max(have.values(), default=0)
    why = growth.hopeless(pool, n=missing)
    if why:
        return why if pool.hosts or growth.search(shape).may_fit() else growth.search(shape).funnel(), None
    search = growth.search(shape)
    offer = search.gang_offer(have=have, only=only)
    if offer is None:
        return search.funnel(), None
    region = (offer.backend, offer.region)
    n = shape.nodes - have.get(region, 0)
    why = growth.hopeless(pool, n=n)
    if why:
        return why, None
    order = _for_run(growth, run, shape, offer=offer, pool=pool)._replace(
        reserved_for=run.id, why=f"for run {run.spec.name}, {n} of its {shape.nodes} nodes"
    )
    growth.order(order, n=n, subject=run.spec.name)
    return "", region


def _for_run(growth: Growth, run: Run, shape: Requirement, *, offer: Offer, pool: Pool) -> LaunchOrder:
    spec = run.spec
    return LaunchOrder(
        pool=pool.name,
        offer=offer,
        origin="run",
        idle_duration=spec.idle_duration if spec.destroy_after else None,
        idle_source=dict(spec.sources).get("idle_duration", "default") if spec.destroy_after else "dont-destroy",
        hold=pool.hold,  # of its results: a run with a `hold` of its own has that for its own alone
        terms=terms_of(growth, pool, offer, need=shape.need, where=shape.where),
    )


# ---------------------------------------------------------------- for a floor


def grow_floors(growth: Growth) -> None:
    """`nodes.min` and `nodes.target`, of those that stay and those just ordered."""
    draft = growth.draft
    if not draft.rules_documents or draft.may.destroy_all:
        return
    for pool in draft.pools.values():
        if pool.unsupported or pool.hosts or not draft.covers(id="", pool=pool.name):
            continue
        floor = pool.floor
        staying = sum(not draft.living[id].orphan for id in draft.members[pool.name] if id not in draft.leaving)
        missing = floor - staying - growth.ordered.get(pool.name, 0)
        shape = growth.shapes.shape(pool=pool.name, need=pool.need, where=pool.where)
        for index in range(missing):
            why = growth.backing_off(pool) or growth.hopeless(pool)
            offer = None if why else growth.search(shape).offer()
            if offer is None:
                said = f"{missing - index} of {counted(floor, 'node')} missing"
                draft.cannot(f"pool {pool.name}", f"{said}: {why or growth.search(shape).funnel()}")
                break
            growth.order(_for_floor(growth, pool, offer=offer, floor=floor, staying=staying), n=1, subject="")


def _for_floor(growth: Growth, pool: Pool, *, offer: Offer, floor: int, staying: int) -> LaunchOrder:
    return LaunchOrder(
        pool=pool.name,
        offer=offer,
        origin="declared",
        idle_duration=pool.idle_duration,
        idle_source=dict(pool.sources).get("idle_duration", "default"),
        hold=pool.hold,
        why=f"nodes {floor}, there {'is' if staying == 1 else 'are'} {staying or 'none'}",
        terms=terms_of(growth, pool, offer, need=pool.need, where=pool.where),
    )


def terms_of(growth: Growth, pool: Pool, offer: Offer, *, need: Need, where: Where) -> LaunchTerms:
    """Of a machine that is bought; its disk is what was asked for, or else the usual one."""
    if not offer.cloud:
        return LaunchTerms()
    disk = max(need.disk.min or 0, pool.need.disk.min or 0) or CLOUD_DISK.min or 0
    kind = type_for(growth.draft.backends, offer.backend)
    return LaunchTerms(
        max_price=where.max_price,
        disk=disk,
        reservation=where.reservation,
        image=image_for(kind, need, pool),
        runtime=kind.fixed_runtime,
        engine=not kind.fixed_runtime and (need.container or pool.isolation == "container" or bool(pool.default_image)),
    )
