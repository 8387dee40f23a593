"""Find settings that contradict each other, using the configuration alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal

from reconciler.config.problems import Problem
from reconciler.config.read import FormEntry, Read
from reconciler.text.format import counted
from schemas.backend_types import LOCAL
from schemas.documents.shape import suggestion
from schemas.gpu_names import KNOWN, MOST_IN_ONE_INSTANCE
from schemas.pool import Pool
from schemas.resources import GpuNeed, Span
from schemas.run import RunSpec

SHORT = 24 * 3600


def pool_contradictions(entry: FormEntry, pool: Pool) -> Iterator[Problem]:
    yield from gpu_slips(entry, pool.need.gpu)
    fixed = pool.nodes_min > 0 and pool.nodes_min == pool.nodes_max
    own_idle = pool.idle_duration if dict(pool.sources).get("idle_duration") == "pool" else None
    if fixed and own_idle is not None and own_idle < SHORT:
        yield entry.problem(
            f"has no effect: `nodes: {pool.nodes_min}` is fixed, so no idle instance ever goes", "idle_duration"
        )
    if pool.hosts:
        yield from (
            entry.problem("has no effect: a pool of servers has exactly those of its `hosts`", key)
            for key in ("nodes", "backends", "instance_types", "spot_policy", "idle_duration", "max_lifetime")
            if getattr(entry.form, key) is not None
        )
        return
    if pool.nodes_max == 0:
        yield entry.problem("the pool may hold no instance: nothing can run in it", "nodes")
    cost = floor_cost(pool)
    if cost is not None and pool.max_hourly is not None and cost > pool.max_hourly:
        yield entry.problem(_over(pool, cost, pool.max_hourly, "budget"), "budget", "max_hourly")
    elif _never_free(pool) and pool.max_hourly == 0 and pool.nodes_min > 0:
        yield entry.problem(
            f"the budget of $0/h forbids what `nodes` asks for: {counted(pool.nodes_min, 'instance')} at least",
            "budget",
            "max_hourly",
        )


def project_contradictions(read: Read, pools: Mapping[str, Pool]) -> Iterator[Problem]:
    """The minima of all pools against the project's budget, and what one key makes of another."""
    store, state = read.singles.get("artifact_store"), read.singles.get("state")
    if store and state and "://" in state[0].form.url:
        yield store[0].problem("has no effect: with a state in a bucket, artifacts lie beside it", key=True)
    budget = read.singles.get("budget")
    if not budget:
        return
    cost = sum((floor_cost(pool) or Decimal(0) for pool in pools.values()), Decimal(0))
    if cost > budget[0].form:
        yield budget[0].problem(
            f"the minima of the pools may cost ${cost}/h at their `max_price`, over the budget of ${budget[0].form}/h",
            "max_hourly",
        )


def floor_cost(pool: Pool) -> Decimal | None:
    """$/h that the minimum may cost at `max_price`; `None` where unknown or where nothing costs."""
    if pool.where.max_price is None or not _never_free(pool):
        return None
    return pool.where.max_price * max(pool.nodes_min, pool.nodes_target or 0)


def gpu_slips(entry: FormEntry, need: GpuNeed | None) -> Iterator[Problem]:
    """What was hardly meant: `A100:80` is 80 GPUs, `A1000` is no model that anybody rents out."""
    if need is None:
        return
    least = need.count.min or 0
    if least > MOST_IN_ONE_INSTANCE:
        name = f"{need.names[0].upper()}:" if need.names else ""
        memory = "" if need.memory.min or need.memory.max else f"; for a memory of {least} GB write `{name}{least}GB`"
        yield entry.problem(f"asks for {least} GPUs in one node, and no instance has so many{memory}", *_gpu_key(entry))
    for name in need.names:
        meant = "" if name in KNOWN else suggestion(name, sorted(KNOWN)).upper().replace("DID YOU MEAN", "did you mean")
        if meant:
            yield entry.problem(f"no GPU `{name.upper()}` is known here{meant}", *_gpu_key(entry))


def _gpu_key(entry: FormEntry) -> tuple[str, ...]:
    return ("resources", "gpu") if isinstance(entry.raw.get("resources"), dict) else ()


def run_contradictions(entry: FormEntry, spec: RunSpec, pool: Pool) -> Iterator[Problem]:
    """Why no instance of the pool could ever run it."""
    yield from gpu_slips(entry, spec.need.gpu)
    if pool.nodes_max is not None and spec.nodes > pool.nodes_max:
        yield entry.problem(
            f"no pool can fit it: {spec.nodes} nodes, and pool `{pool.name}` holds at most {pool.nodes_max}", "nodes"
        )
    for what, asked, had in (
        ("CPUs", spec.need.cpu, pool.need.cpu),
        ("memory (MiB)", spec.need.memory, pool.need.memory),
        ("disk (MiB)", spec.need.disk, pool.need.disk),
        ("GPUs", _gpus(spec.need.gpu), _gpus(pool.need.gpu)),
    ):
        # A share of an instance has less than it.
        if _apart(asked, had) and (pool.blocks == 1 or _apart(asked, Span(max=had.max))):
            yield entry.problem(
                f"no pool can fit it: it needs {_shown(asked)} {what}, and pool `{pool.name}` has {_shown(had)}",
                "resources",
            )
    yield from _elsewhere(entry, spec, pool)
    if spec.where.max_price is not None and pool.max_hourly is not None and pool.max_hourly == 0 and _never_free(pool):
        yield entry.problem(f"no pool can fit it: the budget of pool `{pool.name}` is $0/h")


def _elsewhere(entry: FormEntry, spec: RunSpec, pool: Pool) -> Iterator[Problem]:
    for key, mine, its in (
        ("backends", spec.where.backends, pool.where.backends),
        ("regions", spec.where.regions, pool.where.regions),
        ("availability_zones", spec.where.zones, pool.where.zones),
        ("instance_types", spec.where.instance_types, pool.where.instance_types),
    ):
        if mine and its and not set(mine) & set(its):
            yield entry.problem(
                f"no pool can fit it: `{key}` is {', '.join(mine)}, and pool `{pool.name}` has {', '.join(its)}", key
            )
    names, had = (spec.need.gpu.names if spec.need.gpu else ()), (pool.need.gpu.names if pool.need.gpu else ())
    if names and had and not set(names) & set(had):
        yield entry.problem(
            f"no pool can fit it: it needs a GPU {', '.join(names)}, and pool `{pool.name}` has {', '.join(had)}",
            "resources",
            "gpu",
        )


def _never_free(pool: Pool) -> bool:
    return bool(pool.where.backends) and LOCAL.name not in pool.where.backends


def _gpus(need: GpuNeed | None) -> Span:
    return need.count if need else Span()


def _apart(one: Span, other: Span) -> bool:
    return any(a is not None and b is not None and a > b for a, b in ((one.min, other.max), (other.min, one.max)))


def _shown(span: Span) -> str:
    if span.min == span.max:
        return str(span.min)
    return f"{'' if span.min is None else span.min}..{'' if span.max is None else span.max}"


def _over(pool: Pool, cost: Decimal, limit: Decimal, what: str) -> str:
    least = f"{counted(pool.nodes_min, 'instance')} at `max_price` ${pool.where.max_price}"
    return f"the minimum may cost ${cost}/h ({least}), over the {what} of ${limit}/h"
