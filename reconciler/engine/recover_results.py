"""Collect the result of a host that is gone from where the host uploaded it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from msgspec.structs import replace

from reconciler.engine.ports import Ports
from reconciler.state.observe.hosts import reported
from reconciler.state.record_outcomes import ResultCollected, fold
from reconciler.store.blobs.folder import BlobError, Blobs
from reconciler.text.format import clean
from schemas.instance import JobReport
from schemas.run import LIVE_JOB, Attempt, Job
from schemas.state import State

MOST = 8  # notes of one job that a person is told


class Recovered(NamedTuple):
    """A job's end and its result in the store, where there is one; `notes` say what could not be had of it."""

    end: JobReport | None = None
    result: ResultCollected | None = None
    notes: tuple[str, ...] = ()


def recover(ports: Ports, state: State, *, known: dict[str, Recovered], now: int) -> tuple[State, tuple[str, ...]]:
    """`state` with the results of jobs whose machine ended, or was given up, and what could not be had of them.

    `known` keeps what was asked before. Nothing that one host put stops the tick of all.
    """
    warnings: tuple[str, ...] = ()
    for attempt, job in list(_gone(state)) if ports.delivered is not None else ():
        if job.id not in known:
            known[job.id] = _guarded(ports, job.id)
        found = known[job.id]
        warnings += tuple(f"the result of {job.id}: {clean(note)[:400]}" for note in _few(found.notes))
        if found.end is not None and found.result is not None:
            state = _with(state, reported(job, found.end, attempt=attempt, now=now))
            state = fold(state, [found.result], now=now)
    return state, warnings


def _guarded(ports: Ports, job: str) -> Recovered:
    try:
        return _asked(ports, job)
    except Exception as error:  # of a kind that nobody foresaw: told, and the others' tick goes on
        return Recovered(notes=(f"cannot be read, and counts as lost: {type(error).__name__}: {error}",))


def _asked(ports: Ports, job: str) -> Recovered:
    """What the host said of its end, and its result in the store."""
    found = ports.delivered(job) if ports.delivered is not None else None
    if found is None:
        return Recovered()
    try:
        log, why = _stored(ports.blobs, found.log, what="log")
        artifacts, more = _stored(ports.artifacts or ports.blobs, found.artifacts, what="artifacts")
        notes = (*found.notes, *why, *more)
        said = ("its host is gone: this is what it stored itself", *notes)
        return Recovered(found.end, ResultCollected(job=job, log=log, artifacts=artifacts, notes=said), notes)
    finally:
        found.discard()


def _stored(blobs: Blobs, path: Path | None, *, what: str) -> tuple[str, tuple[str, ...]]:
    """The digest; "" for what is not there, or cannot be kept: then why."""
    try:
        return (blobs.put(path) if path is not None else ""), ()
    except (BlobError, OSError) as error:
        return "", (f"{what} could not be kept: {error}",)


def _few(notes: tuple[str, ...]) -> tuple[str, ...]:
    return notes if len(notes) <= MOST else (*notes[:MOST], f"and {len(notes) - MOST} more")


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
