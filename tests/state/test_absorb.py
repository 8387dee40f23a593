"""Facts into memory: unknown is never empty, not seen is not dead, and stale facts harm nobody."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from reconciler.state.errors import StateRefused
from reconciler.state.observe.merge import absorb, strangers
from schemas.desired import BackendConfig
from schemas.instance import HostReport, Instance, JobReport, Listing, Seen
from schemas.launch import Intent, Request
from schemas.resources import Resources
from schemas.run import Attempt, Job
from schemas.state import VERSION, Place, State

NOW = 1_800_000_000
PLACE = "fake/r1"
FAKE = BackendConfig(name="fake", type="fake")


def an_instance(id: str = "l-0", **fields: Any) -> Instance:
    known: dict[str, Any] = {
        "name": f"pool-{id[-1]}",
        "pool": "pool",
        "backend": "fake",
        "place": PLACE,
        "resources": Resources(cpus=1, memory=1024),
        "external_id": f"i-{id}",
        "launch": "l",
        "phase": "ready",
        "created_at": NOW - 1000,
        "seen_at": NOW - 900,
        "ready_at": NOW - 900,
        "boot_id": "boot-1",
        "machine_id": "machine",
    }
    return Instance(id=id, **{**known, **fields})


def pending(id: str = "l-0", **fields: Any) -> Instance:
    fresh = {"phase": "pending", "external_id": "", "seen_at": None, "ready_at": None, "boot_id": "", "machine_id": ""}
    return an_instance(id, **{**fresh, **fields})


def an_intent(*ids: str, not_after: int = NOW + 600) -> Intent:
    request = Request(
        place=PLACE, launch="l", token="l", ids=ids, names=ids, pool="pool", instance_type="small", not_after=not_after
    )
    return Intent(id="l", request=request, opened_at=NOW - 10)


def a_state(*instances: Instance, **fields: Any) -> State:
    place = Place(name=PLACE, config=FAKE, region="r1", identity="me")
    known = {"version": VERSION, "project": "proj12345", "lineage": "lin", "generation": 5, "places": (place,)}
    return State(**{**known, "instances": instances, **fields})


def seen(id: str = "l-0", **fields: Any) -> Seen:
    return Seen(**{"external_id": f"i-{id}", "id": id, "launch": "l", "pool": "pool", "lineage": "lin", **fields})


def listing(*seen: Seen, **fields: Any) -> Listing:
    return Listing(**{"place": PLACE, "at": NOW, "identity": "me", "instances": seen, **fields})


def report(*jobs: JobReport, **fields: Any) -> HostReport:
    known = {"instance": "l-0", "at": NOW, "boot_id": "boot-1", "machine_id": "machine", "jobs": jobs}
    return HostReport(**{**known, **fields})


def an_attempt(*jobs: Job, **fields: Any) -> Attempt:
    return Attempt(id="r-0-1", run="r", number=1, jobs=jobs, **fields)


def listed(state: State, *listings: Listing, at: int = NOW, before: State | None = None) -> State:
    return absorb(state, listings=listings, reports=(), now=at, before=before)


def looked(state: State, *reports: HostReport, before: State | None = None) -> State:
    return absorb(state, listings=(), reports=reports, now=NOW, before=before)


def one(state: State) -> Instance:
    (found,) = state.instances
    return found


def job(state: State) -> Job:
    return state.attempts[0].jobs[0]


# ---------------------------------------------------------------- places


def test_the_first_good_answer_pins_the_identity() -> None:
    (place,) = listed(a_state(places=(Place(name=PLACE, config=FAKE),)), listing()).places
    assert (place.identity, place.observed_at, place.error) == ("me", NOW, "")


@pytest.mark.parametrize(
    "bad",
    [listing(error="timed out"), listing(identity="somebody"), listing(identity="")],
    ids=["error", "other", "none"],
)
def test_an_unknown_place_changes_no_instance(bad: Listing) -> None:
    state = a_state(an_instance())
    after = listed(state, bad)
    assert after.instances == state.instances
    assert after.places[0].error
    assert after.places[0].failing_since == NOW
    assert listed(after, replace(bad, at=NOW + 50), at=NOW + 50).places[0].failing_since == NOW


def test_a_good_answer_clears_the_error() -> None:
    state = listed(a_state(), listing(error="timed out"))
    assert listed(state, listing()).places[0].error == ""


def test_a_clock_that_is_off_is_flagged() -> None:
    assert listed(a_state(), listing(clock=NOW - 300)).places[0].skew == 300
    assert listed(a_state(), listing(clock=NOW - 30)).places[0].skew == 0


@pytest.mark.parametrize(("clocks", "skew"), [((NOW, NOW - 7200), 0), ((NOW - 7200, NOW - 7100), 7100), ((), 0)])
def test_a_clock_that_every_host_contradicts_is_off(clocks: tuple[int, ...], skew: int) -> None:
    """One host that is wrong by itself says nothing of ours; and what is noted then has the hosts' time."""
    state = a_state(*(an_instance(f"l-{index}", ready_at=None, phase="provisioning") for index in range(len(clocks))))
    reports = [report(instance=f"l-{index}", machine_id="", clock=clock) for index, clock in enumerate(clocks)]
    state = absorb(state, listings=[listing()], reports=reports, now=NOW, before=state)
    assert state.places[0].skew == skew
    assert {one.ready_at for one in state.instances} <= {NOW - skew}


