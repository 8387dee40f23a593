"""Settle attempts: end their runs, or schedule a retry. Pure.

Called after every `absorb` and `fold`, so that a result and the end of its run are one write.
A run is tried again only when each job of the old attempt is proven ended; a result that
existed and is gone is `result lost`, and is never repeated in silence.
"""

from __future__ import annotations

from msgspec.structs import replace

from reconciler.state.drains import INSTANCE
from reconciler.state.job_results import DRAINED, UNSEEN, Cause, cause_of, settle_jobs
from reconciler.state.quarantine import quarantine
from reconciler.state.relaunch.end_requests import end_requests
from reconciler.state.relaunch.launch_backoff import current_backoffs
from schemas.base import Seconds
from schemas.instance import Instance
from schemas.run import RUN_ENDED, Attempt, Job, Run, RunStatus
from schemas.state import Override, State

# Backoff before an error is tried again: 15 s, 30 s, 1 min … at most 10 min.
FIRST_WAIT = 15
LONGEST_WAIT = 600
# A replica that held this long does not inherit the waits of those before it.
STABLE = 600
# No place is left alone for longer: what is to hold beyond it was written by a clock that is ahead.
SHUNNED = 3600


def conclude(state: State, *, now: int, lapses: bool = True) -> State:
    """The state with every consequence of its facts drawn; the same state where there is none.

    Without `lapses` nothing ends because its time is over: two clocks disagree.
    """
    state = _released(settle_jobs(state, now=now), now=now)
    attempts: dict[str, list[Attempt]] = {}
    for attempt in state.attempts:
        attempts.setdefault(attempt.run, []).append(attempt)
    runs = tuple(
        run if run.status in RUN_ENDED else _run(_patient(run, now=now), attempts.get(run.id, []), now=now)
        for run in state.runs
    )
    state = _changed(state, runs=runs)
    state = _changed(state, instances=_last_ends(state))
    state = end_requests(quarantine(state, now=now), now=now if lapses else None)
    state = current_backoffs(state, now=now) if lapses else state
    return _expire(state, now=now, lapses=lapses)


def would_lapse(state: State, *, now: int) -> bool:
    """Whether an override of a person ends because its time is over."""
    return any(one.until is not None and one.until <= now for one in state.overrides)


def _changed(state: State, **fields: tuple[object, ...]) -> State:
    """Only what differs is replaced: an unchanged state stays the same object."""
    different = {name: value for name, value in fields.items() if getattr(state, name) != value}
    return replace(state, **different) if different else state


def _released(state: State, *, now: int) -> State:
    """An attempt of which every node is staged goes on, wherever it stands; written before any host is told."""
    if not any(attempt.held_back and not attempt.stopping for attempt in state.attempts):
        return state
    return _changed(
        state,
        attempts=tuple(
            replace(attempt, released_at=now)
            if attempt.held_back and not attempt.stopping and all(_waits(job) for job in attempt.jobs)
            else attempt
            for attempt in state.attempts
        ),
    )


def _patient(run: Run, *, now: int) -> Run:
    """No retry waits for longer than the longest backoff: what is to hold beyond it was written by a clock ahead."""
    ahead = run.not_before is not None and run.not_before > now + 2 * LONGEST_WAIT
    return replace(run, not_before=None) if ahead else run


def _waits(job: Job) -> bool:
    return job.status == "assigned" and job.held == "staged" and not job.halted


def _run(run: Run, attempts: list[Attempt], *, now: int) -> Run:
    live = [attempt for attempt in attempts if attempt.live]
    if run.stop_reason and not live:
        return _stopped(run, attempts, now=now)
    if run.stop_reason:
        return replace(run, status="terminating")
    if run.spec.type == "service":
        return _service(run, attempts, live=live, now=now)
    if live:
        return _under_way(run, live)
    if not attempts or run.status == "submitted":
        return run
    return _task_ended(run, max(attempts, key=lambda attempt: attempt.number), now=now)


# ---------------------------------------------------------------- under way


def _under_way(run: Run, live: list[Attempt]) -> Run:
    """`running` once every node of an attempt has started; before that, `provisioning`."""
    whole = [attempt for attempt in live if all(job.status != "assigned" for job in attempt.jobs)]
    if not whole:
        return run if run.status in ("provisioning", "running") else replace(run, status="provisioning")
    started = [job.started_at for attempt in whole for job in attempt.jobs if job.started_at is not None]
    return replace(run, status="running", reason="", started_at=run.started_at or max(started, default=None))


def _stopped(run: Run, attempts: list[Attempt], *, now: int) -> Run:
    """Asked to end, and ended. One that had ended by itself before it was told is what it was: done or failed."""
    last = max(attempts, key=lambda attempt: attempt.number, default=None)
    code = None
    if last is not None and run.spec.type == "task" and run.status != "submitted":
        cause = cause_of(run, last)
        if cause.kind in ("done", "error"):
            return _ended(run, "done" if cause.kind == "done" else "failed", cause=cause, attempt=last, now=now)
        code = cause.exit_code
    cause = Cause(kind="stopped", reason=run.stop_reason, exit_code=code)
    return _ended(run, "aborted" if run.abort else "terminated", cause=cause, attempt=last, now=now)


def _ended(run: Run, status: RunStatus, *, cause: Cause, attempt: Attempt | None, now: int) -> Run:
    ends = [job.ended_at for job in attempt.jobs if job.ended_at is not None] if attempt else []
    return replace(
        run,
        status=status,
        reason=cause.reason,
        exit_code=cause.exit_code,
        finished_at=max(ends, default=now),
        settled_at=now,
        not_before=None,
        wait_until=None,
    )


