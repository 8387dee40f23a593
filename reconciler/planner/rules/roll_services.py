"""Replace the replicas of a changed service one by one, each once a replica of the new version is ready. Pure.

The old and the new version are two records of one name: the old one is `superseded_by` the hash of the new one. While
the new version does not get ready, the old one goes on with as many replicas as it has.
"""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.planner.draft import Draft
from reconciler.text.format import counted
from schemas.run import Attempt, Run

SETTLED = 10
"""Seconds for which a replica without a probe must run before it counts as ready."""
PATIENCE = 60
"""Seconds after which a replica that has not passed its probe is worth a warning."""
REPLACED = "replaced: a replica of the new version is ready"
OUTDATED = "replaced: a newer version was applied"


def newer_version(draft: Draft, run: Run) -> Run | None:
    """The record that replaces this service, where it was made; None for a run that nothing replaces one by one."""
    id = next((newer for newer, olds in _versions(draft).items() if run.id in olds), "") if run.superseded_by else ""
    return draft.runs.get(id)


def older_versions(draft: Draft, run: Run) -> list[Run]:
    """The records that this service replaces and that have replicas still."""
    olds = (draft.runs.get(id) for id in _versions(draft).get(run.id, ()))
    return [old for old in olds if old is not None and _live(draft, old)]


def _versions(draft: Draft) -> dict[str, list[str]]:
    """Id of a service's newest record -> the ids of those that it replaces, as declared when this is first asked."""
    if draft.versions is None:
        draft.versions = {}
        services = [run for run in draft.runs.values() if run.spec.type == "service" and not run.stop_reason]
        newest = {(name, run.spec.hash): run.id for run in services for name in (run.spec.name, *run.spec.formerly)}
        for run in services:
            newer = newest.get((run.spec.name, run.superseded_by), "") if run.superseded_by else ""
            if newer and newer != run.id:
                draft.versions.setdefault(newer, []).append(run.id)
    return draft.versions


def is_ready(draft: Draft, run: Run, attempt: Attempt) -> bool:
    """Its probe succeeds; without a probe, it has run for `SETTLED` seconds and was not begun again of late."""
    if attempt.id in draft.stopping or any(job.status != "running" or job.failing for job in attempt.jobs):
        return False
    if run.spec.probe is not None:
        return all(job.ready for job in attempt.jobs)
    return all(job.started_at is not None and job.started_at <= draft.now - SETTLED for job in attempt.jobs)


def wanted_replicas(draft: Draft, run: Run) -> int:
    """Below how many live attempts the run gets a new one: all its replicas, but while versions are replaced."""
    newer = newer_version(draft, run)
    if newer is None:
        return min(run.spec.replicas, _ready(draft, run) + 1) if older_versions(draft, run) else run.spec.replicas
    if len(older_versions(draft, newer)) > 1:  # of several old versions none gets a new replica any more
        return 0
    return _kept(draft, newer, olds=[run])


def surplus_of_old(draft: Draft, run: Run) -> list[tuple[Run, Attempt, str]]:
    """The attempts of the versions that this service replaces which may stop now, and why: unready ones first."""
    olds = older_versions(draft, run)
    live = [(old, one) for old in olds for one in _live(draft, old) if one.id not in draft.stopping]
    live.sort(key=lambda each: (is_ready(draft, *each), -each[1].replica))
    chosen = live[: max(0, len(live) - _kept(draft, run, olds=olds))] if olds else []
    ready = _ready(draft, run)
    return [(old, one, REPLACED if ready else OUTDATED) for old, one in chosen]


def _kept(draft: Draft, newer: Run, *, olds: list[Run]) -> int:
    """How many replicas of old versions go on beside those of the new one that are ready."""
    ready = _ready(draft, newer)
    return 0 if ready >= newer.spec.replicas else max(0, max(old.spec.replicas for old in olds) - ready)


def tell_rollouts(draft: Draft) -> None:
    """Say what an unfinished replacement waits for, and what becomes of a new version that finds no place."""
    for run in list(draft.runs.values()):
        olds = older_versions(draft, run)
        if not olds:
            continue
        going = sum(len(_live(draft, old)) for old in olds)
        goes_on = f"{counted(going, 'replica')} of the old version {'goes' if going == 1 else 'go'} on"
        name = run.spec.name
        draft.aside[run.id] = f"; {goes_on} until then: `dstack apply --replace {name}` stops the old version first"
        for words in _unready(draft, run):
            draft.cannot(f"run {name}", f"the new version is not ready: {words}; {goes_on}")


def tell_failing(draft: Draft) -> None:
    """Warn of replicas that run and serve nobody: they end again and again, or do not pass their probe."""
    for run in draft.runs.values():
        if run.spec.type != "service" or older_versions(draft, run):  # what those wait for is said above
            continue
        for attempt in _live(draft, run):
            old = any(job.started_at is not None and job.started_at <= draft.now - PATIENCE for job in attempt.jobs)
            if attempt.id not in draft.stopping and (old or any(job.failing for job in attempt.jobs)):
                draft.warnings += [
                    f"service {run.spec.name}: {words}" for words in _unready_replica(draft, run, attempt)
                ]


def _unready(draft: Draft, run: Run) -> Iterator[str]:
    for attempt in _live(draft, run):
        if attempt.id not in draft.stopping:
            yield from _unready_replica(draft, run, attempt)


def _unready_replica(draft: Draft, run: Run, attempt: Attempt) -> Iterator[str]:
    if is_ready(draft, run, attempt):
        return
    for job in attempt.jobs:
        one = draft.living.get(job.instance)
        where = f"replica {attempt.replica}{f' on {one.name}' if one is not None else ''}"
        if job.failing:
            yield f"{where} ends again and again: {job.failing} (`dstack logs {run.spec.name}`)"
        elif job.status == "assigned":
            yield f"{where} is starting"
        elif job.status == "running" and run.spec.probe is not None:
            yield f"{where} has not passed its probe"
        elif job.status == "running":
            yield f"{where} has run for less than {SETTLED} s"


def _ready(draft: Draft, run: Run) -> int:
    return sum(is_ready(draft, run, attempt) for attempt in _live(draft, run))


def _live(draft: Draft, run: Run) -> list[Attempt]:
    return draft.live.get(run.id, [])