def test_one_host_whose_clock_a_job_has_set_stops_nothing_where_another_agrees() -> None:
    """Each in a place of its own: the only one there is no witness against all others."""
    places = (Place(name="fake/r2", config=BackendConfig(name="fake", type="fake")), *a_state().places)
    liar, honest = an_instance("l-0", place="fake/r2"), an_instance("l-1")
    state = replace(a_state(liar, honest), places=places)
    told = {"l-0": NOW + 10**8, "l-1": NOW}
    reports = [report(instance=id, machine_id="", clock=clock) for id, clock in told.items()]
    listings = [listing(), replace(listing(), place="fake/r2")]
    after = absorb(state, listings=listings, reports=reports, now=NOW, before=state)
    assert [place.skew for place in after.places] == [0, 0]
    alone = absorb(state, listings=listings, reports=reports[:1], now=NOW, before=state)
    assert alone.places[0].skew == -(10**8)


@pytest.mark.parametrize("phase", ["ended", "lost"])
def test_a_job_that_ends_in_a_time_to_come_ended_now(phase: str) -> None:
    """Idle time counts from there: a job that wrote a far number kept its machine for ever."""
    job = Job(id="r-0-1-0", instance="l-0", status="running", started_at=NOW - 60, boot_id="boot-1")
    state = a_state(an_instance(), attempts=(an_attempt(job),))
    told = JobReport(id=job.id, phase=phase, exit_code=0, started_at=10**11, ended_at=10**12)  # type: ignore[arg-type]
    (attempt,) = absorb(state, listings=[listing(seen())], reports=[report(told)], now=NOW, before=state).attempts
    assert attempt.jobs[0].ended_at == NOW
    assert (attempt.jobs[0].started_at or 0) <= NOW


def test_what_is_seen_by_a_clock_that_is_off_is_noted_in_the_places_time() -> None:
    """Two hours ahead, an orphan's grace would begin in two hours."""
    (orphan,) = listed(a_state(), listing(seen("l-9"), clock=NOW - 7200), before=a_state()).instances
    assert (orphan.seen_at, orphan.created_at) == (NOW - 7200, NOW - 7200)


def test_a_clock_that_is_off_counts_no_absence() -> None:
    state = a_state(an_instance())
    assert one(listed(state, listing(clock=NOW - 7200), before=state)).absences == 0


# ---------------------------------------------------------------- instances


def test_a_launch_closes_when_it_is_seen() -> None:
    state = a_state(pending("l-0"), pending("l-1"), intents=(an_intent("l-0", "l-1"),))
    half = listed(state, listing(seen("l-0")))
    assert [instance.phase for instance in half.instances] == ["provisioning", "pending"]
    assert len(half.intents) == 1
    whole = listed(half, listing(seen("l-0"), seen("l-1")))
    assert whole.intents == ()


