"""Find what a name stands for, and explain it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from reconciler.planner.explain.instance import explain_instance
from reconciler.planner.explain.offer import explain_offer
from reconciler.planner.explain.pool import explain_pool
from reconciler.planner.explain.run import explain_run
from reconciler.planner.world import World
from reconciler.state.status import alive
from schemas.explanation import Explained, InstanceExplained, PoolExplained, RunExplained
from schemas.instance import Instance
from schemas.pool import pool_named
from schemas.run import Run, RunSpec

KINDS = ("run", "instance", "pool", "offer")


class NotExplained(Exception):
    """There is no such thing, or it cannot be judged. `names` are those that there are."""

    def __init__(self, message: str, *, names: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.names = names


def explain_named(world: World, name: str, *, kind: str = "") -> tuple[str, Explained]:
    """(its kind, the explanation): of a run, else an instance, else a pool, where no kind is given."""
    tried: Mapping[str, Callable[[World, str], Explained | None]] = {
        "run": _run, "instance": _instance, "pool": _pool, "offer": explain_offer,
    }  # fmt: skip
    for each in (kind,) if kind else KINDS[:3]:
        if (found := tried[each](world, name)) is not None:
            return each, found
    what = f"no backend offers {name}" if kind == "offer" else f"no {kind or 'run, instance or pool'} {name}"
    raise NotExplained(what, names=_names(world, kind))


def _run(world: World, name: str) -> RunExplained | None:
    """The newest record of that name or id, else the configured run. Its pool must be configured."""
    known = [one for one in world.state.runs if name in (one.spec.name, one.id)]
    found: Run | RunSpec | None = max(known, key=lambda one: one.submitted_at, default=None)
    if found is None:
        found = next((one for one in world.desired.runs if one.name == name), None)
    if found is None:
        return None
    spec = found.spec if isinstance(found, Run) else found
    if spec.pool and pool_named(spec.pool, world.desired.pools) is None:
        raise NotExplained(f"run {name}: its pool {spec.pool} is not configured")
    if not world.desired.pools:
        raise NotExplained(f"run {name}: no pool is configured; `dstack pool create` adds one")
    return explain_run(world, found)


def _instance(world: World, name: str) -> InstanceExplained | None:
    living: Callable[[Instance], bool] = lambda one: alive(one) and name in (one.name, one.id)  # noqa: E731
    found = next(filter(living, world.state.instances), None)
    return explain_instance(world, found) if found is not None else None


def _pool(world: World, name: str) -> PoolExplained | None:
    found = pool_named(name, world.desired.pools)
    return explain_pool(world, found) if found is not None else None


def _names(world: World, kind: str) -> tuple[str, ...]:
    runs = [one.spec.name for one in world.state.runs] + [one.name for one in world.desired.runs]
    instances = [one.name for one in world.state.instances if alive(one)]
    pools = [one.name for one in world.desired.pools]
    if kind == "offer":
        return tuple(sorted({one.instance_type for one in world.offers}))
    named = {"run": runs, "instance": instances, "pool": pools}
    return tuple(sorted(set(named.get(kind, [*runs, *instances, *pools]))))
