"""How jobs and attempts ended, the causes that `reconciler.state.settle` reads, and what is left of them. Pure."""

from __future__ import annotations

from typing import Literal

from msgspec.structs import replace

from reconciler.state.status import INTERRUPTED, POWERED_OFF, bought
from schemas.base import Value
from schemas.instance import Instance
from schemas.run import LIVE_JOB, Attempt, Job, Run, RunSpec
from schemas.state import State

Kind = Literal["done", "error", "interrupted", "stopped", "result lost"]
# More attempts than this, that a rebuild finds no trace of, no run has had.
UNSEEN = 100
RESULT_LOST = "result lost"
MAX_DURATION = "max duration"
INACTIVE = "inactive for"
NOT_STARTED = "not started"
ASSUMED_LOST = "assumed lost by a person"
# What a host says of a job that nobody ended (`reconciler.hosts.report`).
BY_ITSELF = ("exit ", "killed by signal ", "out of memory", "no image", "the container did", "no Python")
# What it says of a job that was asked to end, whatever its exit code was then (`reconciler.hosts.report`).
TOLD = ("stopped", "aborted")
DRAINED = "drained by now"


class Cause(Value, frozen=True, kw_only=True):
    """Why an attempt ended.

    done         every node (or the master, where that decides) gave 0
    error        a node gave another exit code, or could not be started
    interrupted  a machine or a node was lost before there was a result
    stopped      ended on request: ours, a person's, or by its max_duration
    result lost  there was a result, and it is gone: not repeated
    """

    kind: Kind
    reason: str = ""
    exit_code: int | None = None
    by_hand: bool = False
    """Of an interruption: the machine was bought and ended, and nothing says that its backend took it away."""


def cause_of(run: Run, attempt: Attempt) -> Cause:
    """Of a settled attempt: the node that went wrong first; those stopped after it are no cause."""
    jobs = attempt.jobs
    if all(job.status == "done" for job in jobs) or (
        run.spec.stop_criteria == "master-done" and jobs[0].rank == 0 and jobs[0].status == "done"
    ):
        return Cause(kind="done", exit_code=0)
    wrong = [job for job in jobs if job.status in ("failed", "lost")]
    if wrong:
        first = min(wrong, key=lambda job: (job.ended_at or 0, job.rank))
        cause = _cause(first)
        if len(jobs) > 1 and cause.reason:
            prefix = f"{NOT_STARTED}: " if attempt.held_back else ""
            cause = replace(cause, reason=f"{prefix}node {first.rank}: {cause.reason}")
        return cause
    ended = next(job for job in jobs if job.status in ("terminated", "aborted"))
    reason = attempt.stopping or ended.reason or ended.status
    apart = DRAINED in reason or reason.startswith(NOT_STARTED)
    kind: Kind = "interrupted" if apart else "stopped"
    return Cause(kind=kind, reason=reason, exit_code=ended.exit_code)


def _cause(job: Job) -> Cause:
    if job.status == "lost" and job.exit_code is not None:
        return Cause(kind="result lost", reason=RESULT_LOST, exit_code=job.exit_code)
    if job.reason == RESULT_LOST:
        return Cause(kind="result lost", reason=RESULT_LOST, exit_code=job.exit_code)
    if job.status == "lost" or job.interrupted:
        reason = job.reason or "its machine was lost"
        return Cause(kind="interrupted", reason=reason, exit_code=job.exit_code, by_hand=job.by_hand)
    if job.reason.startswith(MAX_DURATION):
        return Cause(kind="stopped", reason=job.reason, exit_code=job.exit_code)
    return Cause(kind="error", reason=job.reason or f"exit {job.exit_code}", exit_code=job.exit_code)


# ---------------------------------------------------------------- jobs that no host will speak of any more


def settle_jobs(state: State, *, now: int) -> State:
    """Live jobs of machines proven gone or powered off, and of unreachable ones that a person gave up, are lost."""
    gone = {one.id: one for one in state.instances if one.phase == "terminated" or one.stopped}
    assumed = {run.id for run in state.runs if run.assume_lost}
    halting = any(attempt.stopping and attempt.held_back and attempt.live for attempt in state.attempts)
    dark = {one.id: one for one in state.instances if one.unreachable_since is not None} if assumed or halting else {}
    given_up: dict[str, list[str]] = {}
    attempts = tuple(
        _settle(attempt, gone=gone, dark=dark, assumed=attempt.run in assumed, given_up=given_up, now=now)
        for attempt in state.attempts
    )
    if attempts != state.attempts:
        state = replace(state, attempts=attempts)
    if not (assumed or given_up):
        return state
    runs = tuple(replace(run, assume_lost=False) if run.assume_lost else run for run in state.runs)
    instances = tuple(
        replace(one, stray_jobs=tuple(sorted({*one.stray_jobs, *given_up[one.id]}))) if one.id in given_up else one
        for one in state.instances
    )
    return replace(state, runs=runs, instances=instances)


