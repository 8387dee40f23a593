"""What is at hand and what may be bought, while a plan serves the runs that wait, and what is said of each. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from reconciler.planner.draft import Draft
from reconciler.planner.placement.at_hand import AtHand
from reconciler.planner.placement.blocks import backfills
from reconciler.planner.placement.fit import contradiction
from reconciler.planner.placement.freeing import Awaited, wait_for
from reconciler.planner.placement.host_ports import take_ports
from reconciler.planner.placement.idle_pool import Requirement
from reconciler.planner.placement.limits import HeldRoom
from reconciler.planner.rules.hold_machines import Holds
from reconciler.planner.rules.scale_up import Growth
from reconciler.planner.rules.unserved_runs import unserved
from reconciler.planner.run_queue import remember
from schemas.base import Price, Seconds
from schemas.instance import Instance
from schemas.offer import Offer
from schemas.plan import Wait
from schemas.run import Run

BOOT = 600
"""Seconds that a new machine may need until its run begins."""


class Dispatch:
    """Of one plan: `at` hand, `growth`, `holds`. `refused`: shape -> why no run of it can be served any more."""

    def __init__(self, draft: Draft, growth: Growth, *, waiting: Collection[str]) -> None:
        self.draft, self.growth = draft, growth
        self.at = AtHand(draft, waiting=waiting)
        self.holds = Holds(self.at, growth)
        self.refused: dict[Requirement, str] = {}
        self._nowhere: dict[Requirement, bool] = {}

    def alternative(self, shape: Requirement) -> tuple[Offer | None, Seconds | None]:
        """What would be launched for the shape, and how long it takes; None where it is free, or cannot be had."""
        pool = self.draft.pools[shape.pool]
        held = self.lend_room(shape)
        hopeless = self.growth.hopeless(pool, n=shape.nodes)
        if held is not None:
            self.growth.room.held[shape.pool] = held
        if shape.reuse_only or shape.instance_name or pool.hosts or hopeless:
            return None, None
        search = self.growth.search(shape)
        offer = search.gang_offer(have={}, only=None) if shape.nodes > 1 else search.offer()
        if offer is None or not self.draft.is_cloud(offer.backend):
            return None, None
        return offer, self.at.freeing.ends.ready_in(offer.backend, offer.instance_type)

    def lend_room(self, shape: Requirement) -> HeldRoom | None:
        """The room that is held in its pool for a run that can only start when this one has ended: held no more."""
        held = self.growth.room.held.get(shape.pool) if shape.nodes == 1 else None
        if held is None or not backfills(self.draft, shape.lasts, until=held.until, boot=BOOT):
            return None
        return self.growth.room.held.pop(shape.pool)

    def backs_off(self, run: Run, shape: Requirement) -> bool:
        """It waits for the next try, after machines that were never ready; without a retry it fails with them."""
        pool = self.draft.pools[shape.pool]
        why = "" if shape.reuse_only or shape.instance_name else self.growth.backing_off(pool, since=run.submitted_at)
        if why:
            self.unserved(run, why, shape=shape, failed=True)
        return bool(why)

    def take_soon(self, run: Run, one: Instance, *, shape: Requirement) -> None:
        """It waits for this whole instance, and has its ports of it."""
        self.at.take([one])
        take_ports(self.draft, one, shape.ports, run=run.spec.name)
        self.waits(run, f"waits for {one.name}")

    def waits(self, run: Run, why: str) -> None:
        """For what is sure to come."""
        self.draft.waits.append(Wait(run=run.spec.name, why=why))
        remember(self.draft, run, why)

    def waits_for_ends(self, run: Run, ends: Sequence[Awaited], *, saves: Price | None, said: str = "") -> None:
        """What `ps` shows stays the same while it waits; the plan also says in how long that is, and what it saves."""
        wait, why = wait_for(run, ends, now=self.draft.now, saves=saves, said=said)
        self.draft.waits.append(wait)
        remember(self.draft, run, why)

    def unserved(self, run: Run, why: str, *, shape: Requirement | None = None, failed: bool = False) -> None:
        """As `reconciler.planner.rules.unserved_runs`."""
        final = shape is None or self._fits_nowhere(shape)
        if final and shape is not None:
            why = contradiction(self.draft.pools[shape.pool], shape.need) or why
        unserved(self.draft, run, why, holds=self.holds, shape=shape, failed=failed, final=final)

    def _fits_nowhere(self, shape: Requirement) -> bool:
        """Nothing that the pool has, or that is offered, suits: no wait helps."""
        if shape not in self._nowhere:
            pool = self.draft.pools[shape.pool]
            known = not (pool.hosts or self.draft.unknown or shape.instance_name or shape.reuse_only)
            self._nowhere[shape] = known and not self.growth.search(shape).may_fit()
        return self._nowhere[shape]
