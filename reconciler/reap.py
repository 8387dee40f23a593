"""Idle instances whose time is over, above the floor; and when each of the others goes. Pure.

Busy and holding ones are never reaped, but for a result that nobody collected within `hold`.
"""

from __future__ import annotations

from operator import itemgetter

from reconciler.grow import floor_of
from reconciler.retire import words
from reconciler.status import idle_since, reap_at
from reconciler.world import Draft, price_of
from schemas.instance import Instance
from schemas.plan import IdleNote, Terminate
from schemas.run import Job


def reap(draft: Draft) -> None:
    """End idle instances whose idle duration is over (at the very second), and note the rest."""
    for name, ids in draft.members.items():
        pool = draft.pools.get(name)
        if draft.may.only_pool not in ("", name):
            continue
        free = [draft.living[id] for id in ids if _free(draft, draft.living[id])]
        if not free:
            continue
        staying = sum(_there(draft, draft.living[id]) for id in ids)
        above = staying - (floor_of(pool) if pool else 0)
        free.sort(key=_order)
        above -= _reap_due(draft, free, above=above)
        _note(draft, [one for one in free if one.id not in draft.leaving], above=above)


def _there(draft: Draft, instance: Instance) -> bool:
    """It holds the floor while others go: not what may be gone already, nor what may never come."""
    return instance.phase == "ready" and instance.id not in draft.leaving and instance.place not in draft.unknown


def _free(draft: Draft, instance: Instance) -> bool:
    """Idle, or holding for longer than it is held, and neither leaving nor given away."""
    if instance.id in draft.leaving or instance.id in draft.taken or instance.phase != "ready":
        return False
    jobs = draft.jobs.get(instance.id)
    return (not jobs or (jobs[0].status == "ended" and _abandoned(draft, instance, jobs))) and not instance.orphan


def _abandoned(draft: Draft, instance: Instance, jobs: list[Job]) -> bool:
    ends = [job.ended_at for job in jobs if job.status == "ended" and job.ended_at is not None]
    return len(ends) == len(jobs) and draft.now >= max(ends) + instance.hold


def _order(instance: Instance) -> tuple[object, ...]:
    """Which go first where some must stay: a run's and an added one, the dearest, the longest idle."""
    name = instance.name
    return (instance.origin == "declared", -price_of(instance), idle_since(instance) or 0, len(name), name)


def _reap_due(draft: Draft, free: list[Instance], *, above: int) -> int:
    """How many were ended; at most `above`."""
    count = 0
    for one in free:
        due = _due(draft, one)
        if due is None or draft.now < due or count >= above:
            continue
        count += 1
        why = f"idle for {words(one.idle_duration or 0)} ({one.idle_source})"
        if draft.jobs.get(one.id):
            why = f"its result was not collected for {words(one.hold)}"
        draft.leaving[one.id] = why
        draft.actions.append(Terminate(instance=one.id, name=one.name, pool=one.pool, why=why))
    return count


def _due(draft: Draft, one: Instance) -> int | None:
    """When it may go; `None` is not by itself."""
    at = reap_at(one)
    reserved = one.reserved_for and (one.reserved_until is None or draft.now < one.reserved_until)
    # A place that does not answer cannot be asked, and what we know of it is old.
    if at is None or reserved or one.prevent_destroy or one.place in draft.unknown:
        return None
    if not draft.covers(id=one.id, pool=one.pool):
        return None
    return at


def _note(draft: Draft, idle: list[Instance], *, above: int) -> None:
    """Those above the floor go when their time comes, the soonest first; the floor's stay."""
    timed = [(at, one) for one in idle if (at := reap_at(one)) is not None]
    timed.sort(key=itemgetter(0))
    going = {one.id for _, one in timed[: max(0, above)]}
    for one in idle:
        at, source = reap_at(one), one.idle_source
        if one.prevent_destroy:
            at, source = None, "prevent_destroy"
        elif one.place in draft.unknown:
            at, source = None, f"{one.place} is unknown"
        elif at is not None and one.id not in going:
            at, source = None, "held by nodes"
        elif at is not None and one.reserved_for and one.reserved_until is not None:
            at = max(at, one.reserved_until)
        draft.idle.append(
            IdleNote(
                instance=one.id, name=one.name, pool=one.pool, at=at, duration=one.idle_duration, source=source
            )
        )