def _settle(
    attempt: Attempt,
    *,
    gone: dict[str, Instance],
    dark: dict[str, Instance],
    assumed: bool,
    given_up: dict[str, list[str]],
    now: int,
) -> Attempt:
    jobs = attempt.jobs
    if not attempt.live and all(job.ended_at is not None for job in jobs):
        return attempt
    settled = []
    for job in jobs:
        if job.status in LIVE_JOB and job.instance in gone:
            one = gone[job.instance]
            had = one.reason.startswith(POWERED_OFF) and not attempt.held_back
            job = _gone(
                job, attempt, reason=one.reason or "its machine ended", at=one.terminated_at or now, had_result=had
            )
            job = replace(job, by_hand=job.status == "lost" and _by_hand(one))
        elif job.status == "assigned" and job.instance in dark and attempt.stopping and attempt.held_back:
            # Its release was never written, and never will be: what its host holds back runs nothing.
            given_up.setdefault(job.instance, []).append(job.id)
            job = replace(job, status="terminated", held="", reason=attempt.stopping, ended_at=now)
        elif assumed and job.status in LIVE_JOB and job.instance in dark:
            given_up.setdefault(job.instance, []).append(job.id)
            job = _lost(job, reason=ASSUMED_LOST, at=now)
        elif job.status not in LIVE_JOB and job.ended_at is None:
            job = replace(job, ended_at=now)
        settled.append(job)
    return replace(attempt, jobs=tuple(settled)) if tuple(settled) != jobs else attempt


def _by_hand(one: Instance) -> bool:
    """Only what its backend says it took away is an interruption; an unknown end is none, since a retry costs money."""
    return bought(one) and bool(one.external_id) and not one.reason.startswith(INTERRUPTED)


def _gone(job: Job, attempt: Attempt, *, reason: str, at: int, had_result: bool) -> Job:
    """A job whose machine ended: as asked for, where its end was, else lost."""
    if attempt.stopping and job.status != "ended" and not had_result:
        return replace(job, status="aborted" if attempt.abort else "terminated", reason=attempt.stopping, ended_at=at)
    return _lost(job, reason=reason, at=at, had_result=had_result)


def _lost(job: Job, *, reason: str, at: int, had_result: bool = False) -> Job:
    """A job that had ended had a result, which went with the machine.

    One on a machine that powered itself off had one too, whether or not we saw it: the timer leaves running jobs alone.
    """
    if job.status == "ended" or had_result:
        return replace(job, status="failed", reason=RESULT_LOST, ended_at=job.ended_at or at)
    return replace(job, status="lost", reason=reason, ended_at=at)


def with_result(job: Job, attempt: Attempt) -> Job:
    """A job whose result is stored, with its final status and the reason for it.

    Exit code 0 is a success only where the host gives no other reason for the end: a program that saves its work when
    it is told to end, and then exits with 0, has not finished.
    """
    if job.reason.startswith((INACTIVE, MAX_DURATION)):
        return replace(job, status="terminated")
    if job.exit_code == 0 and not job.interrupted and not job.reason:
        return replace(job, status="done")
    if (attempt.stopping or job.reason in TOLD) and not job.reason.startswith(BY_ITSELF):
        return replace(job, status="terminated", reason=attempt.stopping or job.reason)
    return replace(job, status="failed", reason=job.reason or f"exit {job.exit_code}")


def last_artifacts(state: State, spec: RunSpec, attempt: Attempt, *, rank: int) -> tuple[Attempt, Job] | None:
    """Give the newest attempt before `attempt` of the same run and replica whose node `rank` left artifacts.

    None where there is no such attempt, or where `spec` restores nothing. A run that was changed or is run again has
    another record, and so no earlier attempts.
    """
    if spec.restore == "none":
        return None
    before = [
        (one, job)
        for one in state.attempts
        if (one.run, one.replica) == (attempt.run, attempt.replica) and one.number < attempt.number
        for job in one.jobs
        if job.rank == rank and job.artifacts
    ]
    return max(before, key=lambda pair: pair[0].number, default=None)
