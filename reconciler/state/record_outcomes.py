"""Record the outcomes of effects in the state. An outcome can be applied to any later state. Pure.

A fold touches only a record that is still as the effect found it; whatever else happened to
the record meanwhile is newer, and wins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from msgspec.structs import replace

from reconciler.state.capacity_backoff import shun
from reconciler.state.job_results import with_result
from reconciler.state.observe.unowned_leftovers import Removed as Removed
from reconciler.state.observe.unowned_leftovers import after_removal
from reconciler.state.sending import account_of, held_back
from schemas.base import Value
from schemas.launch import Intent
from schemas.run import Attempt
from schemas.state import Capacity, State


class Sent(Value, frozen=True, kw_only=True):
    """The place took the launch. No proof: it closes when its machines are seen. `hints` are external ids."""

    intent: str
    hints: tuple[str, ...] = ()


class LaunchRefused(Value, frozen=True, kw_only=True):
    """The backend promises that some or all machines of a launch were not made."""

    intent: str
    why: str
    capacities: tuple[Capacity, ...]
    """What keeps us from asking again too soon, one for each offer or place that was refused."""
    ids: tuple[str, ...] = ()
    """Our ids of those that were refused; empty for all of the launch."""
    hints: tuple[str, ...] = ()
    not_before: int = 0
    """Unix time before which the vendor asks for no further request of this account; 0 where it does not say."""


class NotSent(Value, frozen=True, kw_only=True):
    """A request that only this apply may send was not sent, and will not be: nothing was made."""

    intent: str
    subject: str
    why: str


class Throttled(Value, frozen=True, kw_only=True):
    """The vendor asks for no further launch request of this account yet; what came of this one is unknown."""

    place: str
    subject: str
    why: str
    not_before: int
    intent: str = ""
    hints: tuple[str, ...] = ()


class Accepted(Value, frozen=True, kw_only=True):
    """The place will end these machines. No proof either: only a listing says ended."""

    place: str
    external_ids: tuple[str, ...]


class Started(Value, frozen=True, kw_only=True):
    """The host claimed the job and its supervisor began, in the boot that we know of."""

    job: str
    boot_id: str
    at: int


class Staged(Value, frozen=True, kw_only=True):
    """The host claimed the job and holds it back; `staged`: all that its commands need is there. `port` is free."""

    job: str
    boot_id: str
    staged: bool
    port: int = 0


class StartFailed(Value, frozen=True, kw_only=True):
    """The host did not start it, and would not if asked again."""

    job: str
    why: str
    at: int


class Halted(Value, frozen=True, kw_only=True):
    """The host will end the job, and refuses to start it from now on."""

    job: str


class ResultCollected(Value, frozen=True, kw_only=True):
    """An ended job's log and artifacts are blobs. `notes` say what was left out."""

    job: str
    log: str
    artifacts: str = ""
    notes: tuple[str, ...] = ()


class ArtifactsSaved(Value, frozen=True, kw_only=True):
    """A running job's artifacts are a blob; "" where no file matched yet."""

    job: str
    artifacts: str
    at: int


class Cleaned(Value, frozen=True, kw_only=True):
    """The job's folder is gone from its host."""

    job: str
    instance: str


class Admitted(Value, frozen=True, kw_only=True):
    """The machine admits the keys of that digest, and no others of ours."""

    instance: str
    digest: str


class Armed(Value, frozen=True, kw_only=True):
    """The machine's dead-man timer is whole again, and has asked once. `why` it did not run as it should."""

    instance: str
    name: str = ""
    why: str = ""


class Failed(Value, frozen=True, kw_only=True):
    """An effect that came to nothing yet: it stays marked, and the next tick does it again.

    `lasting`: its place refused it for good, as far as it says; somebody has to look.
    """

    subject: str
    why: str
    lasting: bool = False
    not_ended: tuple[str, ...] = ()
    """Of an `End`: the external ids whose end the backend did not accept. It accepted that of the others."""
    uncollected: str = ""
    """Of a `Collect`: the job whose result stays on its host."""


class Ahead(Value, frozen=True, kw_only=True):
    """The host has seen a newer generation: another reconciler is ahead of us."""

    subject: str
    why: str


Outcome = (
    Sent
    | LaunchRefused
    | NotSent
    | Throttled
    | Accepted
    | Staged
    | Started
    | StartFailed
    | Halted
    | ResultCollected
    | ArtifactsSaved
    | Cleaned
    | Admitted
    | Armed
    | Removed
    | Failed
    | Ahead
)


def fold(state: State, outcomes: Sequence[Outcome], *, now: int) -> State:
    """The state with the outcomes in it, whatever it has become since the effects began."""
    memory = _Memory(state)
    for outcome in outcomes:
        _fold(memory, outcome, now=now)
    return memory.state()


class _Memory:
    """The records by id, each replaced as often as needed; a state again at the end."""

    def __init__(self, state: State) -> None:
        self._was = state
        self.intents = {intent.id: intent for intent in state.intents}
        self.instances = {instance.id: instance for instance in state.instances}
        self.jobs = {job.id: job for attempt in state.attempts for job in attempt.jobs}
        self.attempt_of = {job.id: attempt for attempt in state.attempts for job in attempt.jobs}
        self.capacity = state.capacity
        self.paces = state.paces
        self.unowned = state.unowned
        self.places = {place.name: place for place in state.places}

    def change(self, job: str, **changes: Any) -> None:
        self.jobs[job] = replace(self.jobs[job], **changes)

    def strays(self, instance: str, change: Callable[[set[str]], set[str]]) -> None:
        known = self.instances.get(instance)
        if known is not None and known.phase != "terminated":
            self.instances[instance] = replace(known, stray_jobs=tuple(sorted(change(set(known.stray_jobs)))))

    def state(self) -> State:
        return replace(
            self._was,
            intents=tuple(self.intents.values()),
            instances=tuple(self.instances.values()),
            attempts=tuple(self._attempt(attempt) for attempt in self._was.attempts),
            capacity=self.capacity,
            paces=self.paces,
            unowned=self.unowned,
        )

    def _attempt(self, attempt: Attempt) -> Attempt:
        jobs = tuple(self.jobs[job.id] for job in attempt.jobs)
        return attempt if jobs == attempt.jobs else replace(attempt, jobs=jobs)