def test_what_its_place_ended_is_terminated() -> None:
    after = one(listed(a_state(an_instance()), listing(seen(phase="ended", reason="spot", interrupted=True))))
    assert (after.phase, after.reason, after.terminated_at) == ("terminated", "interrupted: spot", NOW)


def test_what_its_place_is_ending_is_terminating() -> None:
    after = one(listed(a_state(an_instance()), listing(seen(phase="ending"))))
    assert (after.phase, after.ending) == ("terminating", True)


def test_absent_once_is_not_gone() -> None:
    after = one(listed(a_state(an_instance()), listing(), listing(partial=True)))
    assert (after.phase, after.absences, after.missing_since) == ("ready", 1, NOW)


def test_absent_twice_five_minutes_apart_and_by_id_is_gone() -> None:
    state = listed(a_state(an_instance()), listing())
    soon = listed(state, listing(at=NOW + 200), listing(at=NOW + 200, partial=True), at=NOW + 200)
    assert one(soon).phase == "ready"
    not_asked = listed(state, listing(at=NOW + 400), at=NOW + 400)
    assert one(not_asked).phase == "ready"
    failed = listed(state, listing(at=NOW + 400), listing(at=NOW + 400, partial=True, error="no"), at=NOW + 400)
    assert one(failed).phase == "ready"
    found = listed(state, listing(at=NOW + 400), listing(seen(), at=NOW + 400, partial=True), at=NOW + 400)
    assert (one(found).phase, one(found).missing_since) == ("ready", None)
    gone = listed(state, listing(at=NOW + 400), listing(at=NOW + 400, partial=True), at=NOW + 400)
    assert one(gone).phase == "terminated"


def test_an_absence_counts_only_for_what_was_known_before_we_looked() -> None:
    before = a_state(pending(), intents=(an_intent("l-0"),))
    after = listed(a_state(an_instance()), listing(), before=before)
    assert one(after).absences == 0


def test_a_launch_not_seen_is_open_until_its_time_is_over() -> None:
    state = a_state(pending(), intents=(an_intent("l-0", not_after=NOW + 600),))
    after = listed(state, listing())
    assert (one(after).absences, len(after.intents)) == (0, 1)


def test_a_launch_not_seen_in_two_listings_after_its_time_is_lost() -> None:
    state = a_state(pending(), intents=(an_intent("l-0", not_after=NOW - 1),))
    first = listed(state, listing())
    assert len(first.intents) == 1
    second = listed(first, listing(at=NOW + 301), at=NOW + 301)
    assert one(second).phase == "terminated"
    assert second.intents == ()
    assert [stone.id for stone in second.tombstones] == ["l-0"]
    late = listed(second, listing(seen(), at=NOW + 900), at=NOW + 900)
    assert one(late).orphan
    assert one(late).phase == "provisioning"


def test_a_lagging_listing_does_not_wake_the_dead() -> None:
    state = a_state(an_instance(phase="terminated", terminated_at=NOW - 5))
    assert one(listed(state, listing(seen()))).phase == "terminated"


def test_a_machine_that_nobody_owns_is_recorded() -> None:
    after = one(listed(a_state(), listing(seen("x-1"))))
    assert after.orphan
    assert (after.phase, after.external_id) == ("provisioning", "i-x-1")


def test_a_second_machine_with_the_same_id_is_nobodys() -> None:
    after = listed(a_state(an_instance()), listing(seen(), seen(external_id="i-2")))
    assert [bool(instance.orphan) for instance in after.instances] == [False, True]
    assert len({instance.id for instance in after.instances}) == 2


def test_another_lineage_is_left_alone_and_said() -> None:
    other = listing(seen("x-1", lineage="other"))
    assert listed(a_state(), other).instances == ()
    assert "another lineage (other)" in strangers(a_state(), [other])[0]


