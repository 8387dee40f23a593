"""Lists of the stored state say how old it is, where that matters."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from reconciler.cli.terminal.state_age import stale
from schemas.run import Job
from schemas.state import State
from tests.state.test_absorb import NOW, a_state, an_attempt, an_instance


def a_running(*, observed: int, job: str = "running", phase: str = "ready") -> State:
    state = a_state(an_instance(phase=phase), attempts=(an_attempt(Job(id="j", instance="l-0", status=job)),))
    return replace(state, places=tuple(replace(place, observed_at=observed) for place in state.places))


@pytest.mark.parametrize(
    ("state", "told"),
    [
        (a_running(observed=NOW - 60), ""),
        (a_running(observed=NOW - 7260), "note: as last observed 2h1m ago; `dstack apply` looks again"),
        (a_running(observed=NOW - 7260, job="done"), ""),
        (
            a_running(observed=NOW - 120, job="done", phase="terminating"),
            "note: as last observed 2m ago; `dstack apply` looks again",
        ),
        (a_state(), ""),
    ],
)
def test_what_is_old_and_unfinished_is_said_to_be(state: State, told: str) -> None:
    assert stale(state, now=NOW) == told
