"""A result whose host is gone, from where the host itself put it: then it is collected, and not lost."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from reconciler.absorb_hosts import reported
from reconciler.fold import Collected, fold
from reconciler.ports import Ports
from schemas.instance import JobReport
from schemas.run import LIVE_JOB, Attempt, Job
from schemas.state import State

Found = tuple[JobReport, Collected]


def recover(ports: Ports, state: State, *, known: dict[str, Found | None], now: int) -> State:
    """`state` with the results of jobs whose machine ended, or was given up. `known` keeps what was asked before."""
    for attempt, job in list(_gone(state)) if ports.delivered is not None else ():
        if job.id not in known:
            known[job.id] = _asked(ports, job.id)
        found = known[job.id]
        if found is not None:
            state = _with(state, reported(job, found[0], attempt=attempt, now=now))
            state = fold(state, [found[1]], now=now)
    return state


def _asked(ports: Ports, job: str) -> Found | None:
    """What the host said of its end, and its result in the store."""
    found = ports.delivered(job) if ports.delivered is not None else None
    if found is None:
        return None
    try:
        return found.end, Collected(
            job=job,
            log=ports.blobs.put(found.log) if found.log else "",
            artifacts=(ports.artifacts or ports.blobs).put(found.artifacts) if found.artifacts else "",
            notes=("its host is gone: this is what it stored itself", *found.notes),
        )
    finally:
        found.discard()


def _gone(state: State) -> Iterator[tuple[Attempt, Job]]:
    """Live jobs that no host will speak of any more."""
    given_up = {run.id for run in state.runs if run.assume_lost}
    gone = {one.id for one in state.instances if one.phase == "terminated"}
    dark = {one.id for one in state.instances if one.unreachable_since is not None}
    for attempt in state.attempts:
        for job in attempt.jobs:
            over = job.instance in gone or (attempt.run in given_up and job.instance in dark)
            if job.status in LIVE_JOB and job.started_at is not None and over:
                yield attempt, job


def _with(state: State, job: Job) -> State:
    attempts = tuple(
        replace(attempt, jobs=tuple(job if one.id == job.id else one for one in attempt.jobs))
        if any(one.id == job.id for one in attempt.jobs)
        else attempt
        for attempt in state.attempts
    )
    return replace(state, attempts=attempts)
