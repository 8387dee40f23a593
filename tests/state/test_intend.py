"""A plan's actions become marks, and nothing else of it survives."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest

from reconciler.planner.plan import plan
from reconciler.state.record_plan import intend
from schemas.offer import Offer
from schemas.plan import Action, Assign, Attach, Detach, Launch, Plan, Resume, Stop, Terminate, Update
from schemas.run import Run, RunSpec
from schemas.state import State, Wish
from tests.worlds.planning import MACHINES, NOW, intended, requests_of, world_of

OFFER = Offer(backend="aws", region="us", instance_type="m5", resources=MACHINES["small"], price=Decimal("0.10"))


def state_of(**state: Any) -> State:
    return world_of({"state": state}).state


def marked(state: State, *actions: Action) -> State:
    made = Plan(version=1, project="testproject", generation=7, actions=actions)
    return intend(state, made, now=NOW, requests=requests_of(made, state=state))


def launch(**changes: Any) -> Launch:
    given = {
        "launch": "l1", "pool": "gpu", "ids": ("l1-0", "l1-1"), "names": ("gpu-0", "gpu-1"), "offer": OFFER, "why": "x",
        **changes,
    }  # fmt: skip
    return Launch(**given)


def test_a_launch_is_an_open_intent_and_named_pending_instances() -> None:
    after = marked(
        state_of(),
        launch(
            gang=True,
            reserved_for="r",
            reserved_until=NOW + 9,
            idle_duration=None,
            idle_source="run",
            hold=7,
            max_lifetime=8,
            unattended=None,
            prevent_destroy=True,
            origin="run",
        ),
    )
    assert [(intent.id, intent.opened_at, intent.sent) for intent in after.intents] == [("l1", NOW, 0)]
    one = after.instances[0]
    assert (one.id, one.name, one.phase, one.launch, one.created_at) == ("l1-0", "gpu-0", "pending", "l1", NOW)
    assert (one.place, one.region, one.instance_type, one.price) == ("aws/us", "us", "m5", Decimal("0.10"))
    assert (one.reserved_for, one.reserved_until, one.origin) == ("r", NOW + 9, "run")
    assert (one.idle_duration, one.idle_source, one.hold) == (None, "run", 7)
    assert (one.max_lifetime, one.unattended, one.prevent_destroy) == (8, None, True)


def test_a_launch_that_was_not_prepared_is_not_begun() -> None:
    made = Plan(version=1, project="testproject", generation=7, actions=(launch(),))
    assert intend(state_of(), made, now=NOW, requests={}) == state_of()


def test_a_wish_counts_what_was_launched_for_it() -> None:
    after = marked(state_of(wishes=[{"id": "w", "pool": "gpu", "count": 3}]), launch(wish="w"))
    assert after.wishes == (Wish(id="w", pool="gpu", count=3, launched=2),)
    assert {one.wish for one in after.instances} == {"w"}


def test_assign_is_an_attempt_with_its_jobs() -> None:
    state = state_of(
        runs=[{"name": "train", "reason": "waits", "wait_until": "+1h", "not_before": "-1s"}],
        instances=[{"name": "gpu-0", "pool": "gpu", "reserved_for": "train", "reserved_until": "+1h"}],
    )
    after = marked(state, assign(gpus=(("GPU-aa",),)))
    (attempt,), run = after.attempts, after.runs[0]
    assert (attempt.id, attempt.run, attempt.number, attempt.assigned_at) == ("train-0-1", "train", 1, NOW)
    assert [(job.id, job.instance, job.rank, job.status, job.gpus) for job in attempt.jobs] == [
        ("train-0-1-0", "gpu-0", 0, "assigned", ("GPU-aa",))
    ]
    assert (run.status, run.reason, run.attempts, run.wait_until, run.not_before) == ("provisioning", "", 1, None, None)
    assert after.instances[0].reserved_for == ""


def assign(**changes: Any) -> Assign:
    given = {
        "run": "train", "name": "train", "attempt": "train-0-1", "number": 1, "replica": 0, "pool": "gpu",
        "instances": ("gpu-0",), "why": "idle", **changes,
    }  # fmt: skip
    return Assign(**given)


@pytest.mark.parametrize(
    "state",
    [
        {"instances": [{"name": "gpu-0", "pool": "gpu"}]},
        {"instances": [{"name": "gpu-0", "pool": "gpu"}], "runs": [{"name": "train", "status": "terminated"}]},
        {"instances": [{"name": "gpu-0", "pool": "gpu", "phase": "terminating"}], "runs": [{"name": "train"}]},
        {"runs": [{"name": "train"}]},
    ],
    ids=["no run", "an ended run", "a leaving instance", "no instance"],
)
def test_what_is_no_more_is_passed_by(state: dict[str, Any]) -> None:
    assert marked(state_of(**state), assign()) == state_of(**state)


def test_assigned_twice_is_one_attempt() -> None:
    state = state_of(runs=[{"name": "train"}], instances=[{"name": "gpu-0", "pool": "gpu"}])
    once = marked(state, assign())
    assert marked(once, assign()) == once


def test_a_stop_keeps_its_first_reason_and_a_later_abort_hurries_it() -> None:
    state = state_of(
        runs=[{"name": "train"}],
        attempts=[{"run": "train", "jobs": [{"instance": "gpu-0"}], "stopping": "drain", "stop_asked_at": "-1m"}],
    )
    stop = Stop(run="train", name="train", attempt="train-0-1", pool="gpu", why="aborted", abort=True)
    (attempt,) = marked(state, stop).attempts
    assert (attempt.stopping, attempt.stop_asked_at, attempt.abort) == ("drain", NOW - 60, True)


def test_terminate_is_written_before_it_is_asked_for_and_once() -> None:
    state = state_of(instances=[{"name": "gpu-0", "pool": "gpu"}])
    end = Terminate(instance="gpu-0", name="gpu-0", pool="gpu", why="idle for 5m")
    after = marked(state, end)
    one = after.instances[0]
    assert (one.phase, one.reason, one.terminate_at) == ("terminating", "idle for 5m", NOW)
    again = Terminate(instance="gpu-0", name="gpu-0", pool="gpu", why="another reason")
    assert marked(after, again) == after


def test_updates_change_memory_alone() -> None:
    state = state_of(
        instances=[{"name": "gpu-0", "pool": "gpu"}],
        runs=[{"name": "train"}],
        attempts=[{"run": "train", "jobs": [{"instance": "gpu-0"}]}],
        wishes=[{"id": "w", "pool": "gpu"}, {"id": "v", "pool": "gpu"}],
    )
    new = Run(id="n1", spec=RunSpec(name="new"))
    after = marked(
        state,
        Update(subject="instance gpu-0", name="gpu-0", changes={"draining": "x"}, why="x"),
        Update(subject="run train", name="train", changes={"held": True}, why="x"),
        Update(subject="attempt train-0-1", name="train", changes={"abort": True}, why="x"),
        Update(subject="wish w", name="w", changes={"given_up": "no offers"}, why="x"),
        Update(subject="wish v", name="v", changes={"launched": 1}, why="x"),
        Update(subject="run n1", name="new", enrol=new, why="new"),
        Update(subject="run gone", name="gone", changes={"held": True}, why="x"),
    )
    assert after.instances[0].draining == "x"
    assert after.runs[0].held
    assert after.runs[1] == new
    assert after.attempts[0].abort
    assert after.wishes == (Wish(id="v", pool="gpu", launched=1),)


def test_a_plan_that_was_saved_means_the_same() -> None:
    """Nested values of a change come back from a file as plain mappings."""
    spec = RunSpec(name="train", pool="gpu", priority=80)
    change = Update(subject="run train", name="train", changes={"spec": spec}, why="x")
    made = Plan(version=1, project="testproject", generation=7, actions=(change,))
    saved = msgspec.json.decode(msgspec.json.encode(made), type=Plan)
    assert intend(state_of(runs=[{"name": "train"}]), saved, now=NOW, requests={}).runs[0].spec == spec


def test_hosts_are_taken_and_let_go() -> None:
    state = state_of(instances=[{"name": "gpu-0", "pool": "old", "orphan": "unknown"}])
    after = marked(state, Attach(pool="gpu", instance="gpu-0", name="host", why="declared"))
    assert (after.instances[0].pool, after.instances[0].name, after.instances[0].orphan) == ("gpu", "host", "")
    after = marked(state, Detach(pool="gpu", instance="gpu-0", name="host", why="was removed from the configuration"))
    assert (after.instances[0].phase, after.instances[0].terminated_at) == ("terminated", NOW)


def test_a_resumed_launch_needs_no_mark() -> None:
    state = marked(state_of(), launch())
    assert marked(state, Resume(launch="l1", request=state.intents[0].request, why="x")) == state


def test_an_empty_plan_changes_nothing() -> None:
    world = world_of({"state": {"instances": [{"name": "gpu-0", "pool": "gpu", "idle_duration": None}]}})
    made = plan(world)
    assert intended(world, made) is world.state
