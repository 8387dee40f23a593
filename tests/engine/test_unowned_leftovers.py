"""Volumes and addresses that nothing uses: sighted by an apply, left for half an hour, then removed."""

from __future__ import annotations

from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from backends.errors import BackendError, TryLater
from backends.fake.backend import Fault
from reconciler.engine.request import TickAsk
from reconciler.engine.tick import TickResult, tick
from reconciler.planner.rules.remove_leftovers import GRACE
from reconciler.report.plan import Page, render_plan
from reconciler.report.plan_rows import PlanRow, explain
from reconciler.state.observe.unowned_leftovers import absorb_leftovers
from schemas.instance import Listing
from schemas.leftover import BILLS, ORDER, Kind, Leftover
from schemas.plan import Permissions, Update
from schemas.pool import Pool
from schemas.state import Unowned
from tests.backends.aws.test_backend import account, use  # noqa: F401 - a fixture
from tests.chaos.killer import Killed, Killer
from tests.doubles.aws.aws_double import REGION, Account
from tests.doubles.aws.aws_world import AwsSite, papers
from tests.state.test_absorb import an_intent
from tests.worlds.world import Site, apply, cron, desired

FLOOR = desired(pools=[Pool(name="default-pool", default=True, nodes_min=1, nodes_max=2)])
PLACE = "fake/r1"
HOUR = 3600


@pytest.fixture
def site(tmp_path: Path) -> Site:
    site = Site(scratch=tmp_path)
    apply(site, FLOOR)
    return site


def put(site: Site, id: str = "vol-1", *, kind: Kind = "volume", **fields: Any) -> None:
    known = {"lineage": site.state.lineage, "hourly": Decimal("0.01"), "place": PLACE, **fields}
    site.world.leftovers.append(Leftover(kind=kind, id=id, **known))


def later(site: Site, seconds: int = HOUR, **changes: Any) -> TickResult:
    site.clock.at += seconds
    return cron(site, **changes)


def there(site: Site) -> list[str]:
    return [one.id for one in site.world.leftovers]


def remembered(site: Site) -> list[str]:
    return [one.id for one in site.state.unowned]


def removals(result: TickResult) -> list[str]:
    return [one.name for one in result.plan.actions if isinstance(one, Update) and one.subject.startswith("leftover ")]


# ---------------------------------------------------------------- asking


def test_a_place_is_asked_once_an_hour(site: Site) -> None:
    assert site.world.calls["leftovers"] == 1
    asked = []
    for _ in range(13):
        later(site, 300)
        asked.append(site.world.calls["leftovers"])
    assert asked == [1] * 11 + [2, 2]


def test_an_apply_within_the_hour_asks_and_writes_nothing(site: Site) -> None:
    later(site, 60)
    result = later(site, 60)
    assert (result.written, site.world.calls["leftovers"]) == (0, 1)


def test_a_plan_asks_nothing(site: Site) -> None:
    put(site)
    later(site, act=False)
    assert (site.world.calls["leftovers"], remembered(site)) == (1, [])


def test_an_error_is_a_note_and_keeps_what_is_remembered(site: Site) -> None:
    put(site)
    later(site)
    site.world.faults.append(Fault(call="leftovers", error=BackendError("not authorized")))
    known = site.state.unowned
    result = later(site, HOUR, permissions=Permissions(only_pool="default-pool"))
    (said,) = (one for one in result.warnings if "not authorized" in one)
    assert said.startswith(f"{PLACE}: unowned volumes and addresses were not checked")
    assert (site.state.unowned, site.state.places[0].error) == (known, "")
    assert site.state.places[0].leftovers_at == site.clock.now()


def test_a_place_that_does_not_list_its_instances_is_not_believed(site: Site) -> None:
    put(site)
    later(site)
    site.world.leftovers.clear()
    site.world.faults.append(Fault(call="instances", error=TryLater("slow down")))
    result = later(site)
    assert (removals(result), remembered(site)) == ([], ["vol-1"])
    later(site)
    assert remembered(site) == []


def test_what_another_account_lists_is_not_believed(site: Site) -> None:
    put(site)
    site.world.identity = "account-2"
    assert removals(later(site)) == []
    assert remembered(site) == []


# ---------------------------------------------------------------- what is remembered


def test_a_leftover_is_sighted_and_kept_for_its_grace(site: Site) -> None:
    put(site)
    later(site)
    since = site.clock.now()
    assert site.state.unowned == (Unowned(place=PLACE, kind="volume", id="vol-1", since=since, hourly=Decimal("0.01")),)
    assert removals(later(site, GRACE - 1)) == []
    assert there(site) == ["vol-1"]


@pytest.mark.parametrize(
    "fields",
    [
        {"in_use": "i-1"},
        {"lineage": "another"},
        {"lineage": ""},
        {"kind": "security-group"},
        {"kind": "placement-group"},
        {"kind": "interface", "hourly": Decimal(0)},
        {"kind": "volume", "hourly": Decimal(0)},
    ],
)
def test_what_is_used_or_another_copys_or_free_is_left(site: Site, fields: dict[str, Any]) -> None:
    put(site, **fields)
    for _ in range(4):
        later(site)
    assert (there(site), remembered(site)) == (["vol-1"], [])


