"""Stop running attempts whose run was stopped, removed or replaced. Pure.

A stop is a mark; the host does it, and the attempt counts as ended only when its host says so.
"""

from __future__ import annotations

from functools import partial

from reconciler.planner.draft import Draft
from reconciler.planner.rules.end_unanswering import end_unanswering
from reconciler.planner.rules.roll_services import surplus_of_old, tell_failing, tell_rollouts
from reconciler.state.job_results import DRAINED, NOT_STARTED, with_result
from reconciler.text.durations import words
from reconciler.text.format import counted
from schemas.plan import Stop
from schemas.run import Attempt, Job, Run

# The host enforces max_duration; the plan steps in only where it should long have.
OVERDUE = 600
GOES_ON = ("assigned", "running")
# Without getting any further; while one node is made ready, the others hold their machines for nothing.
READY = 1800
LAYER = 7200  # an engine tells of whole layers only, and one may be large


def halt(draft: Draft) -> None:
    """Stop what was asked to end, what lost a node, what outstayed, and replicas too many.

    The machine of an aborted run that does not answer is terminated.
    """
    for run in draft.runs.values():
        attempts = draft.live.get(run.id)
        if not attempts or not (draft.everything or draft.covers(id=run.id, pool=run.spec.pool)):
            continue
        for attempt in attempts:
            why = _reason(draft, run, attempt)
            if attempt.stopping and not (why and run.abort and not attempt.abort):
                draft.stopping[attempt.id] = attempt.stopping
            elif why:
                _stop(draft, run, attempt, why=why)
    # What versions have ready is counted once all stops that anything else asks for are known.
    for run in draft.runs.values():
        attempts = draft.live.get(run.id, []) if run.spec.type == "service" else None
        if attempts is not None and draft.covers(id=run.id, pool=run.spec.pool):
            for old, attempt, why in surplus_of_old(draft, run):
                _stop(draft, old, attempt, why=why, follows=True)
            _surplus(draft, run, attempts)
    tell_rollouts(draft)
    tell_failing(draft)
    end_unanswering(draft)


def _stop(draft: Draft, run: Run, attempt: Attempt, *, why: str, follows: bool = False) -> None:
    draft.stopping[attempt.id] = why
    draft.actions.append(
        Stop(
            run=run.id,
            name=run.spec.name,
            attempt=attempt.id,
            pool=draft.pool_name(run.spec.pool),
            why=why,
            abort=run.abort,
            follows=follows,
        )
    )


def _reason(draft: Draft, run: Run, attempt: Attempt) -> str:
    if run.stop_reason:
        return run.stop_reason
    for job in attempt.jobs:
        if job.status in GOES_ON:
            break
    else:
        return ""
    return _gang(draft, run, attempt) or _overdue(draft, run, attempt) or _drained(draft, attempt)


def _gang(draft: Draft, run: Run, attempt: Attempt) -> str:
    """All nodes or none: one that cannot be made ready keeps the others from starting, one that fails ends them."""
    why = _broken(run, attempt)
    if not attempt.held_back:
        return why
    why = why or next(filter(None, map(partial(_unready, draft, attempt), attempt.jobs)), "")
    return f"{NOT_STARTED}: {why}" if why else ""


def _unready(draft: Draft, attempt: Attempt, job: Job) -> str:
    """One that was never handed over, because nobody ticked, may still be: it is not waited for in vain."""
    one = draft.living.get(job.instance)
    if one is None or job.held == "staged":
        return ""
    if one.unreachable_since is not None:
        over = draft.silent(one) and draft.now >= attempt.assigned_at + draft.grace(one)
        why = f"node {job.rank} ({one.name}) was silent for {words(draft.grace(one))}"
        return f"{why}: {one.unreachable_why or 'no answer'}" if over else ""
    limit = LAYER if job.pulling else READY
    if not job.held or draft.now < max(attempt.assigned_at, job.moved_at or 0) + limit:
        return ""
    what = f" ({job.pulling})" if job.pulling else ""
    return f"node {job.rank} ({one.name}) got no further in {words(limit)}{what}"


def _broken(run: Run, attempt: Attempt) -> str:
    for job in attempt.jobs:
        if job.status in GOES_ON:
            continue
        failed = job.interrupted or job.exit_code or with_result(job, attempt).status == "failed"
        if job.status in ("failed", "lost") or (job.status == "ended" and failed):
            return f"node {job.rank} {_how(job.status, exit_code=job.exit_code, reason=job.reason)}"
        if job.status in ("terminated", "aborted"):
            return f"node {job.rank} was {job.status}: {job.reason or 'no reason given'}"
        if run.spec.stop_criteria == "master-done" and job.rank == 0 and job.status in ("ended", "done"):
            return "the master is done"
    return ""


def _how(status: str, *, exit_code: int | None, reason: str) -> str:
    if status == "lost":
        return f"was lost{f': {reason}' if reason else ''}"
    return f"failed: {reason or f'exit {exit_code}'}"


def _overdue(draft: Draft, run: Run, attempt: Attempt) -> str:
    limit = run.spec.max_duration
    if limit is None:
        return ""
    latest = draft.now - limit - max(OVERDUE, 60 + (run.spec.stop_duration or 0))
    for job in attempt.jobs:
        if job.status == "running" and job.started_at is not None and job.started_at <= latest:
            return f"max duration {words(limit)}"
    return ""


def _drained(draft: Draft, attempt: Attempt) -> str:
    for job in attempt.jobs:
        if job.instance not in draft.leaving:
            continue
        instance = draft.living.get(job.instance)
        if instance is not None and instance.drain_until is not None and draft.now >= instance.drain_until:
            return f"{instance.name} was to be {DRAINED}: {instance.draining}"
    return ""


# ---------------------------------------------------------------- services


def stays(draft: Draft, attempt: Attempt) -> bool:
    """It counts as one of its service's replicas: not stopping, on no machine that leaves."""
    return attempt.id not in draft.stopping and not any(job.instance in draft.leaving for job in attempt.jobs)


def _surplus(draft: Draft, run: Run, attempts: list[Attempt]) -> None:
    """Replicas that move are stopped when enough others run; those too many, the newest first."""
    staying = [attempt for attempt in attempts if stays(draft, attempt)]
    serving = [attempt for attempt in staying if all(job.status == "running" for job in attempt.jobs)]
    if len(serving) >= run.spec.replicas:
        for attempt in attempts:
            if attempt.id not in draft.stopping and attempt not in staying:
                _stop(draft, run, attempt, why="moved: its instance drains, and another replica runs")
    staying.sort(key=lambda attempt: (attempt not in serving, attempt.replica), reverse=True)
    for attempt in staying[: max(0, len(staying) - run.spec.replicas)]:
        _stop(draft, run, attempt, why=f"more than {counted(run.spec.replicas, 'replica')}")
