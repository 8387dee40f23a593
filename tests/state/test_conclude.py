"""From facts to ends: what becomes of runs when their attempts settle."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from reconciler.state.job_results import with_result
from reconciler.state.settle import conclude
from schemas.run import Attempt, Run
from schemas.state import Applied, Capacity, Override, Revision, State, Wish
from tests.worlds.planning import NOW, world_of

ALWAYS = {"no_capacity": True, "interruption": True, "error": True, "duration": 3600}


def state_of(run: dict[str, Any], *attempts: list[dict[str, Any]], hosts: dict[str, Any] | None = None) -> State:
    """One run `train`, one attempt a list of jobs; job n runs on `gpu-n` unless it says."""
    hosted = [[{"instance": f"gpu-{rank}", **each} for rank, each in enumerate(jobs)] for jobs in attempts]
    numbered = [{"run": "train", "number": number, "jobs": jobs} for number, jobs in enumerate(hosted, start=1)]
    instances = [{"name": f"gpu-{index}", "pool": "gpu", **(hosts or {})} for index in range(3)]
    given = {"name": "train", "status": "running", "attempts": len(attempts), **run}
    return world_of({"state": {"runs": [given], "attempts": numbered, "instances": instances}}).state


def concluded(run: dict[str, Any], *attempts: list[dict[str, Any]], hosts: dict[str, Any] | None = None) -> Run:
    return conclude(state_of(run, *attempts, hosts=hosts), now=NOW).runs[0]


def job(status: str, **facts: Any) -> dict[str, Any]:
    ended = {} if status in ("assigned", "running") else {"ended_at": "-1m"}
    return {"status": status, **ended, **facts}


DONE = job("done", exit_code=0)
FAILED = job("failed", exit_code=3, reason="exit 3")
LOST = job("lost", reason="spot interruption")


# ---------------------------------------------------------------- a task


def test_done_when_every_node_is_done() -> None:
    run = concluded({"spec": {"nodes": 2}}, [DONE, DONE])
    assert (run.status, run.exit_code, run.finished_at) == ("done", 0, NOW - 60)


def test_not_done_while_a_node_runs() -> None:
    run = concluded({"spec": {"nodes": 2}}, [DONE, job("running")])
    assert (run.status, run.finished_at) == ("running", None)


def test_an_ended_job_is_not_done_before_it_is_collected() -> None:
    assert concluded({}, [job("ended", exit_code=0)]).status == "running"


def test_failed_with_the_exit_code_of_the_node_that_failed_first() -> None:
    run = concluded(
        {"spec": {"nodes": 2}}, [job("terminated", exit_code=143, reason="node 1 failed", ended_at="-30s"), FAILED]
    )
    assert (run.status, run.exit_code, run.reason) == ("failed", 3, "node 1: exit 3")


def test_master_done_decides() -> None:
    run = concluded({"spec": {"nodes": 2, "stop_criteria": "master-done"}}, [DONE, job("terminated", exit_code=143)])
    assert run.status == "done"


def test_provisioning_until_every_node_runs() -> None:
    run = concluded({"status": "provisioning", "spec": {"nodes": 2}}, [job("running"), job("assigned")])
    assert run.status == "provisioning"
    run = concluded({"status": "provisioning", "spec": {"nodes": 2}}, [job("running"), job("running")])
    assert (run.status, run.started_at) == ("running", NOW - 300)


# ---------------------------------------------------------------- tried again, or not


@pytest.mark.parametrize(
    ("ended", "retry", "status"),
    [
        (FAILED, {"error": True}, "submitted"),
        (FAILED, {"interruption": True, "no_capacity": True}, "failed"),
        (LOST, {"interruption": True}, "submitted"),
        (LOST, {"error": True}, "failed"),
        (job("failed", exit_code=143, interrupted=True), {"interruption": True}, "submitted"),
        (job("failed", exit_code=143, interrupted=True), {"error": True}, "failed"),
        (job("failed", reason="result lost"), ALWAYS, "failed"),
        (job("lost", exit_code=0), ALWAYS, "failed"),
        (job("failed", exit_code=137, reason="max duration 2h"), ALWAYS, "terminated"),
        (job("failed", reason="could not be started"), {"error": True}, "submitted"),
        (DONE, ALWAYS, "done"),
    ],
    ids=[
        "an error is retried",
        "an error is not an interruption",
        "a lost machine is an interruption",
        "a lost machine is no error",
        "an exit under notice is an interruption",
        "an exit under notice is no error",
        "a lost result is never repeated",
        "a job that had ended and is lost is a lost result",
        "max_duration is an end",
        "not started is an error",
        "done is done",
    ],
)
def test_retry(ended: dict[str, Any], retry: dict[str, Any], status: str) -> None:
    assert concluded({"spec": {"retry": {"duration": 3600, **retry}}}, [ended]).status == status


def test_a_lost_result_says_so() -> None:
    assert concluded({"spec": {"retry": ALWAYS}}, [job("lost", exit_code=0)]).reason == "result lost"


def test_errors_wait_longer_and_longer() -> None:
    first = concluded({"spec": {"retry": ALWAYS}}, [FAILED])
    third = concluded({"spec": {"retry": ALWAYS}}, [FAILED], [FAILED], [FAILED])
    many = concluded({"spec": {"retry": ALWAYS}}, *[[FAILED]] * 12)
    assert [run.not_before for run in (first, third, many)] == [NOW + 15, NOW + 60, NOW + 600]
    assert first.reason == "again after: exit 3"


def test_an_interruption_is_tried_again_at_once_and_its_window_counts_from_now() -> None:
    run = concluded({"spec": {"retry": ALWAYS}}, [LOST])
    assert (run.not_before, run.wait_until, run.exit_code) == (None, NOW + 3600, None)


def test_a_retry_without_a_duration_waits_without_limit() -> None:
    run = concluded({"spec": {"retry": {**ALWAYS, "duration": None}}, "wait_until": "-1s"}, [LOST])
    assert run.wait_until is None


def test_a_superseded_task_ends_with_its_attempt() -> None:
    assert concluded({"superseded_by": "h2", "spec": {"retry": ALWAYS}}, [FAILED]).status == "failed"


def test_a_waiting_retry_is_concluded_once() -> None:
    state = conclude(state_of({"spec": {"retry": ALWAYS}}, [FAILED]), now=NOW)
    assert conclude(state, now=NOW + 5) == state


def test_a_gang_is_repeated_only_when_every_node_is_proven_ended() -> None:
    run = concluded({"spec": {"nodes": 2, "retry": ALWAYS}}, [LOST, job("running")])
    assert run.status == "running"


# ---------------------------------------------------------------- stops


def test_a_stopped_run_is_terminated_when_its_attempt_has_ended() -> None:
    asked = {"status": "terminating", "stop_reason": "stopped by ann"}
    assert concluded(asked, [job("running")]).status == "terminating"
    run = concluded(asked, [job("terminated", exit_code=143)])
    assert (run.status, run.reason) == ("terminated", "stopped by ann")


def test_an_aborted_run_is_aborted() -> None:
    asked = {"status": "terminating", "stop_reason": "aborted by ann", "abort": True}
    assert concluded(asked, [job("aborted")]).status == "aborted"


def test_a_run_that_finished_before_the_stop_came_is_done() -> None:
    assert concluded({"status": "terminating", "stop_reason": "stopped by ann"}, [DONE]).status == "done"


def test_a_run_that_failed_before_the_stop_came_keeps_its_exit_code() -> None:
    run = concluded({"status": "terminating", "stop_reason": "stopped by ann", "spec": {"retry": ALWAYS}}, [FAILED])
    assert (run.status, run.exit_code, run.reason) == ("failed", 3, "exit 3")


def test_a_stop_of_a_waiting_run_ends_it() -> None:
    assert concluded({"status": "submitted", "stop_reason": "stopped by ann"}).status == "terminated"


def test_a_stopped_run_is_not_retried() -> None:
    run = concluded({"stop_reason": "stopped by ann", "spec": {"retry": ALWAYS}}, [LOST])
    assert run.status == "terminated"


def test_a_task_stopped_for_its_max_duration_is_terminated() -> None:
    state = state_of({"spec": {"retry": ALWAYS}}, [job("terminated", exit_code=143)])
    state = replace(state, attempts=(replace(state.attempts[0], stopping="max duration 2h"),))
    run = conclude(state, now=NOW).runs[0]
    assert (run.status, run.reason) == ("terminated", "max duration 2h")


def test_a_task_stopped_at_the_end_of_a_drain_was_interrupted() -> None:
    state = state_of({"spec": {"retry": ALWAYS}}, [job("terminated", exit_code=143)])
    state = replace(state, attempts=(replace(state.attempts[0], stopping="gpu-0 was to be drained by now: x"),))
    assert conclude(state, now=NOW).runs[0].status == "submitted"


@pytest.mark.parametrize("type", ["task", "dev-environment"])
@pytest.mark.parametrize("retry", [{}, ALWAYS])
def test_a_job_that_saved_and_exited_with_0_when_drained_waits_again(type: str, retry: dict[str, Any]) -> None:
    """With or without `retry`: whoever drains moves what runs there."""
    run = told_to_end({"spec": {"type": type, "retry": retry}}, stopping="gpu-0 was to be drained by now: pool drained")
    assert (run.status, run.exit_code) == ("submitted", None)
    assert run.reason == "again after: gpu-0 was to be drained by now: pool drained"
    assert run.wait_until == (NOW + 3600 if retry else None)


def test_a_job_that_saved_and_exited_with_0_when_stopped_is_stopped() -> None:
    run = told_to_end({"status": "terminating", "stop_reason": "stopped by ann"}, stopping="stopped by ann")
    assert (run.status, run.reason, run.exit_code) == ("terminated", "stopped by ann", 0)
    replaced = {"status": "terminating", "stop_reason": "replaced by its changed configuration", "superseded_by": "h"}
    run = told_to_end(replaced, stopping="replaced by its changed configuration")
    assert (run.status, run.exit_code) == ("terminated", 0)
    service = {"status": "terminating", "stop_reason": "stopped by ann", "spec": {"type": "service"}}
    assert told_to_end(service, stopping="stopped by ann").status == "terminated"


def test_a_job_that_saved_and_exited_with_0_where_the_state_knows_of_no_stop() -> None:
    """After a rebuild only the host remembers it."""
    run = told_to_end({}, stopping="")
    assert (run.status, run.reason) == ("terminated", "stopped")


@pytest.mark.parametrize("criteria", ["all-done", "master-done"])
def test_a_gang_of_which_a_node_exits_with_0_when_told_is_not_done(criteria: str) -> None:
    spec = {"spec": {"nodes": 2, "stop_criteria": criteria}}
    run = told_to_end(spec, stopping="gpu-1 was to be drained by now: x", nodes=2)
    assert run.status == "submitted"
    state = state_of({"status": "terminating", "stop_reason": "stopped by ann", **spec}, [job("running")] * 2)
    attempt = replace(state.attempts[0], stopping="stopped by ann")
    by_itself, told = (
        with_result(replace(one, status="ended", exit_code=0, reason=reason, ended_at=NOW), attempt)
        for one, reason in zip(attempt.jobs, ("", "stopped"), strict=True)
    )
    state = replace(state, attempts=(replace(attempt, jobs=(by_itself, told)),))
    assert conclude(state, now=NOW).runs[0].status == ("done" if criteria == "master-done" else "terminated")


@pytest.mark.parametrize(("retry", "status"), [(ALWAYS, "submitted"), ({}, "failed")])
@pytest.mark.parametrize("reason", ["its machine was shut down", "its instance was ended"])
def test_a_job_that_exited_with_0_because_its_machine_went_was_interrupted(
    reason: str, retry: dict[str, Any], status: str
) -> None:
    run = told_to_end({"spec": {"retry": retry}}, stopping="", reason=reason, interrupted=True)
    assert run.status == status


@pytest.mark.parametrize("reason", ["used more than 5 MB of disk", "its probe failed"])
def test_a_job_that_exited_with_0_when_a_limit_ended_it_failed(reason: str) -> None:
    run = told_to_end({}, stopping="", reason=reason)
    assert (run.status, run.reason) == ("failed", reason)


def told_to_end(
    run: dict[str, Any], *, stopping: str, reason: str = "stopped", interrupted: bool = False, nodes: int = 1
) -> Run:
    """A run whose jobs exited with 0 after they were told to end, once their results are stored."""
    state = state_of(run, [job("running")] * nodes)
    attempt = replace(state.attempts[0], stopping=stopping)
    facts = {"exit_code": 0, "reason": reason, "interrupted": interrupted, "ended_at": NOW}
    jobs = tuple(with_result(replace(one, status="ended", **facts), attempt) for one in attempt.jobs)
    return conclude(replace(state, attempts=(replace(attempt, jobs=jobs),)), now=NOW).runs[0]


# ---------------------------------------------------------------- machines gone or out of sight


def test_a_machine_proven_gone_takes_its_jobs_with_it() -> None:
    state = state_of({"spec": {"retry": ALWAYS}}, [job("running")], hosts={"phase": "terminated", "reason": "spot"})
    state = conclude(state, now=NOW)
    assert state.attempts[0].jobs[0].status == "lost"
    assert state.runs[0].status == "submitted"


def test_a_result_goes_with_its_machine_and_is_not_repeated() -> None:
    hosts = {"phase": "terminated"}
    run = concluded({"spec": {"retry": ALWAYS}}, [job("ended", exit_code=0)], hosts=hosts)
    assert (run.status, run.reason) == ("failed", "result lost")


def test_an_unreachable_machine_proves_nothing() -> None:
    run = concluded({"spec": {"retry": ALWAYS}}, [job("running")], hosts={"unreachable_since": "-9h"})
    assert run.status == "running"


def test_assume_lost_gives_up_what_is_out_of_sight_and_nothing_else() -> None:
    state = state_of({"assume_lost": True, "spec": {"nodes": 2, "retry": ALWAYS}}, [job("running"), job("running")])
    dark = replace(state.instances[0], unreachable_since=NOW - 999)
    state = conclude(replace(state, instances=(dark, *state.instances[1:])), now=NOW)
    assert [each.status for each in state.attempts[0].jobs] == ["lost", "running"]
    assert state.instances[0].stray_jobs == ("train-0-1-0",)
    assert (state.runs[0].assume_lost, state.runs[0].status) == (False, "running")


# ---------------------------------------------------------------- services


SERVICE: dict[str, Any] = {"spec": {"type": "service", "max_duration": None}}


def test_a_service_starts_again_after_any_end() -> None:
    for ended in (FAILED, DONE, LOST):
        assert concluded(SERVICE, [ended]).status == "submitted"


def test_a_service_that_does_not_hold_waits_before_it_starts_again() -> None:
    quick = job("failed", exit_code=1, started_at="-70s")
    held = job("failed", exit_code=1, started_at="-2h", ended_at="-5s")
    assert concluded(SERVICE, [quick], [quick], [quick], [quick]).not_before == NOW - 60 + 120
    assert concluded(SERVICE, [held]).not_before is None


def test_a_service_with_one_replica_left_runs() -> None:
    state = state_of({"spec": {"type": "service", "replicas": 2}}, [LOST], [job("running")])
    moved = replace(state.attempts[1], replica=1)
    assert conclude(replace(state, attempts=(state.attempts[0], moved)), now=NOW).runs[0].status == "running"


def test_a_service_that_was_stopped_ends() -> None:
    assert concluded({**SERVICE, "stop_reason": "stopped by ann"}, [job("terminated")]).status == "terminated"


# ---------------------------------------------------------------- clocks and what lapses


def test_the_idle_clock_starts_at_the_end_of_the_last_job() -> None:
    state = conclude(state_of({}, [DONE]), now=NOW)
    assert [one.last_job_end for one in state.instances] == [NOW - 60, None, None]


def test_a_job_without_a_known_end_ended_now() -> None:
    state = conclude(state_of({}, [job("failed", exit_code=1, ended_at=None)]), now=NOW)
    assert state.instances[0].last_job_end == NOW


def test_overrides_and_capacity_lapse_on_time() -> None:
    state = replace(
        world_of({}).state,
        applied=Applied(revision=Revision(digest="d2"), by="ann", at=NOW, desired=world_of({}).desired),
        overrides=(
            Override(kind="pause", subject="over", by="ann", at=0, until=NOW),
            Override(kind="pause", subject="on", by="ann", at=0, until=NOW + 1),
            Override(kind="autoscale", subject="undone", by="ann", at=0, digest="d1"),
            Override(kind="autoscale", subject="kept", by="ann", at=0, digest="d2"),
        ),
        capacity=(
            Capacity(place="aws", instance_type="over", until=NOW),
            Capacity(place="aws", instance_type="on", until=NOW + 1),
            Capacity(place="aws", instance_type="by a clock an hour ahead", until=NOW + 3600 + 45),
        ),
    )
    state = conclude(state, now=NOW)
    assert [each.subject for each in state.overrides] == ["on", "kept"]
    assert [each.instance_type for each in state.capacity] == ["on"]


def test_a_wish_is_over_when_each_of_its_instances_was_ready() -> None:
    instances = [
        {"name": "gpu-0", "pool": "gpu", "wish": "w"},
        {"name": "gpu-1", "pool": "gpu", "wish": "w", "phase": "pending"},
    ]
    state = replace(world_of({"state": {"instances": instances}}).state, wishes=(Wish(id="w", pool="gpu", count=2),))
    assert conclude(state, now=NOW).wishes
    ready = tuple(replace(one, ready_at=NOW) for one in state.instances)
    assert not conclude(replace(state, instances=ready), now=NOW).wishes


def test_nothing_to_conclude_is_the_same_state() -> None:
    state = conclude(state_of({}, [job("running")]), now=NOW)
    assert conclude(state, now=NOW + 999) is state


def test_an_attempt_is_live_until_collected() -> None:
    assert Attempt(id="a", run="r", number=1, jobs=state_of({}, [job("ended")]).attempts[0].jobs).live