@pytest.mark.parametrize("kind", ["volume", "address", "interface"])
def test_each_kind_that_bills_is_removed(site: Site, kind: Kind) -> None:
    put(site, kind=kind, hourly=None)
    later(site)
    later(site, GRACE)
    assert there(site) == []


def test_each_kind_says_whether_it_bills() -> None:
    assert set(BILLS) == set(ORDER)


def test_what_an_open_launch_made_is_left(site: Site) -> None:
    put(site, launch="l")
    later(site)
    assert remembered(site) == ["vol-1"]
    opened = replace(site.state, intents=(replace(an_intent("l-0"), id="l"),))
    assert absorb_leftovers(opened, ()).unowned == ()
    place = site.state.places[0]
    listing = Listing(place=PLACE, at=1, identity=place.identity, leftovers_asked=True)
    listed = replace(listing, leftovers=tuple(site.world.leftovers))
    assert absorb_leftovers(replace(opened, unowned=()), [listed]).unowned == ()
    assert len(absorb_leftovers(replace(site.state, unowned=()), [listed]).unowned) == 1


def test_two_backends_of_one_account_and_region_have_one_leftover(site: Site) -> None:
    put(site)
    place = site.state.places[0]
    state = replace(site.state, places=(place, replace(place, name="other/r1")))
    listing = Listing(place=PLACE, at=1, identity=place.identity, leftovers_asked=True)
    both = [replace(listing, place=name, leftovers=tuple(site.world.leftovers)) for name in (PLACE, "other/r1")]
    sighted = absorb_leftovers(state, both)
    assert [(one.place, one.id) for one in sighted.unowned] == [(PLACE, "vol-1")]
    assert absorb_leftovers(sighted, both[1:]).unowned == sighted.unowned
    assert absorb_leftovers(sighted, [replace(both[1], leftovers=())]).unowned == ()


def test_one_that_is_listed_no_more_or_in_use_is_forgotten(site: Site) -> None:
    put(site, "vol-1")
    put(site, "vol-2")
    later(site)
    used = replace(site.world.leftovers[1], in_use="i-1")
    site.world.leftovers[:] = [used]
    assert removals(later(site)) == []
    assert (remembered(site), site.world.leftovers) == ([], [used])


def test_a_sighting_by_a_clock_that_was_off_does_not_count(site: Site) -> None:
    put(site)
    place = site.state.places[0]
    listing = Listing(place=PLACE, at=500, identity=place.identity, leftovers_asked=True)
    listed = [replace(listing, leftovers=tuple(site.world.leftovers))]
    skewed = replace(site.state, places=(replace(place, skew=-7200),))
    assert absorb_leftovers(skewed, listed).unowned == ()
    ahead = absorb_leftovers(site.state, [replace(listed[0], at=9000)])
    assert [one.since for one in absorb_leftovers(ahead, listed).unowned] == [500]


# ---------------------------------------------------------------- removal


def test_after_its_grace_it_is_removed_and_forgotten(site: Site) -> None:
    put(site)
    later(site)
    result = later(site, GRACE + 60)
    assert removals(result) == ["volume vol-1"]
    assert (there(site), remembered(site)) == ([], [])
    assert [row for row in explain(result.plan, site.state) if row.kind == "remove"] == [
        PlanRow(kind="remove", why="unowned for 31m", instance="volume vol-1", backend="fake", region="r1")
    ]
    assert removals(later(site, 10)) == []


def test_a_plan_shows_it_and_does_nothing(site: Site) -> None:
    put(site)
    later(site)
    before = site.store.data
    result = later(site, GRACE + 60, act=False)
    text = render_plan(result.plan, result.state, now=site.clock.now(), page=Page())
    assert "- volume vol-1  -$0.01/h  remove: unowned for 31m" in text
    assert "1 leftover to remove" in text
    assert (there(site), site.store.data) == (["vol-1"], before)


def test_an_apply_that_was_not_approved_removes_nothing(site: Site) -> None:
    put(site)
    later(site)
    later(site, GRACE, confirm=lambda plan, state: None)
    assert there(site) == ["vol-1"]
    later(site, 10, confirm=lambda plan, state: replace(plan, actions=()))
    assert there(site) == ["vol-1"]


def test_one_that_came_into_use_since_is_kept_and_said(site: Site) -> None:
    put(site)
    later(site)
    site.world.leftovers[0] = replace(site.world.leftovers[0], in_use="i-9")
    result = later(site, GRACE)
    assert f"{PLACE} volume vol-1 was not removed: it is used by i-9" in result.warnings
    (one,) = site.state.unowned
    assert (there(site), one.removing_at, one.since) == (["vol-1"], None, site.clock.now())


