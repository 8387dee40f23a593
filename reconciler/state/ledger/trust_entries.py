"""Ledger entries for drains, pauses, quarantines, and instances that came back. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.state.drains import INSTANCE, told
from reconciler.state.observe.late_hosts import returned
from schemas.instance import Instance
from schemas.ledger import Entry, EntryKind
from schemas.state import Override, State

ORDERS: dict[str, EntryKind] = {"drain": "drained", "pause": "paused"}


def entries_of_trust(was: State | None, state: State, *, by: str, now: int) -> Iterator[Entry]:
    """One entry for each change. What may change again and again has its time in its id."""
    yield from _of_orders(was, state, by=by, now=now)
    then = {one.id: one for one in was.instances} if was else {}
    for one in state.instances:
        before = then.get(one.id)
        if before is not one:
            yield from _of_instance(before, one, by=by, now=now)
    yield from _of_returned(was, state, by=by, now=now)


def _of_orders(was: State | None, state: State, *, by: str, now: int) -> Iterator[Entry]:
    """A person's word, with who said it; and its end, by a word or by its time."""
    before, after = ({(one.kind, one.subject): one for one in each.overrides if one.kind in ORDERS} if each else {}
                     for each in (was, state))  # fmt: skip
    for key, order in after.items():
        if before.get(key) != order:
            yield _order(order, state, kind=ORDERS[order.kind], at=order.at, by=order.by, why=told(order, whole=True))
    for key, order in before.items():
        if key not in after:
            yield _order(order, state, kind="resumed", at=now, by=by, why=f"was {told(order)}")


def _order(order: Override, state: State, *, kind: EntryKind, at: int, by: str, why: str) -> Entry:
    id = order.subject.removeprefix(INSTANCE) if order.subject.startswith(INSTANCE) else ""
    one = next((each for each in state.instances if each.id == id), None) if id else None
    pool = (one.pool if one else "") if id else order.subject
    return Entry(
        id=f"{kind}:{order.kind}:{order.subject}:{at}",
        at=at,
        kind=kind,
        subject=order.subject if id else f"pool {order.subject}",
        name=(one.name if one else id) if id else order.subject,
        pool=pool,
        instance=id,
        by=by,
        why=why,
    )


def _of_instance(before: Instance | None, one: Instance, *, by: str, now: int) -> Iterator[Entry]:
    """Of one that ended, its end is told, and why."""
    if one.phase == "terminated":
        return
    draining, quarantined = (before.draining, before.quarantined) if before else ("", "")
    if one.draining != draining:
        why = one.draining or f"drained no more: {draining}"
        yield _instance(one, "draining" if one.draining else "kept", at=now, by=by, why=why)
    if one.quarantined != quarantined:
        why = one.quarantined or f"was quarantined: {quarantined}"
        yield _instance(one, "quarantined" if one.quarantined else "trusted", at=now, by=by, why=why)
    stopped = before.disarmed if before else ""
    if one.disarmed != stopped:
        why = one.disarmed or f"was: {stopped}"
        yield _instance(one, "disarmed" if one.disarmed else "armed", at=now, by=by, why=why)


def _of_returned(was: State | None, state: State, *, by: str, now: int) -> Iterator[Entry]:
    """A job given up on a host that did not answer: found there when it did. Once for each, however often it hides."""
    known = {job.id for _, job, _ in returned(was)} if was else set()
    for one, job, run in returned(state):
        if job.id not in known:
            why = f"job {job.id} of run {run} was given up ({job.reason}): it is ended there and removed"
            yield _instance(one, "returned", at=now, by=by, why=why, key=job.id)


def _instance(one: Instance, kind: EntryKind, *, at: int, by: str, why: str, key: str = "") -> Entry:
    return Entry(
        id=f"{kind}:{key}" if key else f"{kind}:{one.id}:{at}",
        at=at,
        kind=kind,
        subject=f"instance {one.id}",
        name=one.name,
        pool=one.pool,
        place=one.place,
        instance=one.id,
        by=by,
        why=why,
    )
