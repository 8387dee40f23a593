"""Format the result of an apply as a Prometheus text file. Metrics are listed in docs/teams.md. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import get_args

from msgspec.structs import replace

from reconciler.report.differences import differences
from reconciler.state.status import InstanceStatus, alive, instance_status, jobs_by_instance
from reconciler.text.format import clean, pool_label
from schemas.instance import Instance
from schemas.plan import Plan
from schemas.run import RunStatus
from schemas.state import State

Labels = Mapping[str, str]
INSTANCE_STATUSES = [status for status in get_args(InstanceStatus) if status != "terminated"]


@dataclass(frozen=True, kw_only=True)
class Visit:
    """A tick that is over. `code` is the exit code; `state` and `plan` are `None` where it came to none."""

    project: str
    at: int
    seconds: float
    code: int
    state: State | None = None
    plan: Plan | None = None


@dataclass(frozen=True, kw_only=True)
class _Metric:
    name: str
    help: str
    samples: list[tuple[Labels, float | int | Decimal]] = field(default_factory=list)


def render_metrics(visit: Visit) -> str:
    """Every sample has the label `project`. Statuses are listed with 0 too, so that no series comes and goes."""
    found = [*_of_visit(visit), *(_of_state(visit.state) if visit.state else ()), *_of_plan(visit)]
    return "".join(line for metric in found for line in _lines(metric, project=visit.project))


def _of_visit(visit: Visit) -> Iterable[_Metric]:
    yield _one("last_tick_timestamp_seconds", "When the last tick ended.", visit.at)
    yield _one("last_tick_ok", "Whether the last tick ended with exit code 0.", int(visit.code == 0))
    yield _one("last_tick_exit_code", "How the last tick ended.", visit.code)
    yield _one("last_tick_duration_seconds", "How long the last tick took.", round(visit.seconds, 3))


def _one(name: str, help: str, value: float | int | Decimal) -> _Metric:
    return _Metric(name=name, help=help, samples=[({}, value)])


def _of_plan(visit: Visit) -> Iterable[_Metric]:
    if visit.plan is not None:
        yield _one("unmet", "Things wanted that do not happen now.", len(visit.plan.unmet))
        plan = replace(visit.plan, changes=())  # the apply that is measured has applied them
        yield _one("differences", "What differs from what is declared.", differences(plan, visit.state))


def _of_state(state: State) -> Iterable[_Metric]:
    living = [one for one in state.instances if alive(one)]
    pools = sorted({pool_label(one.pool) for one in living} | _declared(state))
    jobs = jobs_by_instance(state.attempts)
    seen = Counter((pool_label(one.pool), instance_status(one, jobs)) for one in living)
    hourly = {pool: Decimal(0) for pool in pools}
    for one in living:
        hourly[pool_label(one.pool)] += one.price or Decimal(0)
    runs = Counter(run.status for run in state.runs)
    places = [place for place in state.places if not place.forgotten]
    yield _one("state_generation", "Writes of the state so far.", state.generation)
    yield _Metric(
        name="instances",
        help="Instances alive, by pool and status.",
        samples=[
            ({"pool": pool, "status": status}, seen[pool, status]) for pool in pools for status in INSTANCE_STATUSES
        ],
    )
    yield _Metric(
        name="hourly_cost_dollars",
        help="What the instances alive cost an hour, where their price is known, by pool.",
        samples=[({"pool": pool}, hourly[pool]) for pool in pools],
    )
    yield _Metric(
        name="instances_missing",
        help="Instances below a pool's declared minimum.",
        samples=[({"pool": pool}, missing) for pool, missing in _missing(state, living).items()],
    )
    yield _one("instances_unpriced", "Instances alive without a known price.", sum(one.price is None for one in living))
    yield _Metric(
        name="runs",
        help="Runs remembered, by status.",
        samples=[({"status": status}, runs[status]) for status in get_args(RunStatus)],
    )
    yield _Metric(
        name="place_error",
        help="Whether a place could not be asked: nothing is done there.",
        samples=[({"place": place.name}, int(bool(place.error))) for place in places],
    )
    yield _Metric(
        name="place_observed_timestamp_seconds",
        help="When a place last answered; 0 is never.",
        samples=[({"place": place.name}, place.observed_at or 0) for place in places],
    )


def _missing(state: State, living: list[Instance]) -> dict[str, int]:
    """By declared pool; what is ending, or nobody owns, is not there."""
    there = Counter(pool_label(one.pool) for one in living if one.phase != "terminating" and not one.orphan)
    pools = state.applied.desired.pools if state.applied else ()
    return {pool.name: max(0, pool.floor - there[pool.name]) for pool in pools}


def _declared(state: State) -> set[str]:
    return {pool.name for pool in state.applied.desired.pools} if state.applied else set()


def _lines(metric: _Metric, *, project: str) -> Iterable[str]:
    name = f"dstack_{metric.name}"
    yield f"# HELP {name} {metric.help}\n# TYPE {name} gauge\n"
    for labels, value in metric.samples:
        shown = ",".join(f'{key}="{_label(text)}"' for key, text in {"project": project, **labels}.items())
        yield f"{name}{{{shown}}} {value}\n"


def _label(text: str) -> str:
    return clean(text).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
