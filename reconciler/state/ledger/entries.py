"""Derive ledger entries from a change of the state. The same fact always has the same id. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from reconciler.state.ledger.trust_entries import entries_of_trust
from schemas.instance import Instance
from schemas.ledger import Entry, EntryKind
from schemas.run import LIVE_JOB, RUN_ENDED, Job, Run
from schemas.state import State

EDITS = " with edits"


def entries(was: State | None, state: State, *, by: str, now: int) -> tuple[Entry, ...]:
    """One entry for each thing that is so in `state` and was not in `was`."""
    return (
        *_of_documents(was, state, by=by),
        *_of_instances(was, state, by=by, now=now),
        *_of_runs(was, state, by=by),
        *_of_jobs(was, state, by=by),
        *entries_of_trust(was, state, by=by, now=now),
    )


def billed_from(one: Instance) -> int:
    """Since when it bills at its present price."""
    return one.created_at if one.priced_at is None else one.priced_at


def billed_until(one: Instance, *, now: int) -> int:
    """Up to when it bills, as far as is known: the end that its place told, the first look that missed it, or now.

    An end that was noticed late is not billed until it was noticed.
    """
    if one.phase != "terminated":
        return now
    known = [moment for moment in (one.ended_at, one.missing_since, one.terminated_at) if moment is not None]
    return min(known, default=billed_from(one))


def boot_of(one: Instance, *, start: int, end: int) -> int:
    """Seconds of that interval before its host first answered: boot time is never idle time."""
    ready = end if one.ready_at is None else one.ready_at
    return max(0, min(ready, end) - start)


def used_until(job: Job, *, now: int) -> int:
    return now if job.ended_at is None else job.ended_at


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
        why=applied.revision.commit + (EDITS if applied.revision.commit and applied.revision.dirty else ""),
    )


def _of_instances(was: State | None, state: State, *, by: str, now: int) -> Iterator[Entry]:
    then = {one.id: one for one in was.instances} if was else {}
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
        if before is not None and _bills(before) and billed_from(before) < billed_from(one):
            yield _billed(before, until=billed_from(one), by=by)
        if one.phase == "terminated" and (before is None or before.phase != "terminated"):
            yield _instance(one, "ended" if one.external_id else "lost", at=one.terminated_at or now, by=by)
            if one.external_id:
                yield _billed(one, until=billed_until(one, now=now), by=by)


def _bills(one: Instance) -> bool:
    """Until it was seen, nothing was billed: its launch may have made nothing."""
    return one.phase != "terminated" and bool(one.external_id)


def _instance(one: Instance, kind: EntryKind, *, at: int, by: str, since: int | None = None) -> Entry:
    """`since` is an interval's beginning. What may happen again in the life of an instance has its time in its id."""
    key = f"{kind}:{one.id}" + (f":{since}" if since is not None else "")
    return Entry(
        id=f"{key}:{at}" if kind in ("ended", "ready", "billed") else key,
        at=at,
        kind=kind,
        subject=f"instance {one.id}",
        name=one.name,
        pool=one.pool,
        place=one.place,
        instance=one.id,
        instance_type=one.instance_type,
        spot=one.spot,
        price=one.price,
        seconds=0 if since is None else at - since,
        by=by,
        why=one.reason,
    )


def _billed(one: Instance, *, until: int, by: str) -> Entry:
    start = billed_from(one)
    end = max(start, until)
    told = _instance(one, "billed", at=end, by=by, since=start)
    return replace(told, boot=boot_of(one, start=start, end=end))


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
        tags=run.spec.tags,
        by=by,
        why=f"{run.status}: {run.reason}".rstrip(": ") if kind == "finished" else "",
    )


def _of_jobs(was: State | None, state: State, *, by: str) -> Iterator[Entry]:
    """Told of each job that is over, so that what it used is known when its run has left the state."""
    then = {attempt.id: attempt for attempt in was.attempts} if was else {}
    changed = [attempt for attempt in state.attempts if then.get(attempt.id) is not attempt]
    if not changed:
        return
    live = {job.id for attempt in then.values() for job in attempt.jobs if job.status in LIVE_JOB}
    runs = {run.id: run for run in state.runs}
    instances = {one.id: one for one in state.instances}
    for attempt in changed:
        for job in attempt.jobs:
            if job.started_at is None or job.status in LIVE_JOB or (attempt.id in then and job.id not in live):
                continue
            yield _used(job, runs.get(attempt.run), instances.get(job.instance), by=by)


def _used(job: Job, run: Run | None, one: Instance | None, *, by: str) -> Entry:
    began = job.started_at or 0
    end = max(began, job.ended_at or began)
    return Entry(
        id=f"used:{job.id}",
        at=end,
        kind="used",
        subject=f"run {run.id}" if run else f"instance {job.instance}",
        name=run.spec.name if run else "",
        pool=one.pool if one else run.spec.pool if run else "",
        run=run.id if run else "",
        user=run.user if run else "",
        place=one.place if one else "",
        instance=job.instance,
        instance_type=one.instance_type if one else "",
        spot=one.spot if one else False,
        price=one.price if one else None,
        seconds=end - began,
        blocks=job.blocks,
        tags=run.spec.tags if run else (),
        by=by,
        why=f"{job.status}: {job.reason}".rstrip(": "),
    )
