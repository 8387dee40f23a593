"""Forget a backend's region or an instance that never returns, on a person's command. Pure."""

from __future__ import annotations

from msgspec.structs import replace

from reconciler.state.rebuild import RebuildRefused
from reconciler.state.relaunch.end_requests import FORGOTTEN
from schemas.instance import Instance
from schemas.run import Attempt
from schemas.state import State, Tombstone


def forget(state: State, subject: str, now: int, *, by: str = "") -> State:
    """A place by name, or a living instance by id or name, that never returns: no longer counted.

    Its instances end as tombstones and their jobs are lost; a later sighting is an orphan.
    """
    why = f"{FORGOTTEN} by {by}" if by else FORGOTTEN
    places = tuple(replace(each, forgotten=True) if each.name == subject else each for each in state.places)
    chosen = {
        each.id
        for each in state.instances
        if each.phase != "terminated" and subject in (each.place, each.id, each.name)
    }  # fmt: skip
    if not chosen and places == state.places:
        raise RebuildRefused(f"no place or living instance {subject}: `dstack pool ps` lists them")
    graves = [Tombstone(id=id, kind="instance", at=now, why=why) for id in sorted(chosen)]
    if places != state.places:
        graves.append(Tombstone(id=subject, kind="place", at=now, why=why))
    return replace(
        state,
        places=places,
        instances=tuple(_ended(each, why=why, now=now) if each.id in chosen else each for each in state.instances),
        attempts=tuple(_bereft(each, chosen, why=why, now=now) for each in state.attempts),
        intents=tuple(each for each in state.intents if not set(each.request.ids) <= chosen),
        tombstones=(*state.tombstones, *graves),
    )


def _ended(instance: Instance, *, why: str, now: int) -> Instance:
    return replace(instance, phase="terminated", terminated_at=now, reason=why)


def _bereft(attempt: Attempt, gone: set[str], *, why: str, now: int) -> Attempt:
    if not any(job.instance in gone for job in attempt.jobs):
        return attempt
    jobs = tuple(
        replace(job, status="lost", ended_at=now, reason=why)
        if job.instance in gone and job.status in ("assigned", "running", "ended")
        else job
        for job in attempt.jobs
    )
    return replace(attempt, jobs=jobs)
