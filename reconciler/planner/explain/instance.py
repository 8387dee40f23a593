"""Explain why an instance is kept, when it terminates, and by which setting. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.planner.draft import Draft, draft_of
from reconciler.planner.plan import plan
from reconciler.planner.world import World
from reconciler.state.status import timer_of
from reconciler.text.format import hourly, span
from schemas.explanation import InstanceEnd, InstanceExplained
from schemas.instance import Instance
from schemas.plan import Terminate
from schemas.pool import Pool
from schemas.run import LIVE_JOB

_ORIGIN = {"declared": "the minimum of its pool", "run": "runs", "added": "pool add"}


def explain_instance(world: World, one: Instance) -> InstanceExplained:
    """`one` is alive."""
    draft, made = draft_of(world), plan(world)
    pool = draft.pools.get(draft.pool_of(one))
    ends = sorted(_ends(draft, one, pool=pool), key=lambda each: (each.at is None, each.at or 0))
    going = next((act for act in made.actions if isinstance(act, Terminate) and act.instance == one.id), None)
    if going is not None:
        ends.insert(0, InstanceEnd(what=f"the next apply terminates it: {going.why}", at=draft.now))
    keeps = list(_keeps(draft, one, pool=pool))
    for note in made.idle:
        if note.instance != one.id:
            continue
        if note.at is None:
            keeps.append(InstanceEnd(what=f"stays while idle: {note.source}", key="idle_duration"))
        else:
            what = f"idle for {span(note.duration)}"
            ends.append(InstanceEnd(what=what, at=note.at, source=note.source, key="idle_duration"))
    ends.sort(key=lambda each: (each.at is None, each.at or 0))
    return InstanceExplained(
        name=one.name,
        pool=one.pool,
        status=draft.status(one),
        made_for="a server of its pool" if one.host is not None else _ORIGIN[one.origin],
        price=hourly(one.price),
        runs=tuple(_runs(draft, one)),
        keeps=tuple(keeps),
        ends=tuple(ends),
    )


def _runs(draft: Draft, one: Instance) -> Iterator[str]:
    for id, attempts in draft.live.items():
        jobs = (job for attempt in attempts for job in attempt.jobs if job.status in LIVE_JOB)
        if id in draft.runs and any(job.instance == one.id for job in jobs):
            yield draft.runs[id].spec.name


def _keeps(draft: Draft, one: Instance, *, pool: Pool | None) -> Iterator[InstanceEnd]:
    for name in _runs(draft, one):
        yield InstanceEnd(what=f"run {name} is on it")
    if one.reserved_for:
        held = draft.runs.get(one.reserved_for)
        yield InstanceEnd(what=f"held for run {held.spec.name if held else one.reserved_for}", at=one.reserved_until)
    if one.prevent_destroy:
        yield InstanceEnd(what="prevent_destroy", source=f"pool {one.pool}", key="prevent_destroy")
    if pool is not None and pool.floor and len(draft.members.get(pool.name, ())) <= pool.floor:
        yield InstanceEnd(
            what=f"the minimum of pool {pool.name}: {pool.floor}", source=f"pool {pool.name}", key="nodes"
        )


def _ends(draft: Draft, one: Instance, *, pool: Pool | None) -> Iterator[InstanceEnd]:
    if one.phase == "terminating":
        yield InstanceEnd(what=f"terminating: {one.reason}" if one.reason else "terminating", at=draft.now)
    if why := draft.leaving.get(one.id):
        yield InstanceEnd(what=why)
    if one.max_lifetime is not None:
        at = one.created_at + one.max_lifetime
        yield InstanceEnd(
            what=f"max_lifetime {span(one.max_lifetime)}", at=at, source=f"pool {one.pool}", key="max_lifetime"
        )
    if (timer := timer_of(one)) is not None:
        yield InstanceEnd(what="its self-termination timer, unless an apply reaches it", at=timer)
    for id, attempts in draft.live.items():
        run = draft.runs.get(id)
        if run is None or run.spec.max_duration is None:
            continue
        for job in (each for attempt in attempts for each in attempt.jobs if each.instance == one.id):
            if job.started_at is not None:
                at = job.started_at + run.spec.max_duration
                what = f"run {run.spec.name} ends by its max_duration {span(run.spec.max_duration)}"
                yield InstanceEnd(what=what, at=at, source=f"run {run.spec.name}", key="max_duration")
    if pool is None and one.pool:
        yield InstanceEnd(what=f"pool {one.pool} is not configured any more: dstack apply --allow-destroy {one.pool}")