# ---------------------------------------------------------------- a task's attempt has ended


def _task_ended(run: Run, attempt: Attempt, *, now: int) -> Run:
    cause = cause_of(run, attempt)
    if cause.kind == "done":
        return _ended(run, "done", cause=cause, attempt=attempt, now=now)
    retry = run.spec.retry
    retry_ends = retry.error if cause.by_hand else retry.interruption
    again = {"interrupted": retry_ends, "error": retry.error}.get(cause.kind, False)
    # A machine was lost before anything ran on any: trying again repeats nothing.
    unbegun = attempt.held_back and cause.kind == "interrupted"
    # Whoever drains moves what runs there: that is neither a failure nor an end of the run. An `autoscale` command is
    # meant to end runs: it lists them and asks first.
    moved = DRAINED in attempt.stopping and f"{DRAINED}: autoscale" not in attempt.stopping
    moved = moved and cause.kind == "interrupted"
    if (again or unbegun or moved) and not run.superseded_by:
        wait = 0 if cause.kind == "interrupted" and not unbegun else _backoff(attempt.number)
        window = retry.duration if again or unbegun else None
        return _again(run, cause=cause, wait=wait, window=window, now=now)
    status: RunStatus = "terminated" if cause.kind == "stopped" else "failed"
    return _ended(run, status, cause=cause, attempt=attempt, now=now)


def _again(run: Run, *, cause: Cause, wait: Seconds, window: Seconds | None, now: int) -> Run:
    """Its window counts from the event: until then it waits for capacity, later it fails."""
    return replace(
        run,
        status="submitted",
        reason=f"again after: {cause.reason}",
        not_before=now + wait if wait else None,
        wait_until=None if window is None else now + wait + window,
        exit_code=None,
    )


def _backoff(number: int) -> Seconds:
    # After a rebuild attempts count on from above a hundred.
    return min(LONGEST_WAIT, FIRST_WAIT << min((number - 1) % UNSEEN, 10))


# ---------------------------------------------------------------- a service keeps its replicas


def _service(run: Run, attempts: list[Attempt], *, live: list[Attempt], now: int) -> Run:
    """It has no end of its own: what ended is made anew, later and later while it does not hold."""
    ended = [attempt for attempt in attempts if not attempt.live]
    run = _service_wait(run, ended, now=now)
    if live:
        return _under_way(run, live)
    if not attempts or run.status == "submitted":
        return run
    if run.superseded_by:
        last = max(ended, key=lambda attempt: attempt.number)
        return _ended(run, "terminated", cause=Cause(kind="stopped", reason="superseded"), attempt=last, now=now)
    cause = cause_of(run, max(ended, key=_end_of))
    return replace(run, status="submitted", reason=f"again after: {cause.reason}")


def _service_wait(run: Run, ended: list[Attempt], *, now: int) -> Run:
    """Counts from the newest end that was not our own doing."""
    failed = [attempt for attempt in ended if not attempt.stopping]
    if not failed:
        return run
    last = max(failed, key=lambda attempt: (_end_of(attempt), attempt.number))
    begun = [job.started_at for job in last.jobs if job.started_at is not None]
    held = bool(begun) and _end_of(last) - min(begun) >= STABLE
    if held or cause_of(run, last).kind == "interrupted":
        return run
    until = _end_of(last) + _backoff(last.number)
    return replace(run, not_before=until) if until > now else run


def _end_of(attempt: Attempt) -> int:
    return max((job.ended_at or 0 for job in attempt.jobs), default=0)


# ---------------------------------------------------------------- what lapses


def _last_ends(state: State) -> tuple[Instance, ...]:
    """An idle instance's clock starts at the end of its last job."""
    ends: dict[str, int] = {}
    for attempt in state.attempts:
        for job in attempt.jobs:
            if _over(job) and job.ended_at is not None and job.ended_at > ends.get(job.instance, 0):
                ends[job.instance] = job.ended_at
    if not ends:
        return state.instances
    return tuple(
        replace(one, last_job_end=end)
        if (end := ends.get(one.id)) is not None and one.phase != "terminated" and end > (one.last_job_end or 0)
        else one
        for one in state.instances
    )


def _over(job: Job) -> bool:
    return job.status in ("done", "failed", "terminated", "aborted", "lost")


def _expire(state: State, *, now: int, lapses: bool) -> State:
    """Remove overrides and capacity memory whose time is over."""
    digest, gone = state.applied.revision.digest if state.applied else "", _gone(state)
    return _changed(
        state,
        overrides=tuple(
            each
            for each in state.overrides
            if _in_force(each, digest=digest, now=now if lapses else None) and each.subject not in gone
        ),
        capacity=tuple(each for each in state.capacity if not lapses or now < each.until <= now + SHUNNED),
    )


def _gone(state: State) -> frozenset[str]:
    """The subjects of overrides of instances that are no more: another one of that name is another one."""
    if not any(each.subject.startswith(INSTANCE) for each in state.overrides):
        return frozenset()
    known = {one.id: one for one in state.instances}
    named = (each.subject for each in state.overrides if each.subject.startswith(INSTANCE))
    return frozenset(
        subject
        for subject in named
        if (one := known.get(subject.removeprefix(INSTANCE))) is None or one.phase == "terminated"
    )


def _in_force(override: Override, *, digest: str, now: int | None) -> bool:
    """`now` None: it does not end for reasons of time."""
    if now is not None and override.until is not None and override.until <= now:
        return False
    return override.kind != "autoscale" or override.digest == digest
