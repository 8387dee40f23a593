"""Forget a backend's region or an instance that never returns, on a person's command. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from msgspec.structs import replace

from reconciler.state.rebuild import RebuildRefused
from reconciler.state.relaunch.end_requests import FORGOTTEN
from reconciler.text.format import counted, few, hourly
from schemas.base import Price, place_of
from schemas.instance import Instance
from schemas.run import Attempt
from schemas.state import Place, State, Tombstone


def forget(state: State, subject: str, now: int, *, by: str = "") -> State:
    """A place by name, or a living instance by id or name, that never returns: no longer counted.

    Its instances end as tombstones and their jobs are lost; a later sighting is an orphan. What sells instances keeps
    its record under a name with its account, so that another account may be used under the old one.
    """
    why = f"{FORGOTTEN} by {by}" if by else FORGOTTEN
    place = next((each for each in state.places if each.name == subject and not each.forgotten), None)
    if place is not None and place.identity and place.config.traits.bought:
        state = _under_account(state, place)
        subject = _former(place)
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


def _former(place: Place) -> str:
    """`aws/us-east-1 of 111122223333`."""
    return f"{place.name} of {place.identity}"


def _under_account(state: State, place: Place) -> State:
    """Its record and all that is there, named with its account; others are not bound to that account because of it."""
    name = _former(place)

    def loosened(other: Place) -> Place:
        if other.name == place.name:
            return replace(other, name=name)
        same = other.config.name == place.config.name and other.identity == place.identity
        return replace(other, identity="") if same and other.observed_at is None and not other.forgotten else other

    return _renamed(replace(state, places=tuple(map(loosened, state.places))), {place.name: name})


def _renamed(state: State, names: Mapping[str, str]) -> State:
    """What is remembered of places, under their new names. What was refused there says nothing of another account."""
    return replace(
        state,
        instances=tuple(
            replace(each, place=names[each.place]) if each.place in names else each for each in state.instances
        ),
        unowned=tuple(
            replace(each, place=names[each.place]) if each.place in names else each for each in state.unowned
        ),
        capacity=tuple(each for each in state.capacity if each.place not in names),
    )


def remember(state: State, places: Collection[str]) -> State:
    """Forgotten places that answer again, by name, are asked by every apply from now on.

    What was forgotten with them is without an owner until it is seen to have ended. Each has its old name again, unless
    another account is used under that.
    """
    taken = {each.name for each in state.places if each.identity}
    names = {
        each.name: old
        for each in state.places
        if each.name in places and (old := place_of(each.config.name, each.region)) not in taken
    }
    state = _renamed(
        replace(
            state,
            places=tuple(
                replace(each, name=names.get(each.name, each.name))
                for each in state.places
                if each.name not in names.values() or each.name in names
            ),
            tombstones=tuple(each for each in state.tombstones if each.kind != "place" or each.id not in places),
        ),
        names,
    )
    places = {names.get(each, each) for each in places}
    known = tuple(replace(each, forgotten=False) if each.name in places else each for each in state.places)
    left = {each.id for place in places for each in left_at(state, place) if each.phase == "terminated"}
    return replace(
        state,
        places=known,
        instances=tuple(_again(each) if each.id in left and each.external_id else each for each in state.instances),
    )


def _again(instance: Instance) -> Instance:
    return replace(instance, phase="provisioning", terminated_at=None, reason="", orphan=f"given up: {instance.reason}")


def concerned(state: State, subject: str) -> tuple[Instance, ...]:
    """The living instances that `forget` would no longer count."""
    return tuple(
        each for each in state.instances if each.phase != "terminated" and subject in (each.place, each.id, each.name)
    )


def left_at(state: State, place: str) -> tuple[Instance, ...]:
    """The instances of `place` that are not known to have ended, as far as the state still remembers them."""
    return tuple(
        each
        for each in state.instances
        if each.place == place and (each.phase != "terminated" or each.reason.startswith(FORGOTTEN))
    )


def unanswered(state: State) -> dict[str, str]:
    """Places where instances are made on request that did not answer when they were asked last, and why."""
    return {
        each.name: each.error
        for each in state.places
        if each.error and not each.forgotten and each.config.traits.bought
    }


def billing(instances: Iterable[Instance]) -> str:
    """`6 instances, $9.60/h: gpu-0, gpu-1 …`; "" for none."""
    found = tuple(instances)
    if not found:
        return ""
    price = sum((each.price or Price(0) for each in found), Price(0))
    unknown = "" if all(each.price is not None for each in found) else " and what has no known price"
    return f"{counted(len(found), 'instance')}, {hourly(price)}{unknown}: {few(each.name for each in found)}"


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