def test_a_tag_of_a_later_generation_refuses_the_state() -> None:
    with pytest.raises(StateRefused, match="older than the world"):
        listed(a_state(an_instance()), listing(seen(generation=6)))


def test_a_fence_of_a_later_generation_refuses_the_state() -> None:
    with pytest.raises(StateRefused, match="older than the world"):
        looked(a_state(an_instance()), report(generation=6))


def servers(*names: str, cloud: bool = False) -> State:
    """A project of that many declared servers, each a place of one instance; and one of a cloud, if asked."""
    places = [
        Place(name=f"ssh/{name}", config=BackendConfig(name="ssh", type="ssh"), identity=f"key {name}")
        for name in names
    ]
    ours = [an_instance(f"l-{name}", place=f"ssh/{name}", machine_id="", pool="lab") for name in names]
    if cloud:
        places.append(Place(name=PLACE, config=FAKE, region="r1", identity="me"))
        ours.append(an_instance("l-cloud", machine_id=""))
    return a_state(*ours, places=tuple(places))


def claims(**generations: int) -> list[Listing]:
    return [
        listing(
            seen(f"l-{name}", generation=generation),
            place=PLACE if name == "cloud" else f"ssh/{name}",
            identity="me" if name == "cloud" else f"key {name}",
        )
        for name, generation in generations.items()
    ]


def fences(**generations: int) -> list[HostReport]:
    """Of the servers no key sealed it."""
    return [
        report(instance=f"l-{name}", machine_id="", **{"generation" if name == "cloud" else "claimed": number})
        for name, number in generations.items()
    ]


LIE = 999_999_999


@pytest.mark.parametrize(
    ("state", "claimed", "fenced"),
    [
        (servers("a", "b"), claims(a=LIE, b=3), fences(a=0, b=0)),
        (servers("a", "b"), claims(a=3, b=3), fences(a=LIE, b=5)),
        (servers("a", "b"), claims(a=3, b=3), fences(a=6, b=0)),
        (servers("a", cloud=True), claims(a=LIE, cloud=2), fences(a=LIE, cloud=0)),
        (servers("a", "b", "c"), claims(a=LIE, b=1, c=1), ()),
        (servers("a"), claims(a=6), fences(a=0)),
        (servers("a"), claims(a=3), fences(a=LIE)),
        (servers("a", "b"), [*claims(a=6), listing(place="ssh/b", identity="key b")], ()),
    ],
)
def test_a_server_that_alone_says_a_later_generation_is_quarantined_and_stops_nobody_else(
    state: State, claimed: list[Listing], fenced: list[HostReport]
) -> None:
    """Whoever has its login can write any number there."""
    state = replace(
        state,
        attempts=(
            an_attempt(Job(id="j", instance="l-a", status="running"), Job(id="k", instance="l-b", status="running")),
        ),
    )
    fenced = fenced or fences(a=0, b=0)
    after = absorb(state, listings=claimed, reports=fenced, now=NOW)
    liar, *others = after.instances
    assert (liar.phase, liar.unreachable_since) == ("ready", NOW)
    assert "it carries generation" in liar.quarantined
    assert after.places[0].error.startswith("quarantined: it carries generation")
    assert job(after).status == "running", "its silence about a job proves nothing"
    for other in others:
        if any(one.instance == other.id for one in fenced):
            assert (other.quarantined, other.unreachable_since) == ("", None)
    assert not any(place.error for place in after.places[1:])


def test_a_server_that_lied_and_says_what_is_true_again_waits_for_a_person() -> None:
    lied = absorb(servers("a", "b"), listings=claims(a=LIE, b=3), reports=fences(a=0, b=0), now=NOW)
    after = absorb(lied, listings=claims(a=3, b=3), reports=fences(a=0, b=0), now=NOW)
    assert [(bool(one.quarantined), one.unreachable_since) for one in after.instances] == [(True, None), (False, None)]
    assert not after.places[0].error


