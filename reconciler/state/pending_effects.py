"""Derive what remains to be done from the marks in a written state, never from a plan. Pure.

So a restart derives the same, and anyone may finish it: each effect is idempotent, by a
token, by an atomic claim on the host, or by its nature.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from reconciler.state.sending import held_off, scheduled, type_at
from reconciler.state.status import bought
from schemas.base import Value
from schemas.instance import Instance
from schemas.launch import Request
from schemas.leftover import Kind
from schemas.run import Attempt, Job, Run
from schemas.state import State, Unowned


class Send(Value, frozen=True, kw_only=True):
    """Ask a place for the machines of an open launch; again, as long as they are not seen."""

    intent: str
    request: Request
    at: int | None = None
    """Unix time before which it is not sent, and long after which it is not sent any more; `None`: at once."""
    once: bool = False
    """Whether it is sent one time only: its machines are then looked for, whatever came of it."""


class End(Value, frozen=True, kw_only=True):
    """Ask a place to end machines; again, until it shows them on their way out."""

    place: str
    external_ids: tuple[str, ...]


class Start(Value, frozen=True, kw_only=True):
    """Hand a job to its host."""

    attempt: str
    job: str
    instance: str


class Release(Value, frozen=True, kw_only=True):
    """Let a job that its host holds back begin: every node of its attempt is staged. `port` is its master's."""

    job: str
    instance: str
    port: int


class Halt(Value, frozen=True, kw_only=True):
    """Tell a host to end a job, and to refuse any start of it that comes later."""

    job: str
    instance: str
    abort: bool
    why: str


class Collect(Value, frozen=True, kw_only=True):
    """Bring an ended job's log and artifacts home."""

    job: str
    instance: str
    artifacts: tuple[str, ...]


class Save(Value, frozen=True, kw_only=True):
    """Bring a running job's artifacts home, as they are now (`artifacts_every`)."""

    job: str
    instance: str
    artifacts: tuple[str, ...]


class Admit(Value, frozen=True, kw_only=True):
    """Let the documents' `authorized_keys` log in on a bought machine, and those that were in them no more."""

    instance: str
    keys: tuple[str, ...]


class Clean(Value, frozen=True, kw_only=True):
    """Remove a job's folder from its host; where it may still run (`stray`), end it first."""

    job: str
    instance: str
    stray: bool


class Arm(Value, frozen=True, kw_only=True):
    """Make its dead-man timer anew: it was stopped or changed."""

    instance: str


class Remove(Value, frozen=True, kw_only=True):
    """Remove leftovers of one place; again, until it no longer lists them or refuses."""

    place: str
    resources: tuple[tuple[str, Kind, str], ...]
    """Key in `State.unowned`, kind and id of each."""


COLLECTED = frozenset({"done", "failed"})  # any other may still run: given up, or unknown

Effect = Send | End | Start | Release | Halt | Collect | Save | Clean | Admit | Arm | Remove


def effects(state: State, *, now: int, sent_here: Collection[str] = ()) -> tuple[Effect, ...]:
    """Every effect that the state's marks ask for now; those that cannot be done from here are left out.

    `sent_here`: launches whose request this apply has given its time. No other apply sends those.
    """
    known = _Known(
        state=state,
        instances={instance.id: instance for instance in state.instances},
        runs={run.id: run for run in state.runs},
        troubled=frozenset(place.name for place in state.places if place.error or place.forgotten),
        others=frozenset(place.name for place in state.places if place.answered_by),
    )
    return (
        *_sends(known, now=now, sent_here=sent_here),
        *_ends(known),
        *(one for attempt in state.attempts if attempt.live for one in _of_attempt(attempt, known=known, now=now)),
        *_cleans(known),
        *_admits(known),
        *_arms(known),
        *_removals(known),
    )


@dataclass(frozen=True, kw_only=True)
class _Known:
    state: State
    instances: Mapping[str, Instance]
    runs: Mapping[str, Run]
    troubled: frozenset[str]
    others: frozenset[str]

    def host(self, instance: str) -> Instance | None:
        """The instance, provided that its host can be asked."""
        found = self.instances.get(instance)
        if found is None or found.phase not in ("ready", "terminating") or found.ready_at is None:
            return None
        return found if found.unreachable_since is None and found.place not in self.others else None


