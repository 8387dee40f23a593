"""Outcomes into memory: once, and never against what is newer."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from reconciler.state.capacity_backoff import shun
from reconciler.state.record_outcomes import (
    ArtifactsSaved,
    Cleaned,
    Halted,
    LaunchRefused,
    Outcome,
    ResultCollected,
    Sent,
    Started,
    StartFailed,
    fold,
)
from schemas.run import Job
from schemas.state import Capacity, State
from tests.state.test_absorb import NOW, PLACE, a_state, an_attempt, an_instance, an_intent, job, one, pending

REFUSED = LaunchRefused(
    intent="l",
    why="sold out",
    capacities=(Capacity(place=PLACE, instance_type="small", until=NOW + 180, why="sold out"),),
)


def after(state: State, *outcomes: Outcome) -> State:
    return fold(state, outcomes, now=NOW)


def with_job(status: Any, *, attempt: dict[str, Any] | None = None, **fields: Any) -> State:
    known = Job(id="j", instance="l-0", status=status, **fields)
    return a_state(an_instance(), attempts=(an_attempt(known, **(attempt or {})),))


def test_a_launch_that_was_sent_stays_open() -> None:
    state = after(a_state(pending(), intents=(an_intent("l-0"),)), Sent(intent="l", hints=("i-1",)))
    assert one(state).phase == "pending"
    assert (state.intents[0].sent, state.intents[0].hints) == (1, ("i-1",))


def test_a_refused_launch_is_over_and_remembered() -> None:
    state = after(a_state(pending(), intents=(an_intent("l-0"),)), REFUSED, REFUSED)
    assert (one(state).phase, one(state).reason) == ("terminated", "sold out")
    assert state.intents == ()
    assert state.capacity == REFUSED.capacities


def test_a_refusal_does_not_end_what_was_seen() -> None:
    assert one(after(a_state(an_instance(), intents=(an_intent("l-0"),)), REFUSED)).phase == "ready"


@pytest.mark.parametrize(("status", "expected"), [("assigned", "running"), ("ended", "ended"), ("done", "done")])
def test_a_start_is_believed_unless_more_is_known(status: Any, expected: str) -> None:
    assert job(after(with_job(status), Started(job="j", boot_id="boot-1", at=NOW))).status == expected


def test_a_start_that_failed_for_good_fails_the_job() -> None:
    failed = job(after(with_job("assigned"), StartFailed(job="j", why="disk full", at=NOW)))
    assert (failed.status, failed.reason, failed.ended_at) == ("failed", "disk full", NOW)


def test_a_halt_is_noted() -> None:
    assert job(after(with_job("assigned"), Halted(job="j"))).halted


@pytest.mark.parametrize(
    ("known", "attempt", "expected"),
    [
        ({"exit_code": 0}, {}, ("done", "")),
        ({"exit_code": 3}, {}, ("failed", "exit 3")),
        ({"exit_code": 143, "reason": "max duration 2h"}, {}, ("terminated", "max duration 2h")),
        ({"exit_code": 0, "reason": "max duration 6h"}, {}, ("terminated", "max duration 6h")),
        ({"exit_code": 0, "reason": "inactive for 12s"}, {}, ("terminated", "inactive for 12s")),
        ({"exit_code": 143}, {"stopping": "stopped by ann"}, ("terminated", "stopped by ann")),
        ({"exit_code": 0}, {"stopping": "stopped by ann"}, ("done", "")),
        ({"exit_code": 3, "reason": "exit 3"}, {"stopping": "stopped by ann"}, ("failed", "exit 3")),
        ({"exit_code": 0, "interrupted": True, "reason": "interrupted"}, {}, ("failed", "interrupted")),
    ],
)
def test_a_result_settles_its_job(known: dict[str, Any], attempt: dict[str, Any], expected: tuple[str, str]) -> None:
    state = after(with_job("ended", attempt=attempt, **known), ResultCollected(job="j", log="aa", artifacts="bb"))
    found = job(state)
    assert (found.status, found.reason) == expected
    assert (found.log, found.artifacts) == ("aa", "bb")
    assert one(state).stray_jobs == ("j",)
    assert one(after(state, Cleaned(job="j", instance="l-0"))).stray_jobs == ()


def test_saved_artifacts_are_the_newest_there_are() -> None:
    state = after(with_job("running"), ArtifactsSaved(job="j", artifacts="aa", at=NOW - 9))
    assert (job(state).artifacts, job(state).saved_at, job(state).status) == ("aa", NOW - 9, "running")
    state = after(state, ArtifactsSaved(job="j", artifacts="", at=NOW))
    assert (job(state).artifacts, job(state).saved_at) == ("aa", NOW)
    assert (
        job(after(with_job("done", artifacts="bb"), ArtifactsSaved(job="j", artifacts="aa", at=NOW))).artifacts == "bb"
    )


def test_a_result_without_artifacts_keeps_those_that_were_saved() -> None:
    known = with_job("ended", exit_code=0, artifacts="aa")
    assert job(after(known, ResultCollected(job="j", log="l"))).artifacts == "aa"
    assert job(after(known, ResultCollected(job="j", log="l", artifacts="bb"))).artifacts == "bb"


def test_a_result_of_a_settled_job_changes_nothing() -> None:
    assert job(after(with_job("lost"), ResultCollected(job="j", log="aa"))).status == "lost"


def test_outcomes_of_what_is_no_more_change_nothing() -> None:
    state = a_state()
    outcomes: list[Outcome] = [
        Sent(intent="x"),
        Started(job="x", boot_id="", at=NOW),
        Halted(job="x"),
        ResultCollected(job="x", log="aa"),
        Cleaned(job="x", instance="x"),
    ]
    assert after(state, *outcomes) == state


def test_an_offer_that_refused_is_remembered_once_whoever_wrote_it() -> None:
    first = replace(REFUSED.capacities[0], since=NOW, why="none now")
    again = replace(REFUSED.capacities[0], since=NOW + 60, until=NOW + 240, why="slow down")
    other = replace(first, zone="b")
    assert shun((first, other), (again,)) == (other, replace(again, since=NOW))