def _fold(memory: _Memory, outcome: Outcome, *, now: int) -> None:
    match outcome:
        case Sent():
            _sent(memory, outcome)
        case LaunchRefused():
            _refused(memory, outcome, now=now)
        case NotSent():
            _freed(memory, outcome.intent, why=outcome.why, now=now)
        case Throttled():
            _hold_back(memory, outcome.place, until=outcome.not_before)
            if outcome.hints:
                _sent(memory, Sent(intent=outcome.intent, hints=outcome.hints))
        case Staged() if _is(memory, outcome.job, "assigned"):
            held = "staged" if outcome.staged else "preparing"
            memory.change(outcome.job, held=held, boot_id=outcome.boot_id, port=outcome.port)
        case Started() if _is(memory, outcome.job, "assigned"):
            # Claimed and started, or released, in one command: its answer is the host's word.
            memory.change(outcome.job, status="running", held="", boot_id=outcome.boot_id, started_at=outcome.at)
        case StartFailed() if _is(memory, outcome.job, "assigned"):
            memory.change(outcome.job, status="failed", held="", reason=outcome.why, ended_at=outcome.at)
        case Halted() if outcome.job in memory.jobs:
            memory.change(outcome.job, halted=True)
        case ResultCollected() if outcome.job in memory.jobs:
            _collected(memory, outcome, now=now)
        case ArtifactsSaved() if _is(memory, outcome.job, "running"):
            artifacts = outcome.artifacts or memory.jobs[outcome.job].artifacts
            memory.change(outcome.job, artifacts=artifacts, saved_at=outcome.at)
        case Cleaned():
            memory.strays(outcome.instance, lambda strays: strays - {outcome.job})
        case Admitted() if outcome.instance in memory.instances:
            known = memory.instances[outcome.instance]
            memory.instances[outcome.instance] = replace(known, authorized=outcome.digest)
        case Armed() if outcome.instance in memory.instances:
            memory.instances[outcome.instance] = replace(memory.instances[outcome.instance], disarmed="")
        case Failed(uncollected=job) if _is(memory, job, "ended"):
            memory.change(job, uncollected_since=memory.jobs[job].uncollected_since or now)
        case Removed():
            memory.unowned = after_removal(memory.unowned, outcome, now=now)
        case _:
            pass  # accepted, failed, ahead, or about a record that is newer: nothing to remember


def _is(memory: _Memory, job: str, status: str) -> bool:
    return job in memory.jobs and memory.jobs[job].status == status


def _sent(memory: _Memory, sent: Sent) -> None:
    if (intent := memory.intents.get(sent.intent)) is not None:
        memory.intents[intent.id] = replace(intent, sent=intent.sent + 1, hints=sent.hints or intent.hints)


def _refused(memory: _Memory, refused: LaunchRefused, *, now: int) -> None:
    """Nothing was made of these ids, so nothing can appear: they end here. The launch stays open for the others."""
    memory.capacity = shun(memory.capacity, refused.capacities)
    if refused.not_before:
        _hold_back(memory, refused.capacities[0].place, until=refused.not_before)
    intent = _freed(memory, refused.intent, why=refused.why, now=now, ids=refused.ids)
    if intent is None or not refused.ids:
        return
    ids = refused.ids
    pending = (memory.instances.get(id) for id in intent.request.ids if id not in ids)
    if any(one is not None and not one.external_id and one.phase != "terminated" for one in pending):
        # The same request again could make those that were just freed: the others are only looked for.
        memory.intents[intent.id] = replace(
            intent, sent=intent.sent + 1, hints=refused.hints or intent.hints, refused=refused.why
        )


def _freed(memory: _Memory, launch: str, *, why: str, now: int, ids: tuple[str, ...] = ()) -> Intent | None:
    """The launch that is closed by this, its pending machines (or just `ids`) ended."""
    intent = memory.intents.pop(launch, None)
    for id in (ids or intent.request.ids) if intent is not None else ():
        one = memory.instances.get(id)
        if one is not None and not one.external_id and one.phase != "terminated":
            memory.instances[id] = replace(one, phase="terminated", reason=why, terminated_at=now, refused=True)
    return intent


def _hold_back(memory: _Memory, name: str, *, until: int) -> None:
    place = memory.places.get(name)
    memory.paces = held_back(memory.paces, account_of(place) if place is not None else name, until=until)


def _collected(memory: _Memory, collected: ResultCollected, *, now: int) -> None:
    """The job's end, with its result; its folder on the host is then nobody's need."""
    job = memory.jobs[collected.job]
    if job.status == "ended":
        ended = replace(job, log=collected.log, artifacts=collected.artifacts or job.artifacts)
        memory.jobs[job.id] = with_result(replace(ended, ended_at=job.ended_at or now), memory.attempt_of[job.id])
    memory.strays(job.instance, lambda strays: strays | {job.id})