def test_one_whose_place_refuses_is_kept_for_another_grace(site: Site) -> None:
    put(site)
    later(site)
    site.world.faults.append(Fault(call="remove", error=BackendError("no permission")))
    assert any("no permission" in one for one in later(site, GRACE).warnings)
    assert removals(later(site, 60)) == []
    assert removals(later(site, GRACE)) == ["volume vol-1"]
    assert there(site) == []


def test_a_removal_that_could_not_be_checked_is_tried_again(site: Site) -> None:
    put(site)
    later(site)
    site.world.faults.append(Fault(call="leftovers", error=TryLater("slow down")))
    later(site, GRACE)
    assert (there(site), site.state.unowned[0].removing_at) == (["vol-1"], site.clock.now())
    later(site, 10)
    assert (there(site), remembered(site)) == ([], [])


def killed_at(site: Site, at: int, *, after: bool) -> None:
    """The first effect of such a pass is a record in the ledger, the second is the write with the mark."""
    with suppress(Killed):
        tick(Killer(at, after=after).wrap(site.ports()), TickAsk())


def test_killed_before_the_mark_nothing_is_removed(site: Site) -> None:
    put(site)
    later(site)
    site.clock.at += GRACE
    killed_at(site, 1, after=False)
    assert (there(site), site.state.unowned[0].removing_at) == (["vol-1"], None)


def test_killed_between_the_mark_and_the_removal_the_next_apply_removes_it(site: Site) -> None:
    put(site)
    later(site)
    site.clock.at += GRACE
    killed_at(site, 2, after=True)
    assert (there(site), site.state.unowned[0].removing_at) == (["vol-1"], site.clock.now())
    result = later(site, 10)
    assert removals(result) == []
    assert (there(site), remembered(site)) == ([], [])


def test_killed_between_the_mark_and_the_removal_one_that_came_into_use_is_kept(site: Site) -> None:
    put(site)
    later(site)
    site.clock.at += GRACE
    killed_at(site, 2, after=True)
    site.world.leftovers[0] = replace(site.world.leftovers[0], in_use="i-9")
    later(site, 10)
    assert (there(site), site.state.unowned[0].removing_at) == (["vol-1"], None)


def test_a_clock_that_is_off_removes_nothing(site: Site) -> None:
    put(site)
    later(site)
    site.store.clock = lambda: site.clock.now() - 300
    result = later(site, GRACE)
    assert (removals(result), there(site)) == ([], ["vol-1"])
    assert any(one.subject == "volume vol-1" and "our clock" in one.why for one in result.plan.unmet)


def test_at_most_half_of_what_is_unowned_goes_in_one_apply(site: Site) -> None:
    for number in range(6):
        put(site, f"vol-{number}")
    later(site)
    result = later(site, GRACE)
    assert len(removals(result)) == 3
    (said,) = (one for one in result.plan.warnings if "--allow-mass-destroy" in one)
    assert said.startswith(f"{PLACE} has 6 unowned resources that cost money: this apply removes 3")
    assert len(there(site)) == 3
    later(site, 10, permissions=Permissions(mass_destroy=True))
    assert there(site) == []


def test_what_is_marked_already_counts_for_the_half(site: Site) -> None:
    for number in range(4):
        put(site, f"vol-{number}")
    later(site)
    site.clock.at += GRACE
    killed_at(site, 2, after=True)
    site.world.faults.append(Fault(call="leftovers", error=TryLater("slow down")))
    assert removals(later(site, 10)) == []
    assert len(there(site)) == 4


def test_a_plan_that_is_narrowed_removes_nothing(site: Site) -> None:
    put(site)
    later(site)
    later(site, GRACE, permissions=Permissions(only_pool="default-pool"))
    later(site, 10, permissions=Permissions(scope=()))
    assert there(site) == ["vol-1"]


# ---------------------------------------------------------------- EC2


def test_a_volume_of_ec2_that_nothing_uses_is_removed(account: Account, tmp_path: Path) -> None:  # noqa: F811
    site = AwsSite(scratch=tmp_path, account=account)
    apply(site, papers(pools=[Pool(name="default-pool", default=True, nodes_min=1)]))
    ec2 = account.client(region=REGION)
    zone = ec2.describe_subnets()["Subnets"][0]["AvailabilityZone"]

    def volume(lineage: str) -> str:
        tags = {"dstack-project": site.state.project, "dstack-lineage": lineage}
        made = ec2.create_volume(
            AvailabilityZone=zone,
            Size=100,
            VolumeType="gp3",
            TagSpecifications=[
                {"ResourceType": "volume", "Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}
            ],
        )
        return str(made["VolumeId"])

    mine, theirs = volume(site.state.lineage), volume("another")
    later(site)
    assert remembered(site) == [mine]
    assert round(float(site.state.unowned[0].hourly or 0) * 730, 2) == 8.0
    later(site, GRACE)
    left = {one["VolumeId"] for one in ec2.describe_volumes()["Volumes"]}
    assert (mine in left, theirs in left, remembered(site)) == (False, True, [])
