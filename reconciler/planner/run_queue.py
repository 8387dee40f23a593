"""Order pending runs by priority and age, and find those that may not start yet. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from reconciler.planner.draft import Draft
from reconciler.planner.rules.roll_services import is_ready, newer_version, wanted_replicas
from reconciler.planner.rules.stop_attempts import stays
from reconciler.state.job_results import UNSEEN
from reconciler.text.dates import clock
from schemas.run import Run


class Demand(NamedTuple):
    """One replica of a run that wants its nodes."""

    priority: int
    submitted_at: int
    id: str
    replica: int
    run: Run
    covered: bool = True
    """This plan may start it; else it only comes before those after it."""


def waiting(draft: Draft) -> list[Demand]:
    """Every replica that may start now, by priority, then age; for the others, why not is said."""
    return sorted(_demands(draft), key=lambda demand: demand[:4])


def _demands(draft: Draft) -> Iterator[Demand]:
    if draft.may.destroy_all:
        return
    for run in list(draft.runs.values()):
        if run.stop_reason or (run.superseded_by and newer_version(draft, run) is None):
            continue
        missing = _missing(draft, run)
        if not missing:
            continue
        covered = draft.covers(id=run.id, pool=run.spec.pool)
        why = _hindered(draft, run)
        if why and not covered:
            continue
        if why:
            draft.cannot(f"run {run.spec.name}", why, final=_final(draft, run))
            if run.not_before is None or draft.now >= run.not_before:
                remember(draft, run, why)
            continue
        for replica in missing:
            yield Demand(-run.spec.priority, run.submitted_at, run.id, replica, run, covered)


def _missing(draft: Draft, run: Run) -> list[int]:
    """The replicas without an attempt. One that moves keeps its number until it has ended."""
    if run.spec.type != "service":
        return [] if run.status != "submitted" or draft.live.get(run.id) else [0]
    attempts = draft.live.get(run.id, [])
    count = wanted_replicas(draft, run) - sum(stays(draft, attempt) for attempt in attempts)
    used = {attempt.replica for attempt in attempts}
    free = (replica for replica in range(run.spec.replicas + len(used)) if replica not in used)
    return [next(free) for _ in range(max(0, count))]


def _final(draft: Draft, run: Run) -> bool:
    """It lacks what only a change of the configuration or of this machine brings."""
    spec = run.spec
    return bool(spec.unsupported) or spec.name in draft.world.lacking or draft.pool_name(spec.pool) not in draft.pools


def _hindered(draft: Draft, run: Run) -> str:
    """Why it may not start yet, whatever there is to run on."""
    spec = run.spec
    if run.held and not draft.may.first_run:
        return "held since the state was rebuilt: `dstack apply --first-run` starts it"
    if spec.unsupported:
        return "; ".join(spec.unsupported)
    if spec.name in draft.world.lacking:
        return draft.world.lacking[spec.name]
    if draft.pool_name(spec.pool) not in draft.pools:
        return f"there is no pool {spec.pool}"
    if run.not_before is not None and draft.now < run.not_before:
        return f"{run.reason or 'tried again'}; not before {clock(run.not_before)}"
    return next(filter(None, (_lacks(draft, run, name) for name in spec.needs_services)), "")


def _lacks(draft: Draft, run: Run, name: str) -> str:
    """Why it cannot have that service yet; "" where one of its replicas is ready."""
    pool = draft.pool_name(run.spec.pool)
    services = [each for each in draft.runs.values() if each.spec.name == name and each.spec.type == "service"]
    here = [each for each in services if draft.pool_name(each.spec.pool) == pool and not each.stop_reason]
    if not here:
        return f"it needs service {name}, and there is none in pool {pool}: declare it, or start it there"
    if all(each.spec.port is None for each in here):
        return f"it needs service {name}, which has no `port`"
    if any(is_ready(draft, each, attempt) for each in here for attempt in draft.live.get(each.id, ())):
        return ""
    return f"waits until service {name} is ready"


def next_number(draft: Draft, run: Run, *, replica: int) -> int:
    """Attempts count from 1 for each replica, and after a rebuild from above all those that it may not have seen.

    A service's count is that of all its replicas together: whole hundreds of it are enough.
    """
    attempts = (*draft.live.get(run.id, ()), *draft.settled.get(run.id, ()))
    known = max((each.number for each in attempts if each.replica == replica), default=0)
    return max(known, run.attempts // UNSEEN * UNSEEN if run.spec.type == "service" else run.attempts) + 1


def remember(draft: Draft, run: Run, why: str) -> None:
    """What a waiting run waits for, as `ps` shows it; written only where it changed."""
    if run.status == "submitted" and run.reason != why and run.id in draft.runs:
        draft.update_run(run, why=why, quiet=True, reason=why)