@pytest.mark.parametrize(
    ("state", "claimed", "fenced"),
    [
        (servers("a", "b"), claims(a=6, b=7), fences(a=0, b=0)),
        (servers("a", "b"), claims(a=3, b=3), fences(a=6, b=7)),
        (servers("a", "b", "c"), claims(a=3, b=3, c=3), fences(a=6, b=7, c=0)),
        (servers("a", cloud=True), claims(a=3, cloud=6), ()),
        (servers("a", cloud=True), claims(a=3, cloud=3), fences(a=0, cloud=6)),
        (servers("a", "b"), claims(a=3, b=3), [report(instance="l-a", machine_id="", generation=6)]),
        (servers("a", "b", "c"), [*claims(a=6, b=6), listing(place="ssh/c", error="timed out")], ()),
        (servers("a", "b", "c"), [*claims(a=6, b=6), replace(claims(c=3)[0], identity="somebody")], ()),
    ],
    ids=["all", "all fences", "most", "a cloud's tag", "a cloud's host", "sealed", "error", "other machine"],
)
def test_where_nobody_contradicts_the_state_is_refused(
    state: State, claimed: list[Listing], fenced: list[HostReport]
) -> None:
    with pytest.raises(StateRefused, match="older than the world"):
        absorb(state, listings=claimed, reports=fenced, now=NOW)


@pytest.mark.parametrize("others", [0, 1, 3])
def test_a_bought_machine_whose_jobs_wrote_a_later_generation_is_quarantined_alone(others: int) -> None:
    """Also where it is the only one, or where all of them say so: no key of ours sealed it. Its jobs are believed."""
    job = Job(id="r-0-1-0", instance="l-0", status="running", started_at=NOW - 60, boot_id="boot-1")
    machines = tuple(an_instance(f"l-{index}", address=f"10.0.0.{index}", machine_id="") for index in range(others + 1))
    state = a_state(*machines, attempts=(an_attempt(job),))
    told = JobReport(id=job.id, phase="ended", exit_code=0, ended_at=NOW - 5)
    liars = machines if others == 1 else machines[:1]
    reports = [
        report(*([told] if one.id == "l-0" else []), instance=one.id, machine_id="", generation=5,
               claimed=LIE if one in liars else 0)
        for one in machines
    ]  # fmt: skip
    listings = [listing(*(seen(one.id, generation=3) for one in machines))]
    after = absorb(state, listings=listings, reports=reports, now=NOW, before=state)
    assert [bool(one.quarantined) for one in after.instances] == [one in liars for one in machines]
    assert "it carries generation 999999999, this state is at 5" in after.instances[0].quarantined
    assert [one.unreachable_since for one in after.instances] == [None] * len(machines)
    assert after.attempts[0].jobs[0].status == "ended", "its result is collected before it goes"
    assert not after.places[0].error


def test_a_restored_backup_is_known_by_one_seal_whatever_jobs_claim() -> None:
    state = a_state(an_instance("l-0", address="10.0.0.1"), an_instance("l-1", address="10.0.0.2"))
    reports = [report(instance="l-0", claimed=LIE), report(instance="l-1", generation=6, claimed=7)]
    with pytest.raises(StateRefused, match="l-1 carries 6; it looks like a restored backup"):
        absorb(state, listings=[listing()], reports=reports, now=NOW, before=state)


# ---------------------------------------------------------------- hosts


def test_a_host_that_answers_is_ready() -> None:
    after = one(looked(a_state(an_instance(phase="provisioning", ready_at=None)), report()))
    assert (after.phase, after.ready_at) == ("ready", NOW)


def test_a_host_that_never_answered_is_booting() -> None:
    state = a_state(an_instance(phase="provisioning", ready_at=None))
    assert looked(state, report(error="refused")) == state


def test_failed_looks_count_to_three() -> None:
    state = a_state(an_instance())
    for count in (1, 2, 3, 3):
        state = looked(state, report(error="timed out"))
        assert (one(state).failed_looks, one(state).unreachable_since) == (count, NOW)
    again = one(looked(state, report()))
    assert (again.failed_looks, again.unreachable_since) == (0, None)


