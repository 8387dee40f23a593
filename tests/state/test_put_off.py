"""Failing servers are looked at later and later, whoever ticks; another machine and a person look at once."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.state.host_backoff import FREE, LONGEST, WITH_WORK, next_looks, put_off
from reconciler.state.observe.merge import absorb
from schemas.desired import BackendConfig
from schemas.instance import Listing
from schemas.state import Place, State
from tests.worlds.planning import NOW, world_of

HOST = "ssh/n1"
CRON = "cron@lab"


def a_state(*, working: bool = False) -> State:
    """One server that answered once, with or without a job on it."""
    attempts = [{"run": "train", "jobs": [{"instance": "n1"}]}] if working else []
    return world_of(
        {
            "desired": {"pools": [{"name": "gpu"}]},
            "state": {
                "runs": [{"name": "train", "status": "running"}],
                "instances": [{"name": "n1", "pool": "gpu", "backend": "ssh", "place": HOST, "region": ""}],
                "attempts": attempts,
            },
        }
    ).state


def looked(state: State, *, at: int, error: str = "refused", by: str = CRON) -> State:
    listing = Listing(place=HOST, at=at, error=error, by=by, identity="" if error else "x")
    return absorb(state, listings=[listing], reports=(), now=at)


def times_of_looks(*, working: bool, every: int, until: int) -> list[int]:
    """When cron, which comes every so many seconds, looks at a server that never answers."""
    state, found = a_state(working=working), []
    for at in range(NOW, NOW + until, every):
        if HOST not in put_off(state, now=at, who=CRON):
            found.append(at - NOW)
            state = looked(state, at=at)
    return found


@pytest.mark.parametrize(
    ("working", "expected"),
    [
        (False, [0, 10, 20, 50, 110, 230, 470, 950, 1850, 2750]),
        (True, [0, 10, 20, 50, 110, 170, 230, 290, 350, 410]),
    ],
)
def test_each_look_is_later_up_to_a_limit(working: bool, expected: list[int]) -> None:
    found = times_of_looks(working=working, every=10, until=3700)
    assert found[: len(expected)] == expected
    assert max(b - a for a, b in itertools.pairwise(found)) == (WITH_WORK if working else LONGEST)


def failing(count: int, *, by: str = CRON) -> State:
    state = a_state()
    for number in range(count):
        state = looked(state, at=NOW + number, by=by)
    return state


def test_another_machine_looks_at_once_and_then_waits_itself() -> None:
    state = failing(FREE)
    now = NOW + FREE
    assert put_off(state, now=now, who=CRON) == {HOST}
    assert put_off(state, now=now, who="ann@laptop") == frozenset()
    state = looked(state, at=now, by="ann@laptop")
    assert put_off(state, now=now + 1, who="ann@laptop") == {HOST}
    assert put_off(state, now=now + 1, who=CRON) == frozenset()


def test_an_answer_begins_anew_and_a_clock_that_went_back_puts_nothing_off() -> None:
    state = failing(9)
    assert put_off(state, now=NOW - 3600, who=CRON) == frozenset()
    state = looked(state, at=NOW + 99, error="")
    assert (put_off(state, now=NOW + 99, who=CRON), next_looks(state)) == (frozenset(), {})
    assert state.places[0] == Place(
        name=HOST, config=BackendConfig(name="ssh", type="ssh"), identity="x", observed_at=NOW + 99
    )


@given(st.integers(0, 40))
def test_the_same_look_absorbed_twice_is_one(count: int) -> None:
    state = failing(count)
    again = looked(state, at=NOW + count - 1) if count else state
    assert again == state


def test_places_of_clouds_are_always_asked() -> None:
    state = a_state()
    place = Place(name="aws/us", config=BackendConfig(name="aws", type="aws"))
    state = State(version=state.version, project="p", lineage="l", places=(place,))
    for at in range(9):
        state = absorb(state, listings=[Listing(place="aws/us", at=NOW + at, error="no", by=CRON)], reports=(), now=NOW)
    assert put_off(state, now=NOW + 9, who=CRON) == frozenset()
