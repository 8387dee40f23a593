"""Mark in the state what a plan will do, before anything is done. Pure.

Effects are derived from these marks, by whoever reads them next; nothing else of a plan survives.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar, assert_never

import msgspec
from msgspec.structs import replace

from reconciler.state.access_modes import via_of
from reconciler.state.relaunch.launch_backoff import after_failures, given_up
from reconciler.state.sending import scheduled_sends
from schemas.access import Way
from schemas.instance import Instance, Origin
from schemas.launch import Intent, Request
from schemas.plan import Action, Assign, Attach, Detach, Launch, Plan, Resume, Stop, Terminate, Update
from schemas.resources import Resources
from schemas.run import RUN_ENDED, Attempt, Job, Run
from schemas.state import State, Unowned, Wish

T = TypeVar("T", Instance, Run, Attempt, Wish, Unowned)


@dataclass(frozen=True)
class _Marks:
    """The records by id, in the order of the state."""

    instances: dict[str, Instance]
    runs: dict[str, Run]
    attempts: dict[str, Attempt]
    intents: dict[str, Intent]
    wishes: dict[str, Wish]
    unowned: dict[str, Unowned]


def intend(state: State, plan: Plan, *, now: int, requests: Mapping[str, Request]) -> State:
    """The state with the plan's marks. `requests`: launch id -> prepared; one without is not begun.

    Total: a subject that is no more is passed by, since the state may have moved. The
    generation is the store's writer's to raise.
    """
    if not plan.actions:
        return state
    marks = _Marks(
        instances={one.id: one for one in state.instances},
        runs={run.id: run for run in state.runs},
        attempts={attempt.id: attempt for attempt in state.attempts},
        intents={intent.id: intent for intent in state.intents},
        wishes={wish.id: wish for wish in state.wishes},
        unowned={one.key: one for one in state.unowned},
    )
    for action in plan.actions:
        _mark(marks, action, now=now, requests=requests)
    marked = replace(
        state,
        instances=tuple(marks.instances.values()),
        runs=tuple(marks.runs.values()),
        attempts=tuple(marks.attempts.values()),
        intents=tuple(marks.intents.values()),
        wishes=tuple(marks.wishes.values()),
        unowned=tuple(marks.unowned.values()),
    )
    if failed := given_up(plan.actions, {one.id: one for one in state.instances}):
        marked = replace(marked, backoffs=after_failures(state.backoffs, failed, now=now))
    asked = {one.launch for one in plan.actions if isinstance(one, Launch | Resume)}
    return scheduled_sends(marked, asked, now=now) if asked else marked


def _mark(marks: _Marks, action: Action, *, now: int, requests: Mapping[str, Request]) -> None:
    match action:
        case Launch():
            _launch(marks, action, now=now, request=requests.get(action.launch))
        case Assign():
            _assign(marks, action, now=now)
        case Stop():
            _stop(marks, action, now=now)
        case Terminate():
            _terminate(marks, action.instance, why=action.why, now=now)
        case Detach():
            _detach(marks, action, now=now)
        case Attach():
            _change(marks.instances, action.instance, {"pool": action.pool, "name": action.name, "orphan": ""})
        case Update():
            _update(marks, action)
        case Resume():
            pass  # its intent is open already: that, and where its type asks for it a new time, is the mark
        case _:
            assert_never(action)


def _launch(marks: _Marks, launch: Launch, *, now: int, request: Request | None) -> None:
    if request is None or launch.launch in marks.intents:
        return
    marks.intents[launch.launch] = Intent(id=launch.launch, request=request, opened_at=now)
    made_for = launch.made_for or tuple(() for _ in launch.ids)
    for id, name, runs in zip(launch.ids, launch.names, made_for, strict=True):
        marks.instances[id] = _pending(launch, request.way, id=id, name=name, runs=runs[::2], now=now)
    wish = marks.wishes.get(launch.wish)
    if wish is not None:
        marks.wishes[wish.id] = replace(wish, launched=wish.launched + len(launch.ids))


def _pending(launch: Launch, way: Way, *, id: str, name: str, runs: tuple[str, ...], now: int) -> Instance:
    offer = launch.offer
    return Instance(
        id=id,
        name=name,
        pool=launch.pool,
        backend=offer.backend,
        place=offer.place,
        region=offer.region,
        zone=offer.zone,
        instance_type=offer.instance_type,
        resources=_resources(launch),
        spot=offer.spot,
        price=offer.price,
        at_most=offer.at_most,
        launch=launch.launch,
        wish=launch.wish,
        origin=msgspec.convert(launch.origin, Origin),
        created_at=now,
        idle_duration=launch.idle_duration,
        idle_source=launch.idle_source,
        max_lifetime=launch.max_lifetime,
        hold=launch.hold,
        unattended=launch.unattended,
        prevent_destroy=launch.prevent_destroy,
        blocks=launch.blocks,
        host=launch.host,
        image=launch.image,
        way=way,
        via=via_of(way),
        reserved_for=launch.reserved_for,
        reserved_until=launch.reserved_until,
        made_for=runs,
    )


def _resources(launch: Launch) -> Resources:
    """Those of its offer, with the disk that is asked for, and with the runtime that its type fixes."""
    offered = launch.offer.resources
    return replace(offered, disk=launch.disk or offered.disk, runtime=launch.runtime or offered.runtime)


def _assign(marks: _Marks, assign: Assign, *, now: int) -> None:
    run = marks.runs.get(assign.run)
    if run is None or run.status in RUN_ENDED or assign.attempt in marks.attempts:
        return
    if any(id not in marks.instances or marks.instances[id].phase != "ready" for id in assign.instances):
        return
    gpus = assign.gpus or tuple(() for _ in assign.instances)
    blocks = assign.blocks or tuple(1 for _ in assign.instances)
    ports = assign.service_ports or tuple(0 for _ in assign.instances)
    jobs = tuple(
        Job(
            id=f"{assign.attempt}-{rank}",
            instance=id,
            rank=rank,
            gpus=gpus[rank],
            blocks=blocks[rank],
            service_port=ports[rank],
        )
        for rank, id in enumerate(assign.instances)
    )
    marks.attempts[assign.attempt] = Attempt(
        id=assign.attempt,
        run=run.id,
        number=assign.number,
        replica=assign.replica,
        jobs=jobs,
        assigned_at=now,
        port=assign.port,
    )
    status = run.status if run.status == "running" else "provisioning"
    marks.runs[run.id] = replace(
        run, status=status, reason="", attempts=run.attempts + 1, not_before=None, wait_until=None
    )
    for id in assign.instances:
        if marks.instances[id].reserved_for:
            _change(marks.instances, id, {"reserved_for": "", "reserved_until": None})


def _stop(marks: _Marks, stop: Stop, *, now: int) -> None:
    attempt = marks.attempts.get(stop.attempt)
    if attempt is None or not attempt.live:
        return
    marks.attempts[attempt.id] = replace(
        attempt,
        stopping=attempt.stopping or stop.why,
        stop_asked_at=attempt.stop_asked_at if attempt.stopping else now,
        abort=attempt.abort or stop.abort,
    )


def _terminate(marks: _Marks, id: str, *, why: str, now: int) -> None:
    one = marks.instances.get(id)
    if one is not None and one.phase not in ("terminating", "terminated"):
        marks.instances[id] = replace(one, phase="terminating", reason=why, terminate_at=now)


def _detach(marks: _Marks, detach: Detach, *, now: int) -> None:
    """The host lives on: it is ours no more, and so ended for us."""
    one = marks.instances.get(detach.instance)
    if one is not None:
        marks.instances[one.id] = replace(one, phase="terminated", reason=detach.why, terminated_at=now)


def _update(marks: _Marks, update: Update) -> None:
    kind, _, id = update.subject.partition(" ")
    if update.enrol is not None:
        marks.runs.setdefault(update.enrol.id, update.enrol)
    elif kind == "instance":
        _change(marks.instances, id, update.changes)
    elif kind == "run":
        _change(marks.runs, id, update.changes)
    elif kind == "attempt":
        _change(marks.attempts, id, update.changes)
    elif kind == "wish" and "given_up" in update.changes:
        marks.wishes.pop(id, None)
    elif kind == "wish":
        _change(marks.wishes, id, update.changes)
    elif kind == "leftover":
        _change(marks.unowned, id, update.changes)


def _change(records: dict[str, T], id: str, changes: Mapping[str, Any]) -> None:
    """A plan read from a file has its nested values as plain mappings: they get their types back."""
    record = records.get(id)
    if record is None:
        return
    typed = {
        name: msgspec.convert(value, _types(type(record))[name]) if isinstance(value, dict | list) else value
        for name, value in changes.items()
    }
    records[id] = replace(record, **typed)


@cache
def _types(kind: type[Any]) -> dict[str, Any]:
    return {each.name: each.type for each in msgspec.structs.fields(kind)}
