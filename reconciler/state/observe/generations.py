"""Refuse a state that is older than a generation seen on instances or hosts. Pure.

Jobs on a host are the login that we have there, and can write whatever we read. So a word is believed where jobs cannot
have written it: the tags of a cloud, this machine, and what a host was told under the seal of the project's key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from reconciler.state.errors import StateRefused
from reconciler.state.status import bought
from schemas.base import Value
from schemas.instance import HostReport, Seen
from schemas.state import State


class Doubts(Value, frozen=True, kw_only=True):
    """Who says what this project did not write, and why it is not believed: servers by place, bought machines by id."""

    places: Mapping[str, str] = {}
    instances: Mapping[str, str] = {}


@dataclass(frozen=True)
class _Word:
    """`proven`: no job can have written it."""

    place: str
    who: str
    generation: int
    proven: bool


def distrust(state: State, *, seen: Mapping[str, Sequence[Seen]], reports: Sequence[HostReport]) -> Doubts:
    """Hosts that claim a generation above the state's, which nobody can prove.

    A machine that we bought is told of each generation under seal: whatever else it claims stops nobody but itself.
    Declared servers are told of some without one, by whoever has no key at hand: one alone is not believed, nor are
    some where as many places agree with the state. Raises `StateRefused` where more of them say so, or where one
    word is proven: the state is a restored backup. `seen` is by place.
    """
    words = [word for word in _words(state, seen, reports) if word.generation]
    newer = [word for word in words if word.generation > state.generation]
    if not newer:
        return Doubts()
    servers = {place.name for place in state.places if place.config.is_server}
    claims = {word.place: word for word in newer if not word.proven and word.place in servers}
    agreeing = len({word.place for word in words} - {word.place for word in newer})
    proven = [word for word in newer if word.proven]
    if proven or (len(claims) > 1 and agreeing < len(claims)):
        top = max(proven or claims.values(), key=lambda word: word.generation)
        raise StateRefused(
            f"the state is older than the world: generation {state.generation}, but {top.who} carries "
            f"{top.generation}; it looks like a restored backup, or another copy of it is in use: put the newer one "
            "back, or `dstack state rebuild`"
        )
    return Doubts(
        places={place: _why(state, word, agreeing=agreeing) for place, word in claims.items()},
        instances={word.who: _why(state, word) for word in newer if not word.proven and word.place not in servers},
    )


def _words(state: State, seen: Mapping[str, Sequence[Seen]], reports: Sequence[HostReport]) -> Iterator[_Word]:
    """A server's claim is a file of its login's. What carries no number says nothing."""
    servers = {place.name for place in state.places if place.config.is_server}
    for place, ours in seen.items():
        for one in ours:
            yield _Word(place, one.id, one.generation, place not in servers)
    there = {instance.id: instance for instance in state.instances}
    for report in reports:
        instance = there.get(report.instance)
        if report.error or instance is None:
            continue
        yield _Word(instance.place, report.instance, report.generation, True)
        if report.claimed > report.generation and (bought(instance) or instance.place in servers):
            yield _Word(instance.place, report.instance, report.claimed, False)


def _why(state: State, word: _Word, *, agreeing: int | None = None) -> str:
    """`agreeing` is about a declared server: a machine that we bought is quarantined for itself, and goes."""
    said = f"it carries generation {word.generation}, this state is at {state.generation} and "
    if agreeing is None:
        return f"{said}the project's key did not seal that: a job there wrote it"
    others = {0: "nobody else says so", 1: "another place agrees"}.get(agreeing, f"{agreeing} other places agree")
    return (
        f"{said}{others}: this project did not write that, and uses and ends nothing there; see who has that login "
        "before it gets work again"
    )
