"""Terminate instances that were idle for longer than their idle duration, down to the pool's minimum. Pure.

Busy and holding ones are never reaped, but for results that nobody collected within `hold`: that of each one's run,
else the instance's, as its dead-man timer has it (`backends/boot/deadman.sh`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from operator import itemgetter

from reconciler.planner.draft import Draft, price_of
from reconciler.planner.rules.pool_edits import reach_living
from reconciler.state.status import idle_since, reap_at
from reconciler.text.durations import words
from schemas.base import Price
from schemas.instance import Instance
from schemas.plan import IdleNote, Terminate
from schemas.run import Job


def reap(draft: Draft) -> None:
    """End idle instances whose idle duration is over (at the very second), and note the rest."""
    reach_living(draft)
    holds = _holds(draft)
    free: dict[str, Groups] = defaultdict(lambda: defaultdict(list))
    staying: dict[str, int] = defaultdict(int)
    for one in draft.living.values():
        if one.phase != "ready" or one.id in draft.leaving:
            continue
        pool = draft.pool_of(one)
        # It holds the floor while others go: not what may be gone already or never come, nor what nobody owns.
        staying[pool] += one.place not in draft.unknown and not one.orphan
        if _free(draft, one, holds=holds):
            since = idle_since(one)
            free[pool][one.origin == "declared", price_of(one)].append(
                (since or 0, len(one.name), one.name, one.id, one, reap_at(one, since=since))
            )
    for name in draft.members:
        if name not in free or draft.may.only_pool not in ("", name):
            continue
        floor = draft.pools[name].floor if name in draft.pools else 0
        idle = _sorted(free[name])
        reaped = _reap_due(draft, idle, above=staying[name] - floor, holds=holds)
        _note(draft, [each for each in idle if each[3] not in draft.leaving], above=staying[name] - floor - reaped)


# A free instance, before it what says how old that is, in the order of its weight, and after it when its idle time is
# over: a plain tuple, which is made and sorted without a call.
Idle = tuple[int, int, str, str, Instance, int | None]
# By whether they are declared, and by price: most comparisons would otherwise be of decimals, which are slow.
Groups = dict[tuple[bool, Price], list[Idle]]


def _holds(draft: Draft) -> dict[str, int]:
    """job id -> for how long its result waits, of those whose run says so itself."""
    state = draft.world.state
    own = {run.id: run.spec.hold for run in state.runs if run.spec.hold is not None}
    if not own:
        return {}
    return {job.id: own[attempt.run] for attempt in state.attempts if attempt.run in own for job in attempt.jobs}


def _free(draft: Draft, instance: Instance, *, holds: Mapping[str, int]) -> bool:
    """Idle, or holding for longer than it is held, and not given away."""
    if instance.id in draft.taken or instance.orphan:
        return False
    jobs = draft.jobs.get(instance.id)
    if not jobs:
        return True
    return jobs[0].status == "ended" and all(_abandoned(draft, instance, job, holds=holds) for job in jobs)


def _abandoned(draft: Draft, instance: Instance, job: Job, *, holds: Mapping[str, int]) -> bool:
    if job.status != "ended" or job.ended_at is None:
        return False
    return draft.now >= job.ended_at + holds.get(job.id, instance.hold)


def _sorted(groups: Groups) -> list[Idle]:
    """Which go first where some must stay: a run's and an added one, the dearest, the longest idle."""
    order = sorted(groups, key=lambda group: (group[0], -group[1]))
    return [idle for group in order for idle in sorted(groups[group])]


def _reap_due(draft: Draft, free: list[Idle], *, above: int, holds: Mapping[str, int]) -> int:
    """How many were ended; at most `above`."""
    count = 0
    for *_, one, at in free:
        if at is None or draft.now < at or count >= above or not _may_go(draft, one):
            continue
        count += 1
        why = f"idle for {words(one.idle_duration or 0)} ({one.idle_source})"
        if jobs := draft.jobs.get(one.id):
            held = max(holds.get(job.id, one.hold) for job in jobs)
            why = f"its result was not collected for {words(held)}"
        draft.leaving[one.id] = why
        draft.actions.append(Terminate(instance=one.id, name=one.name, pool=one.pool, why=why))
    return count


def _may_go(draft: Draft, one: Instance) -> bool:
    reserved = one.reserved_for and (one.reserved_until is None or draft.now < one.reserved_until)
    # A place that does not answer cannot be asked, and what we know of it is old.
    if reserved or one.prevent_destroy or one.place in draft.unknown:
        return False
    return draft.covers(id=one.id, pool=one.pool)


def _note(draft: Draft, idle: list[Idle], *, above: int) -> None:
    """Those above the floor go when their time comes, the soonest first; the floor's stay."""
    timed = [(at, id) for _, _, _, id, _, at in idle if at is not None]
    timed.sort(key=itemgetter(0))
    going = {id for _, id in timed[: max(0, above)]}
    for *_, one, at in idle:
        source = one.idle_source
        if one.host is not None:  # it stays: nobody need read that of each
            continue
        if one.prevent_destroy:
            at, source = None, "prevent_destroy"
        elif one.place in draft.unknown:
            at, source = None, f"{one.place} is unknown"
        elif one.ready_at is None:
            source = "silent since a rebuild: what it does is not known"
        elif at is not None and one.id not in going:
            at, source = None, "held by nodes"
        elif at is not None and one.reserved_for and one.reserved_until is not None and one.reserved_until > at:
            at, source = one.reserved_until, f"kept for run {_name(draft, one.reserved_for)}"
        draft.idle.append(
            IdleNote(instance=one.id, name=one.name, pool=one.pool, at=at, duration=one.idle_duration, source=source)
        )


def _name(draft: Draft, run: str) -> str:
    return draft.runs[run].spec.name if run in draft.runs else run