def test_a_look_that_failed_on_our_side_counts_against_nobody() -> None:
    state = a_state(an_instance())
    assert looked(state, report(error="no key", not_visible=True)) == state


def test_all_hosts_of_a_place_failing_at_once_is_our_side() -> None:
    state = a_state(an_instance("l-0"), an_instance("l-1"))
    after = looked(state, report(error="timed out"), report(error="timed out", instance="l-1"))
    assert [instance.failed_looks for instance in after.instances] == [0, 0]
    assert all(instance.unreachable_since for instance in after.instances)
    half = looked(state, report(error="timed out"), report(instance="l-1"))
    assert [instance.failed_looks for instance in half.instances] == [1, 0]


@pytest.mark.parametrize("shared", [{"via": "jump@gate:22"}, {"network": "10.1.0.0/24"}], ids=["jump", "network"])
def test_all_hosts_behind_one_jump_or_of_one_network_failing_at_once_is_our_side(shared: dict[str, str]) -> None:
    """The place itself answers for a host that is reached by another way."""
    state = a_state(an_instance("l-0", **shared), an_instance("l-1", **shared), an_instance("l-2"))
    down = (report(error="timed out"), report(error="timed out", instance="l-1"), report(instance="l-2"))
    after = looked(state, *down)
    assert [instance.failed_looks for instance in after.instances] == [0, 0, 0]
    assert [bool(instance.unreachable_since) for instance in after.instances] == [True, True, False]
    assert next(iter(shared.values())) in after.instances[0].unreachable_why
    half = looked(state, down[0], report(instance="l-1"), down[2])
    assert [instance.failed_looks for instance in half.instances] == [1, 0, 0]


def test_the_only_host_behind_a_jump_counts_its_failed_looks() -> None:
    state = a_state(an_instance("l-0", via="gate"), an_instance("l-1", via="other"))
    after = looked(state, report(error="timed out"), report(instance="l-1"))
    assert [instance.failed_looks for instance in after.instances] == [1, 0]


def test_where_a_host_is_reached_comes_from_its_place() -> None:
    told = seen(internal_ip="10.1.0.7", network="10.1.0.0/24", via="gate")
    after = one(listed(a_state(an_instance()), listing(told)))
    assert (after.internal_ip, after.network, after.via) == ("10.1.0.7", "10.1.0.0/24", "gate")
    direct = one(listed(a_state(after), listing(seen())))
    assert (direct.internal_ip, direct.network, direct.via) == ("10.1.0.7", "10.1.0.0/24", "")


def test_another_machine_at_the_address_is_a_failed_look() -> None:
    state = a_state(an_instance(), attempts=(an_attempt(Job(id="j", instance="l-0", status="running")),))
    after = looked(state, report(machine_id="other"))
    assert one(after).failed_looks == 1
    assert "another machine" in one(after).unreachable_why
    assert job(after).status == "running"


def test_a_host_of_another_machine_is_not_believed() -> None:
    """A home that two machines share: the same paths, other processes, another boot."""
    state = a_state(an_instance(), attempts=(an_attempt(Job(id="j", instance="l-0", status="running")),))
    gone = report(JobReport(id="j", phase="lost"), boot_id="boot-2")
    after = absorb(state, listings=[listing(identity="other")], reports=[gone], now=NOW)
    assert (job(after).status, one(after)) == ("running", one(state))
    assert after.places[0].answered_by == "other"
    assert absorb(after, listings=[listing()], reports=(), now=NOW).places[0].answered_by == ""


# ---------------------------------------------------------------- jobs


@pytest.mark.parametrize(
    ("status", "said", "expected"),
    [
        ("assigned", "running", "running"),
        ("assigned", "ended", "ended"),
        ("assigned", "lost", "lost"),
        ("assigned", "absent", "assigned"),
        ("running", "running", "running"),
        ("running", "ended", "ended"),
        ("running", "lost", "lost"),
        ("running", "absent", "lost"),
        ("ended", "ended", "ended"),
        ("ended", "absent", "lost"),
        ("done", "ended", "done"),
        ("done", "absent", "done"),
        ("lost", "running", "lost"),
    ],
)
def test_a_job_follows_its_host(status: Any, said: Any, expected: str) -> None:
    state = a_state(an_instance(), attempts=(an_attempt(Job(id="j", instance="l-0", status=status)),))
    after = looked(state, report(JobReport(id="j", phase=said, exit_code=0 if said == "ended" else None)))
    assert job(after).status == expected


