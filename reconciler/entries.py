"""What the ledger is told of a change of state. Pure. The same thing has the same id whenever it is told."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from schemas.instance import Instance
from schemas.ledger import Entry, EntryKind
from schemas.run import RUN_ENDED, Job, Run
from schemas.state import State


def entries(was: State | None, state: State, *, by: str) -> tuple[Entry, ...]:
    """One entry for each thing that is so in `state` and was not in `was`."""
    return (*_of_instances(was, state, by=by), *_of_runs(was, state, by=by), *_of_documents(was, state, by=by))


def _of_documents(was: State | None, state: State, *, by: str) -> Iterator[Entry]:
    applied = state.applied
    if applied is None or not applied.revision.digest or (was and was.applied == applied):
        return
    yield Entry(
        id=f"applied:{applied.revision.digest[:16]}:{applied.at}",
        at=applied.at,
        kind="applied",
        subject="project",
        by=by,
        why=applied.revision.commit,
    )


def _of_instances(was: State | None, state: State, *, by: str) -> Iterator[Entry]:
    then = {one.id: one for one in was.instances} if was else {}
    jobs: dict[str, list[Job]] | None = None
    for one in state.instances:
        before = then.get(one.id)
        if before is one:
            continue
        if before is None:
            yield _instance(one, "launched", at=one.created_at, by=by)
        if one.seen_at is not None and (before is None or before.seen_at is None):
            yield _instance(one, "seen", at=one.seen_at, by=by)
        if one.ready_at is not None and (before is None or before.ready_at is None):
            yield _instance(one, "ready", at=one.ready_at, by=by)
        if one.phase == "terminated" and (before is None or before.phase != "terminated"):
            yield _instance(one, "ended" if one.external_id else "lost", at=one.terminated_at or 0, by=by)
            if one.external_id:
                jobs = _jobs_by_instance(state) if jobs is None else jobs
                yield _billed(one, jobs.get(one.id, ()), by=by)


def _jobs_by_instance(state: State) -> dict[str, list[Job]]:
    found: dict[str, list[Job]] = {}
    for attempt in state.attempts:
        for job in attempt.jobs:
            found.setdefault(job.instance, []).append(job)
    return found


def _instance(one: Instance, kind: EntryKind, *, at: int, by: str, seconds: int = 0, idle: int = 0) -> Entry:
    return Entry(
        id=f"{kind}:{one.id}",
        at=at,
        kind=kind,
        subject=f"instance {one.id}",
        name=one.name,
        pool=one.pool,
        place=one.place,
        instance_type=one.instance_type,
        spot=one.spot,
        price=one.price,
        seconds=seconds,
        idle=idle,
        by=by,
        why=one.reason,
    )


def _billed(one: Instance, jobs: Iterable[Job], *, by: str) -> Entry:
    """From its making to its end; idle is whatever no job used."""
    end = one.terminated_at or 0
    seconds = max(0, end - one.created_at)
    busy = sum(max(0, (job.ended_at or end) - job.started_at) for job in jobs if job.started_at is not None)
    return _instance(one, "billed", at=end, by=by, seconds=seconds, idle=max(0, seconds - busy))


def _of_runs(was: State | None, state: State, *, by: str) -> Iterator[Entry]:
    then = {run.id: run for run in was.runs} if was else {}
    for run in state.runs:
        before = then.get(run.id)
        if before is run:
            continue
        if before is None:
            yield _run(run, "submitted", at=run.submitted_at, by=by)
        if run.started_at is not None and (before is None or before.started_at is None):
            yield _run(run, "started", at=run.started_at, by=by)
        if run.status in RUN_ENDED and (before is None or before.status not in RUN_ENDED):
            yield _run(run, "finished", at=run.finished_at or run.submitted_at, by=by)


def _run(run: Run, kind: EntryKind, *, at: int, by: str) -> Entry:
    return Entry(
        id=f"{kind}:{run.id}",
        at=at,
        kind=kind,
        subject=f"run {run.id}",
        name=run.spec.name,
        pool=run.spec.pool,
        run=run.id,
        user=run.user,
        by=by,
        why=f"{run.status}: {run.reason}".rstrip(": ") if kind == "finished" else "",
    )
