"""A lost state made again, things given up for good, and what leaves the state with age."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from reconciler.planner.plan import plan
from reconciler.planner.world import World
from reconciler.state.forget import forget
from reconciler.state.job_results import UNSEEN
from reconciler.state.observe.merge import absorb
from reconciler.state.prune import KEEP, needed_blobs, prune
from reconciler.state.rebuild import MARGIN, RebuildRefused, rebuild
from reconciler.state.status import idle_since, instance_status, jobs_by_instance, reap_at
from schemas.desired import BackendConfig, Desired
from schemas.instance import HostReport, Instance, JobReport, Listing, Seen
from schemas.launch import Intent, Request
from schemas.offer import Offer
from schemas.plan import Assign
from schemas.pool import Pool
from schemas.resources import Gpu, GpuNeed, Need, Resources, Span
from schemas.run import Attempt, Job, Run, RunSpec
from schemas.state import VERSION, Applied, Place, Revision, State, Tombstone

NOW = 1_000_000
BOX = Resources(cpus=2, memory=2048)
LOCAL = Place(name="local", config=BackendConfig(name="local", type="local"))
AWS = Place(name="aws/us-east-1", config=BackendConfig(name="aws", type="aws"), region="us-east-1")
TRAIN = RunSpec(name="train", hash="h1", pool="gpu")
WEB = RunSpec(name="web", type="service", hash="h2", pool="gpu")
DESIRED = Desired(
    project="abcdefgh1",
    pools=(Pool(name="gpu", nodes_min=1, idle_duration=600, prevent_destroy=True),),
    runs=(TRAIN, WEB),
)


def seen(index: int, **changes: object) -> Seen:
    made = Seen(
        external_id=f"x{index}",
        id=f"launch1{index}-0",
        launch=f"launch1{index}",
        pool="gpu",
        lineage="lin1",
        generation=10 + index,
        phase="running",
        resources=BOX,
        created_at=NOW - 100,
    )
    return replace(made, **changes)


def listing(*instances: Seen, place: str = "local", error: str = "") -> Listing:
    return Listing(place=place, at=NOW, identity="machine", instances=instances, error=error)


def report(index: int, *jobs: JobReport, **changes: object) -> HostReport:
    return replace(
        HostReport(instance=f"launch1{index}-0", at=NOW, boot_id="boot", generation=20, jobs=jobs), **changes
    )


def rebuilt(
    *listings: Listing,
    reports: tuple[HostReport, ...] = (),
    places: tuple[Place, ...] = (LOCAL,),
    lineage: str = "",
    done: frozenset[tuple[str, str]] = frozenset(),
    above: int = 0,
) -> State:
    return rebuild(
        project="abcdefgh1",
        listings=listings,
        reports=reports,
        places=places,
        desired=DESIRED,
        revision=Revision(digest="d"),
        by="ana",
        now=NOW,
        nonce="noncenon",
        lineage=lineage,
        done=done,
        above=above,
    )


def test_its_generation_is_above_everything_seen() -> None:
    assert rebuilt(listing(seen(1))).generation == 11 + MARGIN
    assert rebuilt(listing(seen(1)), reports=(report(1),)).generation == 20 + MARGIN
    assert rebuilt(listing(seen(1)), reports=(report(1, error="late", generation=30),)).generation == 30 + MARGIN
    assert rebuilt(listing(seen(1)), above=99).generation == 99 + MARGIN


def test_a_generation_that_no_counter_reaches_is_not_adopted() -> None:
    """The next ones must still be numbers that a host reads."""
    lie = report(1, generation=10**15 - 1)
    assert rebuilt(listing(seen(1)), reports=(lie,)).generation == 11 + MARGIN


def test_it_takes_the_lineage_of_its_instances() -> None:
    assert rebuilt(listing(seen(1))).lineage == "lin1"
    assert rebuilt(listing()).lineage == "noncenon"
    two = listing(seen(1), seen(2, lineage="lin2"))
    with pytest.raises(RebuildRefused, match=r"\(lin1, lin2\): choose with --lineage"):
        rebuilt(two)
    chosen = rebuilt(two, lineage="lin2")
    assert (chosen.lineage, [each.external_id for each in chosen.instances]) == ("lin2", ["x2"])
    with pytest.raises(RebuildRefused, match="no instance carries the lineage lin3"):
        rebuilt(two, lineage="lin3")


@pytest.mark.parametrize(
    "answers", [(), (listing(error="timed out"),), (replace(listing(), partial=True),), (listing(place="other"),)]
)
def test_a_silent_place_is_not_an_empty_one(answers: tuple[Listing, ...]) -> None:
    with pytest.raises(RebuildRefused, match=r"local: .*its instances would be forgotten"):
        rebuilt(*answers)


def test_instances_come_back_as_they_are() -> None:
    state = rebuilt(
        listing(seen(1), seen(2, phase="starting"), seen(3, phase="ending"), seen(4, phase="ended"), seen(5, id="")),
        reports=(report(1),),
    )
    assert [(each.name, each.phase, each.orphan[:6]) for each in state.instances] == [
        ("gpu-1", "ready", ""),
        ("gpu-2", "provisioning", ""),
        ("gpu-3", "terminating", ""),
        ("gpu-4", "ready", "tagged"),
    ]
    first = state.instances[0]
    assert (first.backend, first.place, first.external_id, first.boot_id) == ("local", "local", "x1", "boot")
    assert (first.origin, first.prevent_destroy, first.idle_duration) == ("declared", True, 600)
    assert state.places == (replace(LOCAL, identity="machine", observed_at=NOW),)


def test_machines_of_clouds_are_reached_as_their_backend_has_it() -> None:
    """Also one whose pool is no more."""
    config = BackendConfig(name="aws", type="aws", options={"connect": {"mode": "ssm"}})
    state = rebuilt(listing(seen(1), seen(2, pool="gone"), place=AWS.name), places=(replace(AWS, config=config),))
    assert [each.way.label for each in state.instances] == ["ssm", "ssm"]


def test_no_idle_clock_starts_before_the_rebuild() -> None:
    state = rebuilt(listing(seen(1, created_at=5), seen(2)), reports=(report(1),))
    answered, silent = state.instances[:2]
    assert reap_at(answered, since=idle_since(answered)) == NOW + 600
    assert reap_at(silent, since=idle_since(silent)) is None, "what a silent host does is unknown"
    assert (silent.unreachable_since, silent.idle_duration) == (NOW, 600)


def job_on(number: int, id: str, **fields: Any) -> HostReport:
    return report(number, JobReport(id=id, run="train", started_at=NOW - 50, **{"phase": "running", **fields}))


def answers_at_last(state: State, *reports: HostReport) -> State:
    there, later = replace(listing(seen(1), seen(2)), at=NOW + 900), [replace(one, at=NOW + 900) for one in reports]
    return absorb(state, listings=[there], reports=later, now=NOW + 900, before=state)


def test_a_host_that_was_silent_at_the_rebuild_brings_its_jobs_along_when_it_answers() -> None:
    """They were strays, which are ended and removed; and with no idle time of its own it was never reaped."""
    state = rebuilt(listing(seen(1), seen(2)), reports=(report(1),))
    assert [run.held for run in state.runs] == [True]
    after = answers_at_last(state, job_on(2, "r7-0-1-0"), report(1))
    late = after.instances[1]
    assert (late.ready_at, late.unreachable_since, late.stray_jobs) == (NOW + 900, None, ())
    assert [(run.id, run.spec.name, run.held) for run in after.runs] == [("r7", "train", False)]
    assert [job.id for attempt in after.attempts for job in attempt.jobs] == ["r7-0-1-0"]
    assert reap_at(late, since=idle_since(late)) == NOW + 900 + 600
    again = answers_at_last(after, job_on(2, "r7-0-1-0"))
    assert again.attempts == after.attempts


def test_one_node_of_several_joins_the_others_when_its_host_answers() -> None:
    state = rebuilt(listing(seen(1), seen(2)), reports=(job_on(1, "r7-0-1-0"),))
    after = answers_at_last(state, job_on(1, "r7-0-1-0"), job_on(2, "r7-0-1-1"))
    (attempt,) = after.attempts
    assert [(job.rank, job.status) for job in attempt.jobs] == [(0, "running"), (1, "running")]
    assert attempt.released_at is not None


def test_what_is_left_of_a_run_that_ended_meanwhile_is_nobodys() -> None:
    state = rebuilt(listing(seen(1), seen(2)), reports=(job_on(1, "r7-0-1-0", phase="ended", exit_code=0),))
    state = replace(state, runs=tuple(replace(run, status="done") for run in state.runs))
    after = answers_at_last(state, job_on(2, "r7-0-1-1"))
    assert after.instances[1].stray_jobs == ("r7-0-1-1",)


@pytest.mark.parametrize(
    ("place", "hosts", "whose"),
    [(NOW + 61, (), "local"), (NOW - 7200, (), "local"), (None, (NOW + 7200, NOW + 90), "the hosts")],
)
def test_where_the_clock_is_wrong_nothing_is_rebuilt(place: int | None, hosts: tuple[int, ...], whose: str) -> None:
    reports = tuple(report(index, clock=clock) for index, clock in enumerate(hosts, 1))
    with pytest.raises(RebuildRefused, match=rf"our clock and that of {whose} are \d+ s apart: set the wrong one"):
        rebuilt(replace(listing(seen(1), seen(2)), clock=place), reports=reports)


def test_one_host_whose_clock_is_wrong_stops_no_rebuild() -> None:
    reports = (report(1, clock=NOW - 9000), report(2, clock=NOW + 1))
    assert len(rebuilt(replace(listing(seen(1), seen(2)), clock=NOW + 60), reports=reports).instances) == 2


def test_places_of_regions() -> None:
    state = rebuilt(listing(seen(1)), listing(seen(2), place=AWS.name), places=(LOCAL, AWS))
    assert [(each.backend, each.place) for each in state.instances] == [("local", "local"), ("aws", "aws/us-east-1")]


def test_jobs_on_hosts_become_attempts_again() -> None:
    state = rebuilt(
        listing(seen(1), seen(2)),
        reports=(
            report(1, JobReport(id="abr0-0-2-0", phase="running", run="train", started_at=NOW - 50)),
            report(
                2,
                JobReport(id="abr0-0-2-1", phase="running", run="train"),
                JobReport(id="abr7-0-1-0", phase="ended", exit_code=3, ended_at=NOW - 5),
                JobReport(id="abr8-0-1-0", phase="absent"),
                JobReport(id="not ours", phase="running"),
            ),
        ),
    )
    assert [(each.id, [(job.rank, job.instance, job.status) for job in each.jobs]) for each in state.attempts] == [
        ("abr0-0-2", [(0, "launch11-0", "running"), (1, "launch12-0", "running")]),
        ("abr7-0-1", [(0, "launch12-0", "ended")]),
    ]
    assert state.attempts[0].released_at == NOW - 50, "both of its nodes run"
    first, second = state.runs[:2]
    assert (first.spec, first.origin, first.status, first.attempts, first.held) == (
        TRAIN,
        "declared",
        "running",
        2 + UNSEEN,  # others may have lain on machines that are gone: none of their numbers comes again
        False,
    )
    assert (second.spec.name, second.origin) == ("recovered-abr7", "run")
    assert state.attempts[1].jobs[0].exit_code == 3
    jobs = jobs_by_instance(state.attempts)
    assert [instance_status(each, jobs) for each in state.instances] == ["busy", "busy"]


def test_declared_tasks_without_a_record_are_held() -> None:
    state = rebuilt(listing())
    assert [(run.spec, run.held, run.status, run.origin) for run in state.runs] == [
        (TRAIN, True, "submitted", "declared")
    ]
    assert "--first-run" in state.runs[0].reason
    assert rebuilt(listing(), done=frozenset({("train", "h1")})).runs == ()
    assert len(rebuilt(listing(), done=frozenset({("train", "older")})).runs) == 1


# ---------------------------------------------------------------- forget


def instance(name: str, *, place: str = "local", **changes: object) -> Instance:
    made = Instance(id=f"{name}-id", name=name, pool="gpu", backend="local", place=place, resources=BOX, phase="ready")
    return replace(made, **changes)


def intent(id: str, *ids: str) -> Intent:
    request = Request(place="local", launch=id, token=id, ids=ids, names=ids, pool="gpu", instance_type="local")
    return Intent(id=id, request=request, opened_at=0)


def living() -> State:
    return State(
        version=VERSION,
        project="abcdefgh1",
        lineage="l",
        generation=3,
        places=(LOCAL, AWS),
        instances=(instance("a"), instance("b"), instance("c", place=AWS.name)),
        intents=(intent("one", "a-id"), intent("two", "a-id", "c-id")),
        attempts=(
            Attempt(
                id="r1-0-1",
                run="r1",
                number=1,
                jobs=(
                    Job(id="r1-0-1-0", instance="a-id", status="running"),
                    Job(id="r1-0-1-1", instance="c-id", rank=1, status="running"),
                ),
            ),
        ),
    )


def test_forgetting_an_instance() -> None:
    state = forget(living(), "a", NOW, by="ana")
    assert [each.phase for each in state.instances] == ["terminated", "ready", "ready"]
    assert state.instances[0].reason == "forgotten by ana"
    assert state.tombstones == (Tombstone(id="a-id", kind="instance", at=NOW, why="forgotten by ana"),)
    assert [job.status for job in state.attempts[0].jobs] == ["lost", "running"]
    assert [each.id for each in state.intents] == ["two"]
    assert state.places == (LOCAL, AWS)


def test_forgetting_a_place() -> None:
    state = forget(living(), AWS.name, NOW)
    assert [each.phase for each in state.instances] == ["ready", "ready", "terminated"]
    assert [(each.kind, each.id) for each in state.tombstones] == [("instance", "c-id"), ("place", AWS.name)]
    assert state.places == (LOCAL, replace(AWS, forgotten=True))


def test_forgetting_nothing() -> None:
    with pytest.raises(RebuildRefused, match="no place or living instance nope"):
        forget(living(), "nope", NOW)
    again = forget(living(), AWS.name, NOW)
    with pytest.raises(RebuildRefused):
        forget(again, AWS.name, NOW)


# ---------------------------------------------------------------- prune

OLD, YOUNG = NOW * 10 - KEEP - 1, NOW * 10 - KEEP + 1
LATER = NOW * 10


def ended(id: str, at: int, name: str = "gone", **changes: object) -> Run:
    made = Run(id=id, spec=RunSpec(name=name), status="failed", reason="exit 3", finished_at=at)
    return replace(made, **changes)


def test_what_ended_long_ago_leaves() -> None:
    state = State(
        version=VERSION,
        project="abcdefgh1",
        lineage="l",
        runs=(ended("r1", OLD), ended("r2", YOUNG), Run(id="r3", spec=TRAIN, submitted_at=0)),
        attempts=(
            Attempt(id="r1-0-1", run="r1", number=1, jobs=(Job(id="j1", instance="a-id", status="failed", log="d1"),)),
            Attempt(id="r2-0-1", run="r2", number=1, jobs=(Job(id="j2", instance="b-id", status="failed", log="d2"),)),
        ),
        instances=(
            instance("a", phase="terminated", terminated_at=OLD),
            instance("b", phase="terminated", terminated_at=OLD),
            instance("c", phase="terminated", terminated_at=YOUNG),
            instance("d"),
        ),
        tombstones=(
            Tombstone(id="t1", kind="launch", at=OLD, why=""),
            Tombstone(id="t2", kind="launch", at=YOUNG, why=""),
            Tombstone(id="t3", kind="place", at=OLD, why=""),
        ),
    )
    after = prune(state, now=LATER)
    assert [each.id for each in after.runs] == ["r2", "r3"]
    assert [each.id for each in after.attempts] == ["r2-0-1"]
    assert [each.name for each in after.instances] == ["b", "c", "d"], "b is where a remembered job ran"
    assert [(each.id, each.why) for each in after.tombstones] == [("t2", ""), ("t3", ""), ("r1", "gone failed: exit 3")]
    assert needed_blobs(after) == {"d2"}
    assert prune(after, now=LATER) is after
    assert prune(state, now=LATER, keep=None) is state


def test_an_ended_run_that_is_still_declared_stays() -> None:
    applied = Applied(revision=Revision(digest="d"), by="x", at=0, desired=DESIRED)
    declared = ended("r1", OLD, "train")
    wished = ended("r2", OLD, "train", origin="run")
    state = State(version=VERSION, project="abcdefgh1", lineage="l", applied=applied, runs=(declared, wished))
    assert prune(state, now=LATER).runs == (declared,)


def test_tombstones_are_bounded() -> None:
    graves = tuple(Tombstone(id=str(index), kind="launch", at=LATER, why="") for index in range(10_005))
    state = prune(State(version=VERSION, project="abcdefgh1", lineage="l", tombstones=graves), now=LATER)
    assert len(state.tombstones) == 10_000
    assert state.tombstones[-1].id == "10004"


# ---------------------------------------------------------------- what a type has


def sold(**changes: Any) -> Offer:
    a10 = Resources(cpus=8, memory=32768, gpu=Gpu(name="A10G", memory=24576, count=1))
    made = Offer(backend="aws", region="us-east-1", instance_type="g5.2xlarge", resources=a10, price=Decimal("1.21"))
    return replace(made, **changes)


SOLD = (
    sold(region="eu-west-1", price=Decimal("1.35")),
    sold(),
    sold(spot=True, price=Decimal("0.40")),
    sold(instance_type="p5.4xlarge", region="us-west-2", price=None),
)
BARE = seen(1, resources=None, instance_type="g5.2xlarge", zone="us-east-1a")


def rebuilt_at_aws(*instances: Seen, offers: tuple[Offer, ...] = SOLD, **fields: Any) -> State:
    given: dict[str, Any] = {
        "project": "abcdefgh1", "listings": [listing(*instances, place="aws/us-east-1")], "reports": [report(1)],
        "places": [AWS], "desired": DESIRED, "revision": Revision(digest="d"), "by": "ann", "now": NOW,
        "nonce": "nonce000", "offers": offers,
    }  # fmt: skip
    return rebuild(**{**given, **fields})


def test_a_rebuilt_instance_has_what_its_type_has() -> None:
    (one,) = rebuilt_at_aws(BARE).instances
    assert (one.resources.cpus, one.resources.memory, one.resources.disk) == (8, 32768, 100 * 1024)
    assert (one.resources.gpu, one.price, one.region) == (sold().resources.gpu, Decimal("1.21"), "us-east-1")


@pytest.mark.parametrize(
    ("changes", "price"),
    [
        ({"spot": True}, "0.40"),
        ({"price": Decimal("9.99")}, "9.99"),
        ({"instance_type": "p5.4xlarge"}, None),
        ({"spot": True, "region": "eu-west-1"}, None),
    ],
    ids=["spot", "as its tag says", "a type without a price", "not sold so there"],
)
def test_a_rebuilt_price_is_of_the_type_as_it_was_bought(changes: dict[str, Any], price: str | None) -> None:
    (one,) = rebuilt_at_aws(replace(BARE, **changes)).instances
    assert (one.price, one.resources.cpus) == (None if price is None else Decimal(price), 8)


def test_a_rebuilt_instance_of_an_unknown_type_is_known_at_the_next_look() -> None:
    state = rebuilt_at_aws(BARE, offers=())
    assert state.instances[0].resources.cpus == 0
    looked = listing(BARE, place="aws/us-east-1")
    later = absorb(state, listings=[looked], reports=[report(1)], now=NOW + 60, offers=SOLD)
    assert (later.instances[0].resources.cpus, later.instances[0].price) == (8, Decimal("1.21"))
    again = absorb(later, listings=[looked], reports=[report(1)], now=NOW + 120, offers=(sold(resources=BOX),))
    assert again.instances[0].resources.cpus == 8, "what is known stays"


def test_a_rebuilt_instance_is_reused() -> None:
    desired = replace(DESIRED, pools=(Pool(name="gpu", blocks=1),), runs=())
    state = rebuilt_at_aws(BARE, desired=desired)
    spec = replace(TRAIN, need=Need(gpu=GpuNeed(names=("a10g",)), disk=Span(min=50 * 1024)))
    state = replace(state, runs=(Run(id="r1", spec=spec, origin="run"),))
    (action,) = plan(World(desired=desired, state=state, offers=SOLD, now=NOW, nonce="n0000000")).actions
    assert isinstance(action, Assign)


def test_the_disk_of_a_rebuilt_instance_is_what_its_pool_asks_for() -> None:
    desired = replace(DESIRED, pools=(Pool(name="gpu", need=Need(disk=Span(min=500 * 1024))),))
    assert rebuilt_at_aws(BARE, desired=desired).instances[0].resources.disk == 500 * 1024


def test_the_shares_of_a_rebuilt_instance_are_those_of_its_pool() -> None:
    desired = replace(DESIRED, pools=(Pool(name="gpu", blocks=4),))
    assert rebuilt_at_aws(BARE, desired=desired).instances[0].blocks == 4


def test_a_fixed_runtime_stays() -> None:
    pod = replace(AWS, config=BackendConfig(name="aws", type="runpod"))
    (one,) = rebuilt_at_aws(BARE, places=[pod]).instances
    assert (one.resources.cpus, one.resources.runtime) == (8, pod.config.traits.fixed_runtime)
