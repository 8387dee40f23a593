"""The fake world keeps the contract of a backend, and misbehaves only where it was told to."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from backends.base import Backend
from backends.errors import BackendError, TryLater
from backends.fake.backend import FakeWorld, Fault
from backends.fake.hosts import FakeHosts, Silent, StaleReconciler
from schemas.backend_type import BackendType
from schemas.backend_types import FAKES, TYPES
from schemas.launch import Made, Refused, Request
from tests.contracts.backend_contract import BackendContract, BackendRig
from tests.worlds.world import PROJECT, Clock, offer

SMALL = offer("small", "1.00")


class Rig:
    project = PROJECT
    lineage = "lineage1"
    room = 3

    def __init__(self, kind: BackendType = TYPES["fake"]) -> None:
        self.kind = kind
        self.clock = Clock()
        self.world = FakeWorld(now=self.clock.now, offers=(SMALL,), room={"small": 3}, kind=kind)

    def connect(self, *, lineage: str = "") -> Backend:
        return self.world.place("fake/r1", region="r1", project=self.project, lineage=lineage or self.lineage)

    def settle(self) -> None:
        self.clock.at += 100


class TestFakeBackend(BackendContract):
    """In every shape."""

    @pytest.fixture(params=FAKES, ids=lambda kind: kind.name)
    def rig(self, request: pytest.FixtureRequest) -> BackendRig:
        self.kind = request.param
        return Rig(request.param)


@pytest.fixture
def rig() -> Rig:
    return Rig()


def request(rig: Rig, launch: str = "l1", *, count: int = 1, **changes: Any) -> Request:
    asked = Request(
        place="fake/r1",
        launch=launch,
        token=f"token-{launch}",
        ids=tuple(f"{launch}-{number}" for number in range(count)),
        names=tuple(f"pool-{number}" for number in range(count)),
        pool="pool",
        instance_type="small",
        lineage=rig.lineage,
        generation=1,
        project=rig.project,
        not_after=rig.clock.now() + 600,
    )
    return rig.connect().prepare(replace(asked, **changes), SMALL)


def ids(backend: Backend) -> list[str]:
    return [seen.id for seen in backend.instances() if seen.phase != "ended"]


def test_a_listing_lags(rig: Rig) -> None:
    rig.world.lag = 2
    backend = rig.connect()
    assert ids(backend) == []
    backend.launch(request(rig))
    assert [ids(backend), ids(backend), ids(backend)] == [[], [], ["l1-0"]]


def test_a_lost_answer_made_the_machine(rig: Rig) -> None:
    backend, asked = rig.connect(), request(rig)
    rig.world.faults.append(Fault(call="launch", error=TryLater("timed out"), after=True))
    with pytest.raises(TryLater):
        backend.launch(asked)
    assert ids(backend) == ["l1-0"]
    assert backend.launch(asked) == {"l1-0": Made(external_id="i-1")}
    assert rig.world.launched == {"l1-0": 1}


def test_a_token_with_other_parameters_is_refused(rig: Rig) -> None:
    backend, asked = rig.connect(), request(rig)
    backend.launch(asked)
    with pytest.raises(BackendError, match="IdempotentParameterMismatch"):
        backend.launch(replace(asked, pool="other"))


def test_a_token_whose_machine_ended_gives_the_dead_one(rig: Rig) -> None:
    backend, asked = rig.connect(), request(rig)
    first = backend.launch(asked)
    rig.world.interrupt("i-1")
    assert backend.launch(asked) == first == {"l1-0": Made(external_id="i-1")}
    assert [(one.phase, one.interrupted) for one in backend.instances()] == [("ended", True)]


@pytest.mark.parametrize("meaning", ["capacity", "quota"])
def test_what_cannot_be_had_makes_nothing(rig: Rig, meaning: str) -> None:
    if meaning == "capacity":
        rig.world.sold_out.add("small")
    else:
        rig.world.quotas["small"] = "vcpus"
    answer = rig.connect().launch(request(rig))["l1-0"]
    assert isinstance(answer, Refused)
    assert (answer.meaning, answer.quota) == (meaning, "" if meaning == "capacity" else "vcpus")
    assert rig.world.machines == {}


def shaped(name: str) -> Rig:
    return Rig(TYPES[name])


def test_where_nothing_marks_a_request_a_repeated_one_makes_a_second_machine() -> None:
    rig = shaped("fake-once")
    asked = request(rig)
    rig.connect().launch(asked)
    rig.connect().launch(asked)
    assert rig.world.launched == {"l1-0": 2}


def test_named_machines_are_refused_one_by_one() -> None:
    rig = shaped("fake-account")
    rig.world.room["small"] = 1
    answers = rig.connect().launch(request(rig, count=2))
    assert [type(answer) for answer in answers.values()] == [Made, Refused]
    assert ids(rig.connect()) == ["l1-0"]


def test_more_than_a_batch_is_no_request() -> None:
    rig = shaped("fake-once")
    with pytest.raises(BackendError, match="2 machines in one request; fake-once takes 1"):
        rig.connect().launch(request(rig, count=2))


def test_requests_that_follow_too_fast_make_nothing() -> None:
    rig = shaped("fake-paced")
    rig.connect().launch(request(rig))
    rig.clock.at += 5
    with pytest.raises(TryLater) as later:
        rig.connect().launch(request(rig, "l2"))
    assert later.value.retry_after == 7
    assert ids(rig.connect()) == ["l1-0"]


def test_a_late_refusal_is_a_promise_that_is_not_kept(rig: Rig) -> None:
    rig.world.late.add("small")
    assert rig.connect().launch(request(rig)) == {"l1-0": Made(external_id="i-1")}
    assert [(one.phase, one.failure) for one in rig.connect().instances()] == [("starting", None)]
    rig.clock.at += rig.world.late_after
    (seen,) = rig.connect().instances()
    assert (seen.phase, seen.failure and seen.failure.meaning) == ("ended", "capacity")


def test_a_stopped_machine_is_listed_until_it_is_ended(rig: Rig) -> None:
    rig.connect().launch(request(rig))
    rig.world.stop("i-1")
    assert [one.phase for one in rig.connect().instances()] == ["stopped"]
    rig.connect().terminate(["i-1"])
    assert [one.phase for one in rig.connect().instances()] == ["ended"]


def test_a_lost_host_is_running_and_unfit(rig: Rig) -> None:
    rig.connect().launch(request(rig))
    rig.world.lose_host("i-1")
    assert [(one.phase, one.unfit) for one in rig.connect().instances()] == [("running", "its host does not answer")]


def test_two_machines_may_have_one_mark(rig: Rig) -> None:
    rig.world.twins = 1
    rig.connect().launch(request(rig))
    assert ids(rig.connect()) == ["l1-0", "l1-0"]


def test_a_new_machine_is_in_no_listing_for_a_while(rig: Rig) -> None:
    rig.world.delay = 600
    rig.connect().launch(request(rig))
    rig.clock.at += 599
    assert ids(rig.connect()) == []
    rig.clock.at += 1
    assert ids(rig.connect()) == ["l1-0"]


def test_a_throttled_place_says_nothing(rig: Rig) -> None:
    rig.world.faults.append(Fault(call="instances", error=TryLater("slow down")))
    with pytest.raises(TryLater):
        rig.connect().instances()
    assert rig.connect().instances() == []


def test_a_host_starts_a_job_once_for_ever(rig: Rig) -> None:
    rig.connect().launch(request(rig))
    hosts = FakeHosts(rig.world)
    for _ in range(3):
        hosts.start("i-1", "job", generation=1)
    rig.settle()
    hosts.clean("i-1", "job", generation=1)
    hosts.start("i-1", "job", generation=2)
    assert rig.world.started == {"job": 1}


def test_a_job_stopped_before_its_start_never_starts(rig: Rig) -> None:
    rig.connect().launch(request(rig))
    hosts = FakeHosts(rig.world)
    hosts.stop("i-1", "job", generation=2, why="stopped")
    with pytest.raises(StaleReconciler):
        hosts.start("i-1", "job", generation=1)
    hosts.start("i-1", "job", generation=3)
    assert rig.world.started == {}


def test_a_reboot_loses_running_jobs_and_keeps_results(rig: Rig) -> None:
    rig.connect().launch(request(rig))
    rig.world.script = lambda job: (10 if job == "short" else 1000, 0)
    hosts = FakeHosts(rig.world)
    hosts.start("i-1", "short", generation=1)
    hosts.start("i-1", "long", generation=1)
    before = hosts.look("i-1", instance="l1-0", now=0).boot_id
    rig.clock.at += 20
    rig.world.reboot("i-1")
    report = hosts.look("i-1", instance="l1-0", now=0)
    assert report.boot_id != before
    assert {job.id: job.phase for job in report.jobs} == {"short": "ended", "long": "lost"}


def test_a_silent_host_reports_an_error(rig: Rig) -> None:
    rig.connect().launch(request(rig))
    rig.world.machines["i-1"].silent = True
    hosts = FakeHosts(rig.world)
    assert hosts.look("i-1", instance="l1-0", now=0).error
    with pytest.raises(Silent):
        hosts.start("i-1", "job", generation=1)


def test_what_ended_is_listed_for_a_while(rig: Rig) -> None:
    backend = rig.connect()
    asked = request(rig)
    backend.launch(asked)
    rig.world.shown = 60
    rig.world.interrupt("i-1")
    assert [one.phase for one in backend.instances()] == ["ended"]
    rig.clock.at += 60
    assert (list(backend.instances()), list(backend.instances(["i-1"]))) == ([], [])
    assert backend.launch(asked) == {"l1-0": Made(external_id="i-1")}
    assert rig.world.living() == []
