"""Whole ticks over the AWS backend and a strict double of EC2: launches, spot, refusals, and what survives a kill."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from itertools import product
from pathlib import Path

import pytest
from msgspec.structs import replace

from backends.aws import backend as aws
from reconciler.engine.ports import Ports
from reconciler.engine.request import TickAsk
from reconciler.engine.tick import tick
from schemas.desired import Desired
from schemas.launch import Made
from schemas.plan import Launch
from schemas.pool import Pool
from schemas.profile import Retry
from schemas.resources import Where
from schemas.run import RUN_ENDED
from tests.backends.aws.test_backend import account, rules, use  # noqa: F401 - a fixture
from tests.chaos.killer import Killed, Killer
from tests.doubles.aws.aws_double import Account, AwsServer
from tests.doubles.aws.aws_world import AwsSite, papers, sold
from tests.worlds.world import PROJECT, apply, apply_ask, cron, task

POOL = Pool(name="default-pool", default=True, nodes_min=1, nodes_max=4, idle_duration=60)
EMPTY = replace(POOL, nodes_min=0)
SPOT = Where(spot="spot")


@pytest.fixture
def site(account: Account, tmp_path: Path) -> AwsSite:  # noqa: F811
    return AwsSite(scratch=tmp_path, account=account)


def kinds(site: AwsSite) -> list[tuple[str, bool]]:
    return sorted((one["type"], one["spot"]) for one in site.account.living())


def goes_on(site: AwsSite, count: int = 1, *, apart: int = 20) -> None:
    for _ in range(count):
        site.clock.at += apart
        assert cron(site).refused == ""


# ---------------------------------------------------------------- spot


def test_an_interrupted_run_is_tried_again_on_a_replacement_of_the_same_tick(site: AwsSite) -> None:
    run = task("train", where=SPOT, retry=Retry(interruption=True), idle_duration=60)
    site.world.script = lambda job: (1000, 0)
    apply(site, papers(pools=[EMPTY], runs=[run]))
    goes_on(site)
    assert kinds(site) == [("m5.large", True)]
    (first,) = site.account.living()
    site.account.interrupt(first["id"])
    site.clock.at += 20
    (launch,) = [one for one in cron(site).plan.actions if isinstance(one, Launch)]
    assert launch.why == "for run train, again after: interrupted: Server.SpotInstanceTermination: Spot interruption"
    (second,) = site.account.living()
    assert second["id"] != first["id"]
    goes_on(site)
    assert [attempt.number for attempt in site.state.attempts] == [1, 2]
    (ended,) = [one for one in site.state.instances if one.external_id == first["id"]]
    assert "Spot interruption" in ended.reason
    (again,) = site.state.runs
    assert again.status == "running"


def test_without_retry_an_interruption_ends_the_run(site: AwsSite) -> None:
    site.world.script = lambda job: (1000, 0)
    apply(site, papers(pools=[EMPTY], runs=[task("train", where=SPOT, idle_duration=60)]))
    goes_on(site)
    site.account.interrupt(site.account.living()[0]["id"])
    goes_on(site, 2)
    assert [run.status for run in site.state.runs] == ["failed"]
    assert site.account.living() == []


def test_a_price_above_max_price_is_never_launched(site: AwsSite) -> None:
    """Not by the catalog, and not by EC2 where the catalog is behind."""
    where = Where(spot="spot", max_price=Decimal("0.05"))
    site.account.set(spot={"m5.large": "0.09"})
    result = apply(site, papers(pools=[EMPTY], runs=[task("train", where=where)]))
    assert site.account.living() == []
    assert "SpotMaxPriceTooLow" in " ".join(one.why for one in result.plan.unmet) + repr(result.outcomes)
    site.account.set(spot={"m5.large": "0.04"})
    goes_on(site, apart=60)
    assert kinds(site) == [("m5.large", True)]
    assert site.account.requests()[-1]["InstanceMarketOptions.SpotOptions.MaxPrice"] == "0.05"


# ---------------------------------------------------------------- refusals


def test_a_sold_out_type_is_passed_over_within_the_same_apply_and_remembered(site: AwsSite) -> None:
    site.account.room("m5.large", 0)
    apply(site, papers(pools=[POOL]))
    assert kinds(site) == [("m5a.large", False)]
    assert {(one.instance_type, one.spot) for one in site.state.capacity} == {("m5.large", False)}
    assert {one.until - site.clock.now() for one in site.state.capacity} == {180}


def test_spot_that_is_sold_out_leaves_what_is_on_demand(site: AwsSite) -> None:
    """And for a shorter while."""
    site.account.room("m5.large", 0, spot=True)
    where = Where(spot="auto", instance_types=("m5.large",))
    apply(site, papers(pools=[replace(POOL, where=where)]))
    assert kinds(site) == [("m5.large", False)]
    memory = {(one.place, one.instance_type, one.spot, one.until - site.clock.now()) for one in site.state.capacity}
    assert memory == {("aws/eu-west-1", "m5.large", True, 45)}


def test_a_quota_is_told_apart_with_its_value(site: AwsSite) -> None:
    for kind in ("m5.large", "m5a.large", "g5.xlarge"):
        site.account.room(kind, 0, code="VcpuLimitExceeded")
    site.account.quota("L-1216C47A", 16)
    result = apply(site, papers(pools=[POOL]))
    assert any("L-1216C47A" in one.quota for one in site.state.capacity)
    assert any("is 16 vCPUs here" in one.why for one in site.state.capacity)
    assert result.plan.unmet


def test_a_permanent_refusal_stops_that_place_in_awss_own_words(site: AwsSite) -> None:
    words = "You are not authorized to perform this operation."
    site.account.fault("RunInstances", "UnauthorizedOperation", status=403, message=words, times=9)
    result = apply(site, papers(pools=[POOL]))
    assert site.account.calls()["eu-west-1", "RunInstances"] == 1
    assert words in " ".join(one.why for one in result.plan.unmet)


def test_throttled_it_is_sent_again_and_nothing_else_is_tried(site: AwsSite) -> None:
    site.account.fault("RunInstances", times=1)
    apply(site, papers(pools=[POOL]))
    assert site.state.capacity == ()
    goes_on(site)
    assert kinds(site) == [("m5.large", False)]
    assert len(site.account.requests()) == 1


def test_a_token_whose_instance_has_ended_was_launched_and_lost(site: AwsSite) -> None:
    """Its answer was lost, and it ended before anybody saw it: a listing shows the dead one, and another is made."""
    site.account.set(lag=1)
    site.account.fault("RunInstances", after=True, cut=True)
    apply(site, papers(pools=[POOL]))
    (first,) = site.account.living()
    site.account.power_off(first["id"])
    goes_on(site, 4)
    (second,) = site.account.living()
    assert second["id"] != first["id"]
    assert {one.external_id: one.phase for one in site.state.instances} == {
        first["id"]: "terminated",
        second["id"]: "ready",
    }


def test_terminating_stays_until_ec2_says_terminated(site: AwsSite) -> None:
    apply(site, papers(pools=[POOL]))
    goes_on(site)
    site.account.set(ending=4)
    apply(site, papers(pools=[EMPTY]), permissions=allowed())
    goes_on(site, 4, apart=30)
    (one,) = site.state.instances
    assert (one.phase, one.ending) == ("terminating", True)
    goes_on(site, 3)
    (one,) = site.state.instances
    assert one.phase == "terminated"


def allowed():  # type: ignore[no-untyped-def]
    from schemas.plan import Permissions

    return Permissions(destroy_pools=("*",))


def test_who_ticks_from_another_address_is_let_in_when_nothing_answers(
    site: AwsSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DSTACK_ADDRESS", "203.0.113.7")
    apply(site, papers(pools=[POOL]))
    goes_on(site)
    assert rules(site.account, f"dstack-{PROJECT}") == [(22, "203.0.113.7/32")]
    monkeypatch.setenv("DSTACK_ADDRESS", "203.0.113.8")
    before = site.account.calls()
    goes_on(site)
    looks = ("DescribeInstances", "DescribeInstanceStatus")
    assert set(site.account.calls() - before) == {("eu-west-1", look) for look in looks}
    for machine in site.world.machines.values():
        machine.silent = True
    goes_on(site)
    assert rules(site.account, f"dstack-{PROJECT}") == [(22, "203.0.113.7/32"), (22, "203.0.113.8/32")]


# ---------------------------------------------------------------- regions


def test_a_region_is_a_place_once_something_is_launched_there(site: AwsSite) -> None:
    site.regions = ("eu-west-1", "us-east-1")
    documents = papers(pools=[POOL], regions=())
    apply(site, documents)
    assert [place.name for place in site.state.places] == ["aws/eu-west-1"]
    assert len(site.account.living()) == 1
    before = site.account.calls()
    goes_on(site)
    made = site.account.calls() - before
    assert {region for region, _ in made} == {"eu-west-1"}
    site.store.data = b""
    again = apply(site, documents)
    assert "aws/eu-west-1 has 1 of this project's instances" in again.refused
    assert site.account.calls()["us-east-1", "DescribeInstances"] >= 1
    assert len(site.account.living()) == 1


def test_a_tick_with_nothing_to_do_asks_twice_a_region_and_who_we_are(
    site: AwsSite,
) -> None:
    site.regions = ("eu-west-1", "us-east-1")
    pools = [Pool(name=region, default=region == "eu-west-1", nodes_min=2, where=Where(regions=(region,)))
             for region in site.regions]  # fmt: skip
    documents = papers(pools=pools, regions=site.regions)
    apply(site, documents)
    goes_on(site, 2)
    aws._identities.clear()
    site.account.clear()
    assert apply(site, documents).plan.actions == ()
    made = site.account.calls()
    assert {call: number for call, number in made.items() if call[1] != "GetCallerIdentity"} == {
        (region, look): 1 for region in site.regions for look in ("DescribeInstances", "DescribeInstanceStatus")
    }
    assert made.total() == 5


# ---------------------------------------------------------------- killed


RUNS = (task("pair", nodes=2, idle_duration=60, retry=Retry(interruption=True)),)
BEFORE = papers(pools=[POOL], runs=RUNS)
RAISED = papers(pools=[replace(POOL, nodes_min=2)], runs=RUNS)
LOWERED = papers(pools=[replace(POOL, nodes_min=0, nodes_max=3)], runs=RUNS)


def nothing(site: AwsSite) -> None:
    pass


def lagging(site: AwsSite) -> None:
    site.account.set(lag=2, ending=2)


def answers_lost(site: AwsSite) -> None:
    site.account.fault("RunInstances", after=True, cut=True)
    site.account.fault("TerminateInstances", after=True, cut=True)
    site.account.fault("CreateSecurityGroup", after=True, cut=True)


def other_offers(site: AwsSite) -> None:
    site.selling = lambda region: [one for one in sold(region) if one.instance_type in ("m5a.large", "g5.xlarge")]


def quota_and_zones(site: AwsSite) -> None:
    """A quota for the next cheapest, and one zone alone with room."""
    site.account.room("m5a.large", 0, code="VcpuLimitExceeded")
    for zone in ("a", "b"):
        site.account.room("m5.large", 0, zone=f"eu-west-1{zone}")


def sold_out(site: AwsSite) -> None:
    site.account.room("m5.large", len(site.account.living()))


def throttled(site: AwsSite) -> None:
    for action in ("DescribeInstances", "RunInstances", "TerminateInstances", "DescribeSecurityGroups"):
        site.account.fault(action)


def much_later(site: AwsSite) -> None:
    """Past the life of every open launch."""
    site.clock.at += 3000


WORLDS: dict[str, tuple[Callable[[AwsSite], None], Desired]] = {
    "same": (nothing, BEFORE),
    "lagging": (lagging, BEFORE),
    "answers-lost": (answers_lost, BEFORE),
    "other-offers-lowered": (other_offers, LOWERED),
    "sold-out": (sold_out, BEFORE),
    "quota-and-zones-raised": (quota_and_zones, RAISED),
    "throttled-lowered": (throttled, LOWERED),
    "much-later": (much_later, BEFORE),
}
ABOUT = ("prepare", "launch", "terminate")


def story(site: AwsSite, ports: Ports) -> None:
    """A floor of one and a gang of two, until it is done and the idle ones are gone."""
    tick(ports, apply_ask(BEFORE))
    for _ in range(8):
        site.clock.at += 20
        tick(ports, TickAsk())


def under_way(site: AwsSite, documents: Desired) -> bool:
    state = site.state
    spare = sum(one.phase == "ready" for one in state.instances) - documents.pools[0].nodes_min
    return bool(
        state.intents
        or spare > 0
        or any(one.phase not in ("ready", "terminated") for one in state.instances)
        or any(run.status not in RUN_ENDED for run in state.runs)
    )


def converge(site: AwsSite, documents: Desired) -> None:
    for _ in range(4):
        site.clock.at += 20
        if not apply(site, documents).refused:
            break
    for _ in range(80):
        site.clock.at += 20
        result = cron(site)
        assert result.refused == ""
        if not result.plan.actions and not result.outcomes and not under_way(site, documents):
            return
    raise AssertionError(f"still under way: {site.state}")


def check(site: AwsSite, documents: Desired) -> None:
    state = site.state
    ours = [one for one in site.account.living() if one["tags"].get("dstack-project") == site.places.around.project]
    owned = {one.external_id for one in state.instances if one.phase == "ready" and not one.orphan}
    assert {one["id"] for one in ours} == owned, "a machine without an owner"
    tokens = Counter(request["ClientToken"] for request in site.account.requests())
    assert max(tokens.values()) == 1, "launched twice"
    made = {one.external_id: one for one in state.instances if one.external_id}
    launched = sum(int(request["MaxCount"]) for request in site.account.requests()) - 1  # less the bystander
    assert len(made) == launched, "a machine that nobody remembers"
    assert max(site.world.started.values()) == 1, "a job started twice"
    assert {run.status for run in state.runs} == {"done"}
    assert len(owned) == documents.pools[0].nodes_min
    again = apply(site, documents)
    assert (again.plan.actions, again.outcomes) == ((), ())


def bystander(account: Account) -> str:  # noqa: F811
    """Another project's instance in the same account."""
    from tests.backends.aws.test_backend import ON_DEMAND, request
    from tests.doubles.aws.aws_world import Around, AwsPlaces

    backend = AwsPlaces(account=account, around=Around(project="otherproject")).place()
    asked = request(project="otherproject", launch="other", token="other", ids=("other-0",))
    made = backend.launch(backend.prepare(asked, ON_DEMAND))["other-0"]
    assert isinstance(made, Made)
    return made.external_id


