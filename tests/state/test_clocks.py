"""Which time is stored, where clocks disagree: dates before uptime, uptime before hosts, one host for its own place."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from reconciler.engine.clock_guard import concluded_unasked
from reconciler.state.observe.clocks import LAST_APPLY, BootTime, ClockReading, read_clocks
from reconciler.state.observe.future_times import without_future
from reconciler.state.observe.hosts import reported
from reconciler.state.observe.merge import absorb
from reconciler.state.prune import KEEP, prune
from reconciler.state.sending import scheduled_sends
from reconciler.state.settle import conclude
from schemas.backend_types import FAKES
from schemas.desired import BackendConfig
from schemas.instance import HostReport, JobReport, Listing
from schemas.run import Attempt, Job, Run, RunSpec
from schemas.state import Override, Pace, Place, State, Tick
from tests.state.test_absorb import NOW, PLACE, a_state, an_instance, an_intent, job, listing, report, seen

DAY = 86400
HOUR = 3600
BOOT = BootTime(boot_id="boot-9", uptime=5000)
FAR = [40 * DAY, -40 * DAY, 40 * 365 * DAY, -NOW]


def ticked(*, ago: int = 100, boot: str = "boot-9", uptime: int | None = 4900) -> State:
    return a_state(an_instance(), ticks=(Tick(by="ann@lab", at=NOW - ago, boot_id=boot, uptime=uptime),))


def read(state: State, **told: Any) -> ClockReading:
    return read_clocks(state, **{"now": NOW, "boot": BOOT, **told})


@pytest.mark.parametrize("off", [HOUR, -HOUR, *FAR])
def test_a_jump_that_uptime_contradicts_is_taken_off(off: int) -> None:
    found = read(ticked(), now=NOW + off)
    assert (found.off, found.whose, found.apart) == (off, LAST_APPLY, True)


@pytest.mark.parametrize("off", [0, 45, -45])
def test_what_uptime_leads_to_is_right(off: int) -> None:
    assert not read(ticked(), now=NOW + off).apart


@pytest.mark.parametrize(
    "state", [ticked(boot="boot-1"), ticked(boot="", uptime=None), ticked(uptime=9000)], ids=["boot", "none", "later"]
)
def test_another_boot_tells_no_jump_ahead_and_time_does_not_go_back(state: State) -> None:
    assert not read(state, now=NOW + 40 * DAY).apart
    back = read(state, now=NOW - 40 * DAY)
    assert (back.off, back.whose, back.stands_still) == (100 - 40 * DAY, LAST_APPLY, True)


@pytest.mark.parametrize("how", ["place", "store"])
def test_a_date_that_agrees_outvotes_uptime(how: str) -> None:
    """The whole machine was suspended: its uptime stood still."""
    later = NOW + 3 * DAY
    told = {"listings": [listing(at=later, clock=later - 30)]} if how == "place" else {"date": ("s3://b", -30)}
    found = read(ticked(), now=later, **told)
    assert (found.off, found.apart, found.proven) == (0, False, True)


def test_another_machine_that_agrees_outvotes_uptime_and_this_one_does_not() -> None:
    later = NOW + 3 * DAY
    for boot, apart in (("boot-1", False), ("boot-9", True)):
        assert read(ticked(), now=later, reports=[report(at=later, clock=later, boot_id=boot)]).apart == apart


@pytest.mark.parametrize("off", FAR)
def test_the_date_of_a_place_is_the_time(off: int) -> None:
    found = read(ticked(), now=NOW + off, listings=[listing(at=NOW + off, clock=NOW)])
    assert (found.off, found.whose) == (off, PLACE)


def test_of_two_places_the_one_that_agrees_is_believed_and_the_other_is_left_alone() -> None:
    other = replace(listing(), place="fake/r2", clock=NOW - HOUR)
    found = read(a_state(), listings=[listing(clock=NOW), other])
    assert (found.off, found.whose, dict(found.places)) == (0, "", {"fake/r2": HOUR})


@pytest.mark.parametrize("off", FAR)
def test_a_listing_that_failed_tells_no_time(off: int) -> None:
    assert not read(ticked(), listings=[listing(clock=NOW - off, error="timed out")]).apart


# ---------------------------------------------------------------- what is stored


@pytest.mark.parametrize("off", FAR)
@pytest.mark.parametrize("kind", ["ssh", "fake"])
def test_one_host_moves_no_time_but_its_own_jobs(off: int, kind: str) -> None:
    """Its job began 60 s ago and ended 10 s ago, by a clock that is off."""
    elsewhere = an_instance("l-1", place="fake/r2", phase="provisioning", ready_at=None)
    places = (Place(name=PLACE, config=BackendConfig(name="fake", type=kind), identity="me"),
              Place(name="fake/r2", config=BackendConfig(name="fake", type="fake"), identity="me"))  # fmt: skip
    mine = Job(id="r-0-1-0", instance="l-0", status="running", boot_id="boot-1")
    state = replace(
        a_state(an_instance("l-0", phase="provisioning", ready_at=None), elsewhere, attempts=(assigned(mine),)),
        places=places,
    )
    told = JobReport(id=mine.id, phase="ended", exit_code=0, started_at=NOW + off - 60, ended_at=NOW + off - 10)
    after = absorb(state, listings=[listing(seen())], reports=[report(told, clock=NOW + off)], now=NOW, before=state)
    assert (job(after).started_at, job(after).ended_at) == (NOW - 60, NOW - 10)
    assert {one.ready_at for one in after.instances} == {NOW, None}
    assert [place.skew for place in after.places] == [-off, 0]


def assigned(mine: Job, *, ago: int = 100) -> Attempt:
    return Attempt(id="r-0-1", run="r", number=1, jobs=(mine,), assigned_at=NOW - ago)


@pytest.mark.parametrize(
    ("began", "ended"), [(0, 2), (2, 0), (NOW - 90, 5), (5, NOW - 90), (NOW + 5, NOW + 6), (10**11, 3)]
)
@pytest.mark.parametrize("phase", ["ended", "lost"])
def test_a_job_ends_after_its_start_and_before_now(began: int, ended: int, phase: str) -> None:
    mine = Job(id="r-0-1-0", instance="l-0", status="running", started_at=NOW - 95, boot_id="boot-1")
    state = a_state(an_instance(), attempts=(assigned(mine),))
    told = JobReport(id=mine.id, phase=phase, exit_code=0, started_at=began, ended_at=ended)  # type: ignore[arg-type]
    found = job(absorb(state, listings=[listing(seen())], reports=[report(told)], now=NOW, before=state))
    assert NOW - 160 <= (found.started_at or 0) <= (found.ended_at or 0) <= NOW


def test_a_result_that_a_host_stored_itself_lasted_as_long_as_it_says() -> None:
    """Nobody has its clock to compare with ours."""
    mine = Job(id="r-0-1-0", instance="l-0", status="running", started_at=NOW - 95, boot_id="boot-1")
    said = JobReport(id=mine.id, phase="ended", exit_code=0, started_at=50, ended_at=80)
    found = reported(mine, said, attempt=assigned(mine), now=NOW)
    assert (found.started_at, found.ended_at) == (NOW - 95, NOW - 65)


@pytest.mark.parametrize("off", [HOUR, -HOUR, 100 * DAY])
def test_two_listings_of_a_place_are_as_far_apart_as_its_dates(off: int) -> None:
    """Our clock is put right between them, or put wrong: that is no five minutes."""
    state = a_state(an_instance())

    def lacking(state: State, *, at: int, ahead: int) -> State:
        told = [listing(at=at + ahead, clock=at), Listing(place=PLACE, at=at + ahead, identity="me", partial=True)]
        return absorb(state, listings=told, reports=(), now=at + ahead, before=state)

    first = lacking(state, at=NOW, ahead=20)
    assert first.instances[0].missing_since == NOW
    assert lacking(first, at=NOW + 100, ahead=off).instances[0].phase == "ready"
    assert lacking(first, at=NOW + 290, ahead=50).instances[0].phase == "ready"
    assert lacking(first, at=NOW + 310, ahead=-50).instances[0].phase == "terminated"


def test_a_place_that_dates_a_machine_before_its_launch_is_corrected() -> None:
    """The `local` place has our own clock."""
    state = a_state(an_instance(phase="pending", seen_at=None, external_id="", created_at=NOW - 50))
    for said in (5, NOW + 40 * DAY):
        (one,) = absorb(state, listings=[listing(seen(created_at=said))], reports=(), now=NOW, before=state).instances
        assert NOW - 110 <= one.created_at <= NOW


# ---------------------------------------------------------------- what is kept, and corrected


def test_a_run_is_remembered_from_when_its_end_was_written() -> None:
    """Its host was silent for longer than runs are remembered, and then brought its result."""
    run = Run(id="r", spec=RunSpec(name="train"), origin="run", status="done", finished_at=NOW - 2 * KEEP)
    assert prune(a_state(runs=(run,)), now=NOW).runs == ()
    late = a_state(runs=(replace(run, settled_at=NOW - 5),))
    assert prune(late, now=NOW) is late


def test_what_is_dated_in_a_time_to_come_is_of_now() -> None:
    later = NOW + 40 * DAY
    run = Run(id="r", spec=RunSpec(name="train"), submitted_at=later, not_before=later)
    state = a_state(
        an_instance(ready_at=later, last_job_end=later + 5),
        runs=(run,),
        attempts=(assigned(Job(id="r-0-1-0", instance="l-0", saved_at=later)),),
        intents=(replace(an_intent("l-9", not_after=later + 600), opened_at=later),),
        ticks=(Tick(by="ann@lab", at=later), Tick(by="bob@lab", at=NOW - 5)),
    )
    found = without_future(state, now=NOW)
    assert (found.instances[0].ready_at, found.instances[0].last_job_end) == (NOW, NOW)
    assert (found.runs[0].submitted_at, found.runs[0].not_before) == (NOW, NOW)
    assert job(found).saved_at == NOW
    assert (found.intents[0].opened_at, found.intents[0].request.not_after) == (NOW, NOW)
    assert [one.by for one in found.ticks] == ["bob@lab"]
    assert without_future(found, now=NOW) == found


def test_no_report_of_a_host_that_agrees_is_touched() -> None:
    found = read(a_state(an_instance()), reports=[HostReport(instance="l-0", at=NOW, clock=NOW - 30)])
    assert (found.apart, found.off, dict(found.shifts)) == (False, 0, {})


def test_a_retry_that_a_wrong_clock_put_off_for_years_is_not_waited_for() -> None:
    run = Run(id="r", spec=RunSpec(name="train"), origin="run", not_before=NOW + 40 * DAY)
    assert conclude(a_state(runs=(run,)), now=NOW).runs[0].not_before is None
    soon = a_state(runs=(replace(run, not_before=NOW + 600),))
    assert conclude(soon, now=NOW) is soon


def test_a_request_that_a_wrong_clock_scheduled_delays_no_other() -> None:
    """Of a type of backend that takes one request in a while."""
    (kind,) = [one for one in FAKES if one.launch_interval][:1]
    place = Place(name=PLACE, config=BackendConfig(name="fake", type=kind.name), identity="me")
    state = a_state(intents=(an_intent("l-0"),), places=(place,))
    for at, due in ((NOW - 1, NOW - 1 + kind.launch_interval), (NOW + 40 * DAY, NOW)):
        paced = replace(state, paces=(Pace(account="me", at=at),))
        assert scheduled_sends(paced, ["l"], now=NOW).intents[0].send_at == due


def test_a_plan_that_asks_nobody_knows_what_the_last_apply_wrote() -> None:
    pause = Override(kind="pause", subject="pool", by="ann", at=NOW - 50, until=NOW + 7200)
    state = replace(ticked(), overrides=(pause,))
    found, reading = concluded_unasked(state, now=NOW + 40 * DAY, boot=("boot-9", 5000))
    assert (reading.off, reading.whose, found.overrides) == (40 * DAY, LAST_APPLY, (pause,))
    found, reading = concluded_unasked(state, now=NOW, boot=("boot-9", 5000))
    assert (reading.apart, found.overrides) == (False, (pause,))