def _sends(known: _Known, *, now: int, sent_here: Collection[str]) -> Iterator[Send]:
    waiting = held_off(known.state, now=now)
    for intent in known.state.intents:
        place = intent.request.place
        if intent.refused or now >= intent.request.not_after or place in known.troubled:
            continue
        kind = type_at(known.state, place)
        if scheduled(kind) and intent.id not in sent_here:
            continue
        if not scheduled(kind) and place in waiting:  # the time of a scheduled request is late enough
            continue
        wanted = (known.instances.get(id) for id in intent.request.ids)
        if any(instance is not None and instance.phase == "pending" for instance in wanted):
            at = intent.send_at if scheduled(kind) else None
            yield Send(intent=intent.id, request=intent.request, at=at, once=kind.launch == "once")


def _ends(known: _Known) -> Iterator[End]:
    by_place: dict[str, list[str]] = {}
    for instance in known.state.instances:
        if instance.phase == "terminating" and not instance.ending and instance.external_id:
            by_place.setdefault(instance.place, []).append(instance.external_id)
    for place, ids in sorted(by_place.items()):
        if place in known.troubled:
            continue
        yield End(place=place, external_ids=tuple(ids))


def _of_attempt(attempt: Attempt, *, known: _Known, now: int) -> Iterator[Effect]:
    broken = any(job.status in ("failed", "lost", "aborted", "terminated") for job in attempt.jobs)
    for job in attempt.jobs:
        if known.host(job.instance) is None:
            continue
        if job.status == "ended":
            yield Collect(job=job.id, instance=job.instance, artifacts=_artifacts(attempt, known=known))
        elif job.status in ("assigned", "running") and attempt.stopping:
            yield Halt(job=job.id, instance=job.instance, abort=attempt.abort, why=attempt.stopping)
        elif job.status == "assigned" and not (broken or job.halted) and _startable(job, known=known):
            if not job.held:
                yield Start(attempt=attempt.id, job=job.id, instance=job.instance)
            elif attempt.released_at is not None:
                yield Release(job=job.id, instance=job.instance, port=attempt.jobs[0].port or attempt.port)
        elif job.status == "running" and _save_due(job, known.runs.get(attempt.run), now=now):
            yield Save(job=job.id, instance=job.instance, artifacts=_artifacts(attempt, known=known))


def _startable(job: Job, *, known: _Known) -> bool:
    instance = known.instances[job.instance]
    return instance.phase == "ready"


def _save_due(job: Job, run: Run | None, *, now: int) -> bool:
    """Its start counts as a save: there was nothing before."""
    every = run.spec.artifacts_every if run and run.spec.artifacts else None
    since = job.saved_at if job.saved_at is not None else job.started_at
    return every is not None and since is not None and now - since >= every


def _artifacts(attempt: Attempt, *, known: _Known) -> tuple[str, ...]:
    run = known.runs.get(attempt.run)
    return run.spec.artifacts if run else ()


def _cleans(known: _Known) -> Iterator[Clean]:
    over = {job.id for attempt in known.state.attempts for job in attempt.jobs if job.status in COLLECTED}
    for instance in known.state.instances:
        # The end of an instance removes everything on it: nothing is cleaned beside that.
        if not instance.stray_jobs or instance.phase != "ready" or known.host(instance.id) is None:
            continue
        for job in instance.stray_jobs:
            yield Clean(job=job, instance=instance.id, stray=job not in over)


def _admits(known: _Known) -> Iterator[Admit]:
    applied = known.state.applied
    if applied is None:
        return
    keys = applied.desired.authorized_keys
    digest = keys_digest(keys)
    for instance in known.state.instances:
        if instance.authorized == digest or instance.phase != "ready" or not bought(instance):
            continue
        if known.host(instance.id) is not None:
            yield Admit(instance=instance.id, keys=keys)


def _arms(known: _Known) -> Iterator[Arm]:
    for instance in known.state.instances:
        if instance.disarmed and instance.phase == "ready" and bought(instance) and known.host(instance.id) is not None:
            yield Arm(instance=instance.id)


def _removals(known: _Known) -> Iterator[Remove]:
    by_place: dict[str, list[Unowned]] = {}
    for one in known.state.unowned:
        if one.removing_at is not None and one.place not in known.troubled | known.others:
            by_place.setdefault(one.place, []).append(one)
    for place, marked in sorted(by_place.items()):
        yield Remove(place=place, resources=tuple((one.key, one.kind, one.id) for one in marked))


def keys_digest(keys: tuple[str, ...]) -> str:
    """As a host tells it of those that it admits; "" for none."""
    return hashlib.sha256("".join(f"{key}\n" for key in keys).encode()).hexdigest() if keys else ""
