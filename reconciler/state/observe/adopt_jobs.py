"""After a rebuild, make attempts for jobs that hosts report and the state does not know. Pure.

Found at the rebuild, or when a host that was silent then answers for the first time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from msgspec.structs import replace

from reconciler.state.blocks import shared
from reconciler.state.job_results import UNSEEN
from schemas.desired import Desired
from schemas.instance import HostReport, Instance, JobReport
from schemas.run import RUN_ENDED, Attempt, Job, JobStatus, Run, RunSpec
from schemas.state import State

_STATUS: dict[str, JobStatus] = {"ended": "ended", "held": "assigned"}


def adopt(state: State, newcomers: Sequence[Instance], hosts: Mapping[str, HostReport], *, now: int) -> State:
    """The state with what runs on `newcomers`; a run that is held for want of a record is the one that was found."""
    if not newcomers or state.applied is None:
        return state
    runs, attempts = found_on(newcomers, hosts, desired=state.applied.desired, now=now, known=state)
    before = {run.id for run in state.runs}
    found = {run.spec.name for run in runs if run.id not in before}
    return replace(
        state, runs=tuple(run for run in runs if not (run.held and run.spec.name in found)), attempts=attempts
    )


def found_on(
    instances: Iterable[Instance],
    hosts: Mapping[str, HostReport],
    *,
    desired: Desired,
    now: int,
    known: State | None = None,
) -> tuple[tuple[Run, ...], tuple[Attempt, ...]]:
    """The runs and attempts of `known`, and what else the hosts have; nothing is found again of a run that ended."""
    specs = {spec.name: spec for spec in desired.runs}
    runs = {run.id: run for run in known.runs} if known else {}
    attempts = {attempt.id: attempt for attempt in known.attempts} if known else {}
    over = {run.id for run in runs.values() if run.status in RUN_ENDED}
    for instance in instances:
        report = hosts.get(instance.id)
        for job in report.jobs if report else ():
            parts = job.id.rsplit("-", 3)
            if len(parts) != 4 or not all(part.isdecimal() for part in parts[1:]) or job.phase == "absent":
                continue
            run, replica, number, rank = parts[0], int(parts[1]), int(parts[2]), int(parts[3])
            id = f"{run}-{replica}-{number}"
            began = past(job.started_at, now=now)
            fresh = Attempt(id=id, run=run, number=number, replica=replica, assigned_at=began, jobs=())
            attempt = attempts.get(id, fresh)
            if run in over or any(one.id == job.id for one in attempt.jobs):
                continue
            jobs = (*attempt.jobs, _job(job, instance, rank=rank, now=now))
            attempts[id] = _attempt(replace(attempt, jobs=tuple(sorted(jobs, key=lambda each: each.rank))))
            runs[run] = _run(run, runs.get(run), job, specs=specs, pool=instance.pool, number=number, now=now)
    return tuple(runs.values()), tuple(attempts.values())


def _attempt(attempt: Attempt) -> Attempt:
    """One of several nodes goes on where any of them runs; where all are held back, nobody knows which are missing."""
    if attempt.released_at is not None or attempt.stopping:
        return attempt
    if len(attempt.jobs) > 1 and any(job.status == "running" for job in attempt.jobs):
        return replace(attempt, released_at=attempt.assigned_at)
    if not any(job.held for job in attempt.jobs):
        begun = len(attempt.jobs) > 1 and any(job.started_at is not None for job in attempt.jobs)
        return replace(attempt, released_at=attempt.assigned_at) if begun else attempt
    return replace(attempt, stopping="not started: held back when the state was rebuilt")


def _job(job: JobReport, instance: Instance, *, rank: int, now: int) -> Job:
    started = None if job.started_at is None else past(job.started_at, now=now)
    return Job(
        id=job.id,
        instance=instance.id,
        rank=rank,
        status=_STATUS.get(job.phase, "running"),
        held=("staged" if job.staged else "preparing") if job.phase == "held" else "",
        port=job.port,
        blocks=shared(instance),  # how many it has is not known: nobody else gets any
        boot_id=instance.boot_id,
        started_at=started,
        ended_at=None if job.ended_at is None else past(job.ended_at, now=now, since=started or 0),
        exit_code=job.exit_code,
        interrupted=job.interrupted,
        reason=job.reason,
    )


def _run(
    id: str, known: Run | None, job: JobReport, *, specs: Mapping[str, RunSpec], pool: str, number: int, now: int
) -> Run:
    if known is not None:
        return replace(known, attempts=max(known.attempts, number + UNSEEN))
    declared = specs.get(job.run)
    spec = declared or RunSpec(name=job.run or f"recovered-{id}", pool=pool)
    return Run(
        id=id,
        spec=spec,
        origin="declared" if declared else "run",
        status="running",
        reason="found on its host by a rebuild",
        submitted_at=past(job.started_at, now=now),
        started_at=None if job.started_at is None else past(job.started_at, now=now),
        attempts=number + UNSEEN,
    )


def past(said: int | None, *, now: int, since: int = 0) -> int:
    """A moment that a host tells of, `now` where it tells of none: not before `since`, and never to come.

    A job may write any number there. One to come would keep its machine until then, as idle time counts from its last
    job's end; one of long ago would have its run forgotten at once.
    """
    return now if said is None else min(max(said, since), now)
