"""Merge listings: phases, ends, absences, launches seen or lost, orphaned instances. Pure.

An instance is gone when its place says ended, or when it was absent from two good listings
at least five minutes apart and a look-up by id agrees.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from msgspec.structs import replace

from reconciler.state.capacity_backoff import late_capacity, merged, shun
from reconciler.state.host_place import host_of
from reconciler.state.ledger.entries import billed_until
from reconciler.state.observe.sightings import Answer, Sightings
from reconciler.state.relaunch.end_requests import FORGOTTEN
from reconciler.state.sending import APART, apart, counted_from, type_at
from reconciler.state.status import INTERRUPTED, POWERED_OFF, UNHEARD
from schemas.base import Seconds
from schemas.instance import Instance, Seen
from schemas.launch import Intent, Refused
from schemas.resources import Resources
from schemas.state import State, Tombstone

LAG = 60
KEPT_STOPPED = "powered off, kept by prevent_destroy: start it again, or terminate it"


def absorb_listings(state: State, *, answers: Mapping[str, Answer], before: State | None, now: int) -> State:
    """The state with the answers in it."""
    sightings = Sightings(state, answers)
    unchanged = _unchanged(state, before)
    searched = {id: _Searched.of(intent, state) for intent in state.intents for id in intent.request.ids}
    instances = []
    for instance in state.instances:
        answer = answers.get(instance.place)
        if (sighting := sightings.of(instance)) is not None:
            instances.append(_sighted(instance, sighting.seen, sighting.answer, now=now))
        elif answer is None:
            instances.append(instance)
        elif instance.phase != "terminated" and instance.id in unchanged and answer.timed:
            instances.append(_absent(instance, answer, searched=searched.get(instance.id), now=now))
        else:
            instances.append(instance)
    if unowned := sightings.unowned():
        known = {one.id for one in state.instances}
        for seen, answer in unowned:
            instances.append(_orphan(seen, answer, state=state, known=known, now=now))
            known.add(instances[-1].id)
    failures = {
        one.id: sighting.seen.failure
        for one in state.instances
        if (sighting := sightings.of(one)) is not None and sighting.seen.failure is not None
    }
    state = _remembered(state, failures, now=now)
    return _closed(replace(state, instances=sightings.once_each(instances)), was=state, now=now)


def _remembered(state: State, failures: Mapping[str, Refused], *, now: int) -> State:
    """What a launch was refused for after all keeps us from asking again too soon, as a refusal at once does."""
    found = [
        late_capacity(intent, failures[id], now=now)
        for intent in state.intents for id in intent.request.ids if id in failures
    ]  # fmt: skip
    return replace(state, capacity=shun(state.capacity, merged(found))) if found else state


def _unchanged(state: State, before: State | None) -> frozenset[str]:
    """Ids of the instances that were the same, but for observation, before we looked."""
    if before is None:
        return frozenset(instance.id for instance in state.instances)
    then = {instance.id: (instance.phase, instance.external_id) for instance in before.instances}
    return frozenset(one.id for one in state.instances if then.get(one.id) == (one.phase, one.external_id))


def _sighted(instance: Instance, seen: Seen, answer: Answer, *, now: int) -> Instance:
    if instance.phase == "terminated":
        return _returned(instance, seen, answer)
    instance = _facts(instance, seen, at=answer.at)
    if seen.failure is not None and not instance.ending:
        return _failed(instance, seen, answer, now=now)
    match seen.phase:
        case "ended":
            instance = replace(instance, ended_at=_end(instance, seen, at=answer.at))
            told = _why(seen)  # an interruption may be told only after the first listing that showed it ending
            reason = told if seen.interrupted else instance.reason or told or "ended by its place"
            return _gone(instance, reason=reason, now=now)
        case "ending":
            reason = instance.reason if instance.phase == "terminating" else _why(seen) or "its place is ending it"
            at = instance.terminate_at or now
            return replace(instance, phase="terminating", ending=True, reason=reason, terminate_at=at)
        case "stopped" if instance.prevent_destroy and instance.phase != "terminating":
            return replace(instance, unfit=KEPT_STOPPED)
        case "stopped":
            reason = instance.reason if instance.phase == "terminating" else _why(seen) or "its backend stopped it"
            return _leaving(replace(instance, ending=False), reason=reason, now=now)
        case _:
            return replace(instance, phase="provisioning") if instance.phase == "pending" else instance


def _leaving(instance: Instance, *, reason: str, now: int) -> Instance:
    """It is ended: its backend is asked to by this apply."""
    return replace(instance, phase="terminating", reason=reason, terminate_at=instance.terminate_at or now)


def _end(instance: Instance, seen: Seen, *, at: int) -> int | None:
    """When its place says that it ended: not before it was made, and not to come.

    Of one that powered itself off no place tells: its timer did that when it was due, as far as we know.
    """
    if seen.ended_at is None and seen.by_itself and instance.self_destruct_at is not None:
        return min(max(instance.self_destruct_at, instance.seen_at or 0, instance.created_at), at)
    return None if seen.ended_at is None else min(max(seen.ended_at, instance.created_at), at)


def _failed(instance: Instance, seen: Seen, answer: Answer, *, now: int) -> Instance:
    """Its launch was refused after its request was accepted; what that left behind is ended."""
    instance = replace(instance, refused=True)
    why = seen.failure.why if seen.failure is not None else ""
    if seen.phase == "ended":
        return _gone(replace(instance, ended_at=_end(instance, seen, at=answer.at)), reason=why, now=now)
    return _leaving(replace(instance, ending=seen.phase == "ending"), reason=why, now=now)


def _why(seen: Seen) -> str:
    if seen.by_itself:
        return f"{POWERED_OFF}: its dead-man timer did, or whoever was there"
    return ": ".join(filter(None, (INTERRUPTED, seen.reason))) if seen.interrupted else seen.reason


def _facts(instance: Instance, seen: Seen, *, at: int) -> Instance:
    first = instance.seen_at is None
    return replace(
        instance,
        external_id=seen.external_id,
        region=seen.region or instance.region,
        zone=seen.zone or instance.zone,
        instance_type=seen.instance_type or instance.instance_type,
        price=instance.price if seen.price is None else seen.price,
        at_most=instance.at_most and seen.price in (None, instance.price),
        priced_at=instance.priced_at if _same_price(instance, seen) else at,
        resources=_resources(instance, seen, first=first),
        address=seen.address or instance.address,
        internal_ip=seen.internal_ip or instance.internal_ip,
        network=seen.network or instance.network,
        via=seen.via,
        kernel=seen.kernel or instance.kernel,
        unfit=seen.unfit,
        promised=seen.phase == "starting",
        stopped=seen.phase == "stopped",
        created_at=_made(instance, seen, at=at) if first and seen.created_at else instance.created_at,
        seen_at=at if first else instance.seen_at,
        missing_since=None,
        absences=0,
    )


def _made(instance: Instance, seen: Seen, *, at: int) -> int:
    """When its place says that it was made: not before its launch was written, and not to come."""
    return min(max(seen.created_at or 0, instance.created_at - LAG), at)


def _same_price(instance: Instance, seen: Seen) -> bool:
    """What it was thought to cost before anybody saw it was never billed."""
    return seen.price is None or instance.seen_at is None or seen.price == instance.price


def _resources(instance: Instance, seen: Seen, *, first: bool) -> Resources:
    """As first seen; a declared server may be given more or less of what no job holds by name."""
    if seen.resources is None or (not first and instance.host is None):
        return instance.resources
    if first and instance.resources.runtime_fixed:
        return replace(seen.resources, runtime=instance.resources.runtime)
    if first:
        return seen.resources
    return replace(instance.resources, cpus=seen.resources.cpus, memory=seen.resources.memory)


def _returned(instance: Instance, seen: Seen, answer: Answer) -> Instance:
    """It was proven gone and is there again: nobody's, in the place that lists it. A listing that lags is not that.

    One that `state forget` took out was never asked to end, so that no listing of it lags.
    """
    at = answer.at
    lag = 0 if instance.reason.startswith(FORGOTTEN) else LAG
    if seen.phase in ("ended", "ending") or at <= (instance.terminated_at or 0) + lag:
        return instance
    why = f"seen again after its end ({instance.reason})" if instance.reason else "seen again after its end"
    back = replace(
        instance,
        place=answer.place.name,
        backend=answer.place.config.name,
        phase="provisioning",
        orphan=why,
        ending=False,
        ready_at=None,
        terminated_at=None,
        ended_at=None,
        priced_at=billed_until(instance, now=at),
    )
    return _facts(back, seen, at=at)


class _Searched(NamedTuple):
    """How long a machine that nobody has seen is looked for."""

    counted_from: int
    apart: Seconds

    @classmethod
    def of(cls, intent: Intent, state: State) -> _Searched:
        kind = type_at(state, intent.request.place)
        return cls(counted_from(intent, kind), apart(kind))


def _absent(instance: Instance, answer: Answer, *, searched: _Searched | None, now: int) -> Instance:
    """Count an absence: of a machine once seen, or of a launch whose time is over."""
    since, between = searched or _Searched(instance.created_at + 2 * APART, APART)
    if instance.external_id:
        since, between = instance.seen_at or 0, APART
    if answer.at <= since:
        return instance
    if instance.missing_since is None:
        return replace(instance, missing_since=answer.at, absences=1)
    if answer.at - instance.missing_since < between:
        return instance
    if instance.external_id and not answer.asked_by_id:
        return instance
    reason = instance.reason if instance.phase == "terminating" else ""
    if not instance.external_id:
        return _gone(instance, reason=reason or "its launch is lost: it was never seen", now=now)
    return _gone(instance, reason=reason or "gone: its place no longer knows it", now=now)


def _gone(instance: Instance, *, reason: str, now: int) -> Instance:
    return replace(
        instance,
        phase="terminated",
        reason=reason,
        terminated_at=now,
        unreachable_since=None,
        unreachable_why="",
        failed_looks=0,
        stray_jobs=(),
    )


def _orphan(seen: Seen, answer: Answer, *, state: State, known: set[str], now: int) -> Instance:
    names = (seen.id, f"x-{seen.external_id}", f"x-{answer.place.name}-{seen.external_id}".replace("/", "-"))
    id = next((name for name in names if name and name not in known), names[-1])
    lost = next((stone for stone in state.tombstones if stone.id in (id, seen.launch)), None)
    return Instance(
        id=id,
        name=id,
        pool=seen.pool,
        backend=answer.place.config.name,
        place=answer.place.name,
        region=seen.region or answer.place.region,
        zone=seen.zone,
        instance_type=seen.instance_type,
        resources=seen.resources or Resources(cpus=0, memory=0),
        spot=seen.spot,
        price=seen.price,
        external_id=seen.external_id,
        launch=seen.launch,
        phase="terminating" if seen.phase == "ending" else "provisioning",
        ending=seen.phase == "ending",
        address=seen.address,
        internal_ip=seen.internal_ip,
        network=seen.network,
        via=seen.via,
        created_at=min(seen.created_at or now, max(now, answer.at)),
        seen_at=answer.at,
        host=host_of(answer.place.config),
        orphan=_why_orphan(seen, lost, twice=seen.id in known),
    )


def _why_orphan(seen: Seen, lost: Tombstone | None, *, twice: bool) -> str:
    """A launch is written before it is begun: one of which nothing is written was begun by another state's tick."""
    if lost is not None:
        return f"given up: {lost.why}"
    if seen.launch and not twice:
        made = f", by its tag at generation {seen.generation}" if seen.generation else ""
        return f"{UNHEARD}: this one has never heard of the launch that made it{made}"
    return "carries this project's tag, and the state does not know it"


def _closed(state: State, *, was: State, now: int) -> State:
    """Launches that were seen or lost are open no more; those lost must not come back."""
    alive_before = {instance.id for instance in was.instances if instance.phase != "terminated"}
    never = [
        one for one in state.instances if one.phase == "terminated" and not one.external_id and one.id in alive_before
    ]
    stones = tuple(Tombstone(id=one.id, kind="instance", at=now, why=one.reason) for one in never)
    pending = {one.id for one in state.instances if _may_come(one)}
    return replace(
        state,
        intents=tuple(intent for intent in state.intents if _open(intent, pending)),
        tombstones=(*state.tombstones, *stones),
    )


def _may_come(instance: Instance) -> bool:
    """Its launch is not over: it was not seen, or its backend only promises it."""
    if not instance.external_id:
        return instance.phase != "terminated"
    return instance.promised and instance.phase == "provisioning"


def _open(intent: Intent, pending: set[str]) -> bool:
    return any(id in pending for id in intent.request.ids)
