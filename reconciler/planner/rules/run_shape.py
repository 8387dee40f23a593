"""What the nodes of a run ask for, as the matcher compares it. Pure."""

from __future__ import annotations

from reconciler.planner.draft import Draft
from reconciler.planner.placement.fit import excluded
from reconciler.planner.placement.host_ports import ports_of
from reconciler.planner.placement.idle_pool import Requirement
from reconciler.planner.placement.rejection import pool_crossing
from reconciler.planner.rules.scale_up import Growth, ceiling_of
from schemas.run import Run


def shape_of(growth: Growth, run: Run, *, timed: bool) -> Requirement:
    """The run's requirement. `timed`: how long it may last matters, since machines may be held (`contended`)."""
    spec = run.spec
    return growth.shapes.shape(
        pool=growth.draft.pool_name(spec.pool),
        need=spec.need,
        where=spec.where,
        instance_name=spec.instance_name,
        reuse_only=spec.reuse_only,
        ceiling=ceiling_of(run.confirmed_price, where=spec.where),
        nodes=spec.nodes,
        lasts=spec.max_duration if timed or growth.draft.own_drains else 0,
        ports=ports_of(spec),
        unpriced=run.confirmed_unpriced,
    )


def contended(draft: Draft) -> bool:
    """Whether machines may be held: for a run of several nodes or blocks, or one that this plan may not start."""
    if not draft.everything:
        return True
    waits = any(run.spec.nodes > 1 and run.status == "submitted" for run in draft.runs.values())
    return waits or any(pool.blocks != 1 for pool in draft.pools.values())


def refused_by_pool(draft: Draft, run: Run, shape: Requirement) -> str:
    """Why its pool takes no such run now, whatever is idle there; "" where it does."""
    closed = draft.closed.get(shape.pool) or pool_crossing(draft, run, shape)
    return closed or excluded(draft.pools[shape.pool], shape.need)