@pytest.fixture(scope="session")
def kills(aws_server: AwsServer) -> list[tuple[int, str]]:
    """(number, name) of the effects of the story that are EC2's."""
    with pytest.MonkeyPatch.context() as patch:
        one = aws_server.account()
        use(one, patch)
        site, killer = AwsSite(scratch=Path(tempfile.mkdtemp()), account=one), Killer()
        story(site, killer.wrap(site.ports()))
    return [(number, name) for number, name in enumerate(killer.told, 1) if name in ABOUT]


# Each kind of effect in each world, before it in one half of them and after it in the other; `make chaos`: both in all.
CASES = list(product(ABOUT, [False, True], WORLDS))
SOME = (
    CASES
    if os.environ.get("DSTACK_TEST_CRASHES") == "all"
    else [
        (about, after, world)
        for about, after, world in CASES
        if (ABOUT.index(about) + list(WORLDS).index(world)) % 2 == after
    ]
)


@pytest.mark.parametrize(("about", "after", "world"), SOME)
def test_killed(about: str, after: bool, world: str, site: AwsSite, kills: list[tuple[int, str]]) -> None:
    """Of each kind of effect the first in half of the worlds, the last in the others."""
    numbers = [number for number, name in kills if name == about]
    at = numbers[(list(WORLDS).index(world) + after) % 2 * -1]
    happens, documents = WORLDS[world]
    theirs = bystander(site.account)
    with contextlib.suppress(Killed):
        story(site, Killer(at, after=after).wrap(site.ports()))
    happens(site)
    site.clock.at += 30
    converge(site, documents)
    check(site, documents)
    assert theirs in {one["id"] for one in site.account.living()}


# Around `prepare` nothing is written yet: whoever comes first then may be anybody.
@pytest.mark.parametrize(("about", "after"), list(product(("launch", "terminate"), (False, True))))
def test_another_accounts_credentials_touch_nothing(
    about: str,
    after: bool,
    site: AwsSite,
    kills: list[tuple[int, str]],
    aws_server: AwsServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bystander(site.account)
    at = next(number for number, name in kills if name == about)
    with contextlib.suppress(Killed):
        story(site, Killer(at, after=after).wrap(site.ports()))
    other, mine = aws_server.account(), site.account
    use(other, monkeypatch)
    living = [one["id"] for one in mine.living()]
    for _ in range(4):
        site.clock.at += 200
        apply(site, BEFORE)
    assert other.living() == []
    assert [one["id"] for one in mine.living()] == living
    use(mine, monkeypatch)
    converge(site, BEFORE)
    check(site, BEFORE)
