"""Match listed machines to instances, over all places that list the same machines. The others are orphaned. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from msgspec.structs import replace

from reconciler.state.observe.listing_scope import homes
from schemas.instance import Instance, Listing, Seen
from schemas.state import Place, State


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What one place said, believed. `seen` holds its listing and its look-up by id, if one was made."""

    place: Place
    at: int
    """By the clock that is stored; of two answers of a place that tells the time, by its own."""
    seen: tuple[Seen, ...]
    asked_by_id: bool
    timed: bool = True
    """Whether the time between two of its answers can be told: no clock disagrees with ours."""


class Sighting(NamedTuple):
    """A machine in the listing of a place."""

    seen: Seen
    answer: Answer


class Sightings:
    """Which of our instances was seen, in the listing of its place or of another one that lists the same machines.

    Of two machines with the id of an instance that was never seen, the older one is the instance, the other nobody's.
    """

    def __init__(self, state: State, answers: Mapping[str, Answer]) -> None:
        self._state, self._answers = state, answers
        self._homes = homes(state.places)
        self._by_place: dict[tuple[str, str], Seen] = {}
        self._listed: dict[tuple[str, str], str] = {}  # (home, external id) -> a place that lists it
        for place in state.places:
            if place.name in answers:
                self._add(answers[place.name])
        marked = self._marked()
        self._matched: dict[str, tuple[str, str]] = {}
        for instance in state.instances:
            home = self._home(instance)
            key = (home, instance.external_id) if instance.external_id else marked.get((home, instance.id))
            if key in self._listed:
                self._matched[instance.id] = key

    def _add(self, answer: Answer) -> None:
        """The look-up by id comes later, and is newer. Its own backend, by its tag, is asked about a machine first."""
        place, backend = answer.place.name, answer.place.config.name
        home, lineages = self._homes[place], ("", self._state.lineage)
        for seen in answer.seen:
            if seen.lineage in lineages:
                self._by_place[place, seen.external_id] = seen
                key = (home, seen.external_id)
                if seen.backend == backend or key not in self._listed:
                    self._listed[key] = place

    def _marked(self) -> dict[tuple[str, str], tuple[str, str]]:
        """(home, id) of what was never seen -> the oldest machine with that id, a living one where there is any."""
        wanted = {(self._home(one), one.id) for one in self._state.instances if not one.external_id}
        if not wanted:
            return {}
        found: dict[tuple[str, str], tuple[bool, float, str]] = {}
        for (home, external_id), place in self._listed.items():
            seen = self._by_place[place, external_id]
            if (home, seen.id) not in wanted:
                continue
            age = (seen.phase == "ended", *age_of(seen))
            if (home, seen.id) not in found or age < found[home, seen.id]:
                found[home, seen.id] = age
        return {(home, id): (home, external_id) for (home, id), (_, _, external_id) in found.items()}

    def _home(self, instance: Instance) -> str:
        return self._homes.get(instance.place, instance.place)

    def of(self, instance: Instance) -> Sighting | None:
        """What its own place lists counts before what another one does."""
        key = self._matched.get(instance.id)
        if key is None:
            return None
        place = instance.place if (instance.place, key[1]) in self._by_place else self._listed[key]
        return self._sighting(place, key[1])

    def _sighting(self, place: str, external_id: str) -> Sighting:
        return Sighting(self._by_place[place, external_id], self._answers[place])

    def unowned(self) -> list[Sighting]:
        """Each machine once, the oldest first. None that may be an instance in a place that has never answered."""
        owned = set(self._matched.values())
        strange = [self._sighting(place, key[1]) for key, place in self._listed.items() if key not in owned]
        living = [one for one in strange if one.seen.phase != "ended"]
        if not living:
            return []
        pinned = {place.name for place in self._state.places if place.identity}
        pending = (one for one in self._state.instances if not one.external_id and one.phase != "terminated")
        waiting = {one.id for one in pending if one.place not in pinned}
        nobodys = [one for one in living if one.seen.id not in waiting]
        return sorted(nobodys, key=lambda one: age_of(one.seen))

    def once_each(self, instances: Sequence[Instance]) -> tuple[Instance, ...]:
        """Without orphans that are the machine of another record: it was found by two places."""
        if not any(one.orphan for one in instances):
            return tuple(instances)
        living = [one for one in instances if one.phase != "terminated" and one.external_id]
        records = {(self._home(one), one.external_id): one.id for one in reversed(living)}
        records |= {(self._home(one), one.external_id): one.id for one in living if not one.orphan}
        doubled = {one.id for one in living if one.orphan and records[self._home(one), one.external_id] != one.id}
        return tuple(one for one in instances if one.id not in doubled)


def age_of(seen: Seen) -> tuple[float, str]:
    """Sorts the oldest first."""
    return seen.created_at or math.inf, seen.external_id


def machines(listings: Sequence[Listing], *, places: Sequence[Place], lineage: str) -> list[tuple[str, Seen]]:
    """(place, machine) of each living machine of that lineage, once: under the backend that its tag names, else the
    first that lists it. Of several with one id the oldest; the others are nobody's.
    """
    found = {listing.place: listing for listing in listings}
    answered = [replace(place, identity=found[place.name].identity) for place in places if place.name in found]
    home = homes(answered)
    chosen: dict[tuple[str, str], tuple[str, Seen]] = {}
    for place in answered:
        for seen in found[place.name].instances:
            key = home[place.name], seen.external_id
            if seen.lineage not in ("", lineage) or seen.phase == "ended":
                continue
            if key not in chosen or seen.backend == place.config.name:
                chosen[key] = place.name, seen
    oldest: dict[str, tuple[str, Seen]] = {}
    for one in sorted(chosen.values(), key=lambda each: age_of(each[1])):
        oldest.setdefault(one[1].id or f"{one[0]} {one[1].external_id}", one)
    kept = {id(one) for one in oldest.values()}
    return [one for one in chosen.values() if id(one) in kept]