def test_a_reboot_loses_what_ran() -> None:
    running = Job(id="j", instance="l-0", status="running", boot_id="boot-1")
    state = a_state(an_instance(), attempts=(an_attempt(running),))
    after = looked(state, report(JobReport(id="j", phase="lost"), boot_id="boot-2"))
    assert (job(after).status, job(after).interrupted, job(after).reason) == ("lost", True, "its host rebooted")
    assert one(after).boot_id == "boot-2"


def test_absence_loses_no_job_that_changed_since_we_looked() -> None:
    def with_job(status: Any) -> State:
        return a_state(an_instance(), attempts=(an_attempt(Job(id="j", instance="l-0", status=status)),))

    assert job(looked(with_job("running"), report(), before=with_job("assigned"))).status == "running"
    assert job(looked(with_job("running"), report(), before=with_job("running"))).status == "lost"


def test_a_stopped_job_that_never_started_is_terminated_once_its_host_refuses_it() -> None:
    def stopping(**fields: Any) -> State:
        waiting = Job(id="j", instance="l-0", **fields)
        return a_state(an_instance(), attempts=(an_attempt(waiting, stopping="stopped by ann"),))

    assert job(looked(stopping(), report())).status == "assigned"
    after = job(looked(stopping(halted=True), report()))
    assert (after.status, after.reason) == ("terminated", "stopped by ann")


def test_an_aborted_jobs_result_is_not_waited_for() -> None:
    running = Job(id="j", instance="l-0", status="running")
    state = a_state(an_instance(), attempts=(an_attempt(running, stopping="aborted by ann", abort=True),))
    assert job(looked(state, report(JobReport(id="j", phase="ended", exit_code=143)))).status == "aborted"


def test_folders_that_nobody_needs_are_strays() -> None:
    jobs = (Job(id="done", instance="l-0", status="done"), Job(id="live", instance="l-0", status="running"))
    state = a_state(an_instance(), attempts=(an_attempt(*jobs),))
    reports = [JobReport(id=id, phase="running") for id in ("done", "live", "unknown")]
    assert one(looked(state, report(*reports))).stray_jobs == ("done", "unknown")


# ---------------------------------------------------------------- its folder is gone


def emptied(**fields: Any) -> HostReport:
    return HostReport(instance="l-0", at=NOW, error="our folder there is gone", folder_gone=True, **fields)


@pytest.mark.parametrize(
    ("was", "becomes"),
    [("assigned", "lost"), ("running", "lost"), ("ended", "lost"), ("done", "done"), ("failed", "failed")],
)
def test_the_jobs_of_a_machine_whose_folder_is_gone_are_over(was: Any, becomes: str) -> None:
    state = a_state(an_instance(ready_at=NOW - 50), attempts=(an_attempt(Job(id="j", instance="l-0", status=was)),))
    after = looked(state, emptied(), before=state)
    assert job(after).status == becomes
    assert one(after).quarantined == "its folder on the host is gone"  # it is ended once it is free, never used again
    assert one(after).unreachable_since is None


def test_a_machine_that_boots_has_no_folder_yet() -> None:
    after = looked(a_state(an_instance(phase="provisioning", ready_at=None)), emptied())
    assert (one(after).phase, one(after).quarantined) == ("provisioning", "")


def test_a_stopped_job_whose_folder_is_gone_ended_as_asked() -> None:
    attempt = replace(an_attempt(Job(id="j", instance="l-0", status="running")), stopping="stopped by ann")
    state = a_state(an_instance(ready_at=NOW - 50), attempts=(attempt,))
    assert job(looked(state, emptied())).status == "terminated"
