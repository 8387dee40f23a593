"""What came of effects, into memory. Pure, and true of any later state: a fold can be rebased.

A fold touches only a record that is still as the effect found it; whatever else happened to
the record meanwhile is newer, and wins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec.structs import replace

from reconciler.settled import MAX_DURATION
from schemas.base import Value
from schemas.instance import Instance
from schemas.run import Attempt, Job
from schemas.state import Capacity, State


class Sent(Value, frozen=True, kw_only=True):
    """The place took the launch. No proof: it closes when its machines are seen. `hints` are external ids."""

    intent: str
    hints: tuple[str, ...] = ()


class Refused(Value, frozen=True, kw_only=True):
    """The place promises that it made nothing. `capacity` keeps us from asking again too soon."""

    intent: str
    why: str
    capacity: Capacity


class Accepted(Value, frozen=True, kw_only=True):
    """The place will end these machines. No proof either: only a listing says ended."""

    place: str
    external_ids: tuple[str, ...]


class Started(Value, frozen=True, kw_only=True):
    """The host claimed the job and its supervisor began, in the boot that we know of."""

    job: str
    boot_id: str
    at: int


class StartFailed(Value, frozen=True, kw_only=True):
    """The host did not start it, and would not if asked again."""

    job: str
    why: str
    at: int


class Halted(Value, frozen=True, kw_only=True):
    """The host will end the job, and refuses to start it from now on."""

    job: str


class Collected(Value, frozen=True, kw_only=True):
    """An ended job's log and artifacts are blobs. `notes` say what was left out."""

    job: str
    log: str
    artifacts: str = ""
    notes: tuple[str, ...] = ()


class Cleaned(Value, frozen=True, kw_only=True):
    """The job's folder is gone from its host."""

    job: str
    instance: str


class Failed(Value, frozen=True, kw_only=True):
    """An effect that came to nothing yet: it stays marked, and the next tick does it again."""

    subject: str
    why: str


class Ahead(Value, frozen=True, kw_only=True):
    """The host has seen a newer generation: another reconciler is ahead of us."""

    subject: str
    why: str


Outcome = Sent | Refused | Accepted | Started | StartFailed | Halted | Collected | Cleaned | Failed | Ahead


def fold(state: State, outcomes: Sequence[Outcome], *, now: int) -> State:
    """The state with the outcomes in it, whatever it has become since the effects began."""
    for outcome in outcomes:
        state = _fold(state, outcome, now=now)
    return state


def _fold(state: State, outcome: Outcome, *, now: int) -> State:
    match outcome:
        case Sent():
            return _sent(state, outcome)
        case Refused():
            return _refused(state, outcome, now=now)
        case Started():
            return _with_job(state, outcome.job, lambda job, _: _started(job, outcome))
        case StartFailed():
            return _with_job(state, outcome.job, lambda job, _: _start_failed(job, outcome))
        case Halted():
            return _with_job(state, outcome.job, lambda job, _: replace(job, halted=True))
        case Collected():
            return _collected(state, outcome, now=now)
        case Cleaned():
            return _cleaned(state, outcome)
        case Accepted() | Failed() | Ahead():
            return state


def _sent(state: State, sent: Sent) -> State:
    intents = tuple(
        replace(intent, sent=intent.sent + 1, hints=sent.hints or intent.hints) if intent.id == sent.intent else intent
        for intent in state.intents
    )
    return replace(state, intents=intents)


def _refused(state: State, refused: Refused, *, now: int) -> State:
    """Nothing was made, so nothing can appear: what is still pending of it ends here."""
    ids = {id for intent in state.intents if intent.id == refused.intent for id in intent.request.ids}
    kept = tuple(known for known in state.capacity if _offer(known) != _offer(refused.capacity))
    return replace(
        state,
        intents=tuple(intent for intent in state.intents if intent.id != refused.intent),
        instances=tuple(_never(one, why=refused.why, now=now) if one.id in ids else one for one in state.instances),
        capacity=(*kept, refused.capacity),
    )


def _never(instance: Instance, *, why: str, now: int) -> Instance:
    if instance.external_id or instance.phase == "terminated":
        return instance
    return replace(instance, phase="terminated", reason=why, terminated_at=now)


def _offer(capacity: Capacity) -> tuple[str, str, str, bool]:
    return capacity.place, capacity.instance_type, capacity.zone, capacity.spot


def _started(job: Job, started: Started) -> Job:
    """Claimed and started in one command: the answer of that command is the host's word."""
    if job.status != "assigned":
        return job
    return replace(job, status="running", boot_id=started.boot_id, started_at=started.at)


def _start_failed(job: Job, failed: StartFailed) -> Job:
    if job.status != "assigned":
        return job
    return replace(job, status="failed", reason=failed.why, ended_at=failed.at)


def _collected(state: State, collected: Collected, *, now: int) -> State:
    """The job's end, with its result; its folder on the host is then nobody's need."""
    hosts = {job.instance for attempt in state.attempts for job in attempt.jobs if job.id == collected.job}
    state = _with_job(state, collected.job, lambda job, attempt: _ended(job, attempt, collected, now=now))
    return _on_instances(state, hosts, lambda one: replace(one, stray_jobs=_with(one.stray_jobs, collected.job)))


def _ended(job: Job, attempt: Attempt, collected: Collected, *, now: int) -> Job:
    if job.status != "ended":
        return job
    job = replace(job, log=collected.log, artifacts=collected.artifacts, ended_at=job.ended_at or now)
    if attempt.stopping and not (job.exit_code == 0 and not job.interrupted):
        return replace(job, status="terminated", reason=attempt.stopping)
    if job.exit_code == 0 and not job.interrupted:
        return replace(job, status="done", reason="")
    if job.reason.startswith(MAX_DURATION):
        return replace(job, status="terminated")
    return replace(job, status="failed", reason=job.reason or f"exit {job.exit_code}")


def _cleaned(state: State, cleaned: Cleaned) -> State:
    def without(one: Instance) -> Instance:
        return replace(one, stray_jobs=tuple(job for job in one.stray_jobs if job != cleaned.job))

    return _on_instances(state, {cleaned.instance}, without)


def _with(known: tuple[str, ...], job: str) -> tuple[str, ...]:
    return known if job in known else tuple(sorted((*known, job)))


def _on_instances(state: State, ids: set[str], change: Callable[[Instance], Instance]) -> State:
    instances = tuple(change(one) if one.id in ids and one.phase != "terminated" else one for one in state.instances)
    return replace(state, instances=instances)


def _with_job(state: State, id: str, change: Callable[[Job, Attempt], Job]) -> State:
    attempts = tuple(
        replace(attempt, jobs=tuple(change(job, attempt) if job.id == id else job for job in attempt.jobs))
        if any(job.id == id for job in attempt.jobs)
        else attempt
        for attempt in state.attempts
    )
    return replace(state, attempts=attempts)
