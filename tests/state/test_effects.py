"""Effects come from the marks of a written state, the same for whoever reads it."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from reconciler.state.pending_effects import Clean, Collect, End, Halt, Save, Send, Start, effects
from schemas.run import Job, Run, RunSpec
from schemas.state import State
from tests.state.test_absorb import NOW, PLACE, a_state, an_attempt, an_instance, an_intent, pending


def of(state: State, *, at: int = NOW) -> list[Any]:
    return list(effects(state, now=at))


def with_job(job: Job, *, instance: dict[str, Any] | None = None, **attempt: Any) -> State:
    run = Run(id="r", spec=RunSpec(name="train", artifacts=("*.txt",)))
    return a_state(an_instance(**(instance or {})), runs=(run,), attempts=(an_attempt(job, **attempt),))


def test_an_open_launch_is_sent_until_it_is_seen() -> None:
    state = a_state(pending("l-0"), pending("l-1"), intents=(an_intent("l-0", "l-1"),))
    assert [type(effect) for effect in of(state)] == [Send]
    half = a_state(an_instance("l-0"), pending("l-1"), intents=state.intents)
    assert [type(effect) for effect in of(half)] == [Send]
    assert of(a_state(an_instance("l-0"), an_instance("l-1"), intents=state.intents)) == []


@pytest.mark.parametrize("case", ["too late", "unknown place", "refused", "not wanted"])
def test_a_launch_is_not_sent(case: str) -> None:
    state = a_state(pending(), intents=(an_intent("l-0", not_after=NOW if case == "too late" else NOW + 9),))
    if case == "unknown place":
        state = replace(state, places=(replace(state.places[0], error="timed out"),))
    if case == "refused":
        state = replace(state, intents=(replace(state.intents[0], refused="sold out"),))
    if case == "not wanted":
        state = replace(state, instances=(replace(state.instances[0], phase="terminating"),))
    assert of(state) == []


def test_an_end_is_asked_for_until_its_place_shows_it() -> None:
    leaving = an_instance(phase="terminating")
    assert of(a_state(leaving, an_instance("l-1"))) == [End(place=PLACE, external_ids=("i-l-0",))]
    assert of(a_state(replace(leaving, ending=True))) == []
    assert of(a_state(pending(phase="terminating"))) == []


def test_nothing_is_touched_where_another_answers() -> None:
    jobs = (Job(id="a", instance="l-0"), Job(id="b", instance="l-0", status="ended"))
    state = a_state(
        an_instance(stray_jobs=("x",)), an_instance("l-1", phase="terminating"), attempts=(an_attempt(*jobs),)
    )
    other = replace(state.places[0], error="answers as somebody", answered_by="somebody")
    assert of(replace(state, places=(other,))) == []


def test_an_assigned_job_is_started() -> None:
    assert of(with_job(Job(id="j", instance="l-0"))) == [Start(attempt="r-0-1", job="j", instance="l-0")]


@pytest.mark.parametrize(
    "instance",
    [{"unreachable_since": NOW}, {"phase": "terminating", "ending": True}, {"phase": "provisioning", "ready_at": None}],
)
def test_nothing_starts_where_nobody_answers_or_that_ends(instance: dict[str, Any]) -> None:
    assert of(with_job(Job(id="j", instance="l-0"), instance=instance)) == []


def test_nothing_of_a_broken_attempt_starts() -> None:
    jobs = (Job(id="a", instance="l-0", status="failed"), Job(id="b", instance="l-0"))
    assert of(a_state(an_instance(), attempts=(an_attempt(*jobs),))) == []


def test_a_stopping_attempt_halts_its_live_jobs() -> None:
    halt = Halt(job="j", instance="l-0", abort=False, why="stopped by ann")
    for status in ("assigned", "running"):
        assert of(with_job(Job(id="j", instance="l-0", status=status), stopping="stopped by ann")) == [halt]


def test_an_ended_job_is_collected_with_its_runs_artifacts() -> None:
    collect = Collect(job="j", instance="l-0", artifacts=("*.txt",))
    assert of(with_job(Job(id="j", instance="l-0", status="ended"))) == [collect]
    assert of(with_job(Job(id="j", instance="l-0", status="ended"), stopping="stopped by ann")) == [collect]


@pytest.mark.parametrize(
    ("every", "job", "due"),
    [
        (600, {"started_at": NOW - 599}, False),
        (600, {"started_at": NOW - 600}, True),
        (600, {"started_at": NOW - 9999, "saved_at": NOW - 599}, False),
        (600, {"started_at": NOW - 9999, "saved_at": NOW - 600}, True),
        (600, {"started_at": NOW - 9999, "status": "assigned"}, False),
        (600, {"started_at": NOW - 9999, "status": "done"}, False),
        (None, {"started_at": NOW - 9999}, False),
    ],
)
def test_artifacts_are_saved_while_a_job_runs(every: int | None, job: dict[str, Any], due: bool) -> None:
    state = with_job(Job(id="j", instance="l-0", **{"status": "running", **job}))
    spec = replace(state.runs[0].spec, artifacts_every=every)
    found = of(replace(state, runs=(replace(state.runs[0], spec=spec),)))
    assert (Save(job="j", instance="l-0", artifacts=("*.txt",)) in found) is due
    nothing_named = replace(state.runs[0], spec=replace(spec, artifacts=()))
    assert Save not in map(type, of(replace(state, runs=(nothing_named,))))


def test_a_stray_folder_is_cleaned_and_one_that_may_run_is_ended_first() -> None:
    state = a_state(
        an_instance(stray_jobs=("done", "unknown")),
        attempts=(an_attempt(Job(id="done", instance="l-0", status="done")),),
    )
    assert of(state) == [
        Clean(job="done", instance="l-0", stray=False),
        Clean(job="unknown", instance="l-0", stray=True),
    ]


def test_nothing_is_cleaned_on_an_instance_that_ends() -> None:
    """Its end removes everything; cleaning beside it finds folders gone half-way, and would be told as a failure."""
    leaving = an_instance(phase="terminating", stray_jobs=("done", "unknown"))
    assert of(a_state(leaving)) == [End(place=PLACE, external_ids=("i-l-0",))]
