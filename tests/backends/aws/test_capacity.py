"""What an AWS launch asks for beyond a plain machine: fast interfaces, placement groups, reservations and blocks."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from backends.errors import BackendError, NoCapacity, TryLater
from reconciler.cli.commands.plan.apply_report import report
from reconciler.engine.until import Settled
from schemas.offer import Offer
from schemas.pool import Pool
from schemas.resources import Where
from tests.backends.aws.test_backend import ON_DEMAND, SPOT, account, launched, request  # noqa: F401 - a fixture
from tests.doubles.aws.aws_double import Account
from tests.doubles.aws.aws_reservations import interfaces
from tests.doubles.aws.aws_world import A10G, SMALL, AwsPlaces, AwsSite, papers
from tests.worlds.world import apply, cron, task

PRIVATE = {"public_ips": False}
ZONE = "eu-west-1b"
FAST = "us-east-1"  # where the double has the types with many network cards


@pytest.fixture
def places(account: Account) -> AwsPlaces:  # noqa: F811
    return AwsPlaces(account=account)


@pytest.fixture
def site(account: Account, tmp_path: Path) -> AwsSite:  # noqa: F811
    return AwsSite(scratch=tmp_path, account=account)


POOL = Pool(name="default-pool", default=True, nodes_min=1, nodes_max=8, idle_duration=60)
EMPTY = replace(POOL, nodes_min=0)
ZONES = ("eu-west-1a", "eu-west-1b", "eu-west-1c")


def of(kind: str, *, region: str = FAST) -> Offer:
    resources = A10G if kind.startswith("p") else SMALL
    return replace(ON_DEMAND, region=region, instance_type=kind, resources=resources)


def sent(places: AwsPlaces, offer: Offer, *, options: dict[str, Any] | None = None, **changes: Any) -> Any:
    """What EC2 was asked for in the offer's region, and the backend that asked."""
    backend = places.place(offer.region, **(options or {}))
    backend.launch(backend.prepare(request(offer, **changes), offer))
    return places.account.requests()[-1], backend


# ---------------------------------------------------------------- fast interfaces


def cards(asked: dict[str, str]) -> list[tuple[int, int, str]]:
    """(network card, device, type) of each interface."""
    return [
        (int(one["NetworkCardIndex"]), int(one["DeviceIndex"]), one.get("InterfaceType", "interface"))
        for one in interfaces(asked)
    ]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("p5.48xlarge", [(0, 0, "efa"), *((card, 1, "efa-only") for card in range(1, 32))]),
        ("p4d.24xlarge", [(0, 0, "efa"), *((card, 1, "efa-only") for card in range(1, 4))]),
        ("c6in.32xlarge", [(0, 0, "efa"), (1, 1, "efa-only")]),
        # Its first card takes no fast one.
        ("p6-b300.48xlarge", [(0, 0, "interface"), *((card, 1, "efa-only") for card in range(1, 17))]),
        # Two cards, one fast interface at most.
        ("i7ie.48xlarge", [(0, 0, "efa")]),
        ("c5n.18xlarge", [(0, 0, "efa")]),
        ("m5.large", [(0, 0, "interface")]),
    ],
)
def test_each_card_has_its_fast_interface_up_to_the_types_most(
    places: AwsPlaces, kind: str, expected: list[tuple[int, int, str]]
) -> None:
    asked, backend = sent(places, of(kind), options=PRIVATE, together=True)
    assert cards(asked) == expected
    assert len({one["SubnetId"] for one in interfaces(asked)}) == 1
    for one in interfaces(asked):
        groups = [value for name, value in one.items() if name.startswith("SecurityGroupId")]
        assert len(groups) == 2  # an EFA's may talk among themselves on every port, both ways
        assert one["DeleteOnTermination"] == "true"
        assert ("AssociatePublicIpAddress" in one) == (len(expected) == 1)
    assert backend.notes() == [f"{backend.place}: {UNKNOWN}"]


UNKNOWN = (
    "our own address is not known: nobody is let in to port 22; set DSTACK_ADDRESS, or "
    "`ingress: [RANGE]` of the backend"
)


@pytest.mark.parametrize(
    ("kind", "expected", "words"),
    [
        ("p5.48xlarge", "efa", "p5.48xlarge: 1 of its 32 fast interfaces (EFA) is used"),
        ("p6-b300.48xlarge", "interface", "p6-b300.48xlarge: none of its 16 fast interfaces (EFA) is used"),
        ("c5n.18xlarge", "efa", ""),
    ],
)
def test_with_a_public_address_one_interface_is_all_and_that_is_said(
    places: AwsPlaces, kind: str, expected: str, words: str
) -> None:
    asked, backend = sent(places, of(kind), together=True)
    assert cards(asked) == [(0, 0, expected)]
    assert asked["NetworkInterface.1.AssociatePublicIpAddress"] == "true"
    notes = [one for one in backend.notes() if "EFA" in one]
    assert [one.startswith(words) and "`public_ips: false`" in one for one in notes] == ([True] if words else [])


def test_alone_a_machine_has_no_fast_interface(places: AwsPlaces) -> None:
    asked, _ = sent(places, of("p5.48xlarge"), options=PRIVATE)
    assert [kind for _, _, kind in cards(asked)] == ["interface"]
    assert "Placement.GroupName" not in asked


def test_the_double_refuses_what_ec2_refuses_of_interfaces(places: AwsPlaces) -> None:
    from tests.doubles.aws.aws_reservations import Wrong, check_interfaces

    asked, _ = sent(places, of("c6in.32xlarge"), options=PRIVATE, count=2, together=True)
    assert asked["MinCount"] == asked["MaxCount"] == "2"
    ec2 = places.account.client(region=FAST)
    (kind,) = ec2.describe_instance_types(InstanceTypes=["c6in.32xlarge"])["InstanceTypes"]
    check_interfaces(asked, kind["NetworkInfo"])
    for changes in (
        {"NetworkInterface.1.AssociatePublicIpAddress": "true"},
        {"NetworkInterface.2.NetworkCardIndex": "2"},
        {"NetworkInterface.1.InterfaceType": "efa-only"},
        {"NetworkInterface.2.NetworkCardIndex": "0", "NetworkInterface.2.DeviceIndex": "0"},
        {"SecurityGroupId.1": "sg-1"},
    ):
        with pytest.raises(Wrong):
            check_interfaces(asked | changes, kind["NetworkInfo"])


# ---------------------------------------------------------------- near each other


def test_a_type_that_goes_in_no_group_is_in_one_zone_all_the_same(places: AwsPlaces) -> None:
    asked, _ = sent(places, of("t3.large"), count=2, together=True)
    assert "Placement.GroupName" not in asked
    assert asked["NetworkInterface.1.SubnetId"]


@pytest.mark.parametrize("zone", ["eu-west-1a", "eu-west-1b", "eu-west-1c"])
def test_what_belongs_near_the_others_goes_to_their_zone(places: AwsPlaces, zone: str) -> None:
    backend = places.place()
    for number in range(3):
        asked = request(ON_DEMAND, f"l{number}", count=2, together=True, near=zone)
        assert backend.prepare(asked, ON_DEMAND).zone == zone


def test_launches_of_one_word_share_a_zone(places: AwsPlaces) -> None:
    backend = places.place()
    found = {
        word: {backend.prepare(request(name=f"{word}{n}", together=True, near=word), ON_DEMAND).zone for n in range(4)}
        for word in ("n0000001", "n0000002", "n0000003", "n0000004")
    }
    assert all(len(zones) == 1 for zones in found.values())
    assert len(set.union(*found.values())) > 1


def test_zones_without_room_are_passed_by_until_none_is_left(places: AwsPlaces) -> None:
    backend = places.place()
    asked = request(count=2, together=True)
    tried: list[str] = []
    for _ in range(3):
        zone = backend.prepare(replace(asked, avoid=tuple(tried)), ON_DEMAND).zone
        assert zone not in tried
        tried.append(zone)
    with pytest.raises(NoCapacity, match="no capacity in eu-west-1a and eu-west-1b and eu-west-1c"):
        backend.prepare(replace(asked, avoid=tuple(tried)), ON_DEMAND)
    with pytest.raises(NoCapacity, match=f"no capacity in {tried[0]}, where it would have to be"):
        backend.prepare(replace(asked, near=tried[0], avoid=tuple(tried[:1])), ON_DEMAND)


# ---------------------------------------------------------------- what was reserved


TARGET = "CapacityReservationSpecification.CapacityReservationTarget"


def test_a_reservation_is_asked_for_in_its_zone_and_its_room_ends(places: AwsPlaces) -> None:
    id = places.account.reserve(kind="m5.large", zone=ZONE)
    asked, backend = launched(places, count=2, reservation=id)
    assert asked[f"{TARGET}.CapacityReservationId"] == id
    assert "InstanceMarketOptions.MarketType" not in asked
    assert {one["zone"] for one in places.account.living()} == {ZONE}
    with pytest.raises(NoCapacity, match="ReservationCapacityExceeded"):
        launched(places, name="l2", reservation=id)
    backend.terminate([one["id"] for one in places.account.living()])
    launched(places, name="l3", reservation=id)


def test_a_block_is_asked_for_as_a_block_and_is_no_placement_group(places: AwsPlaces) -> None:
    id = places.account.reserve(kind="p4d.24xlarge", zone="us-east-1b", region=FAST, type="capacity-block")
    asked, _ = sent(places, of("p4d.24xlarge"), options=PRIVATE, count=2, together=True, reservation=id)
    assert asked["InstanceMarketOptions.MarketType"] == "capacity-block"
    assert asked[f"{TARGET}.CapacityReservationId"] == id
    assert len(cards(asked)) == 4
    assert "Placement.GroupName" not in asked
    assert places.account.calls()[FAST, "CreatePlacementGroup"] == 0


def test_a_reservation_within_a_placement_group_is_used_within_it(places: AwsPlaces) -> None:
    places.account.client().create_placement_group(GroupName="theirs", Strategy="cluster")
    arn = "arn:aws:ec2:eu-west-1:1:placement-group/theirs"
    id = places.account.reserve(kind="m5.large", zone=ZONE, group=arn)
    asked, _ = launched(places, count=2, together=True, reservation=id)
    assert asked["Placement.GroupName"] == "theirs"
    groups = places.account.client().describe_placement_groups()["PlacementGroups"]
    assert [one["GroupName"] for one in groups] == ["theirs"]


def test_a_group_of_reservations_is_named_by_its_arn(places: AwsPlaces) -> None:
    arn = "arn:aws:resource-groups:eu-west-1:1:group/ours"
    asked, _ = launched(places, count=2, together=True, reservation=arn)
    assert asked[f"{TARGET}.CapacityReservationResourceGroupArn"] == arn
    assert "Placement.GroupName" not in asked


@pytest.mark.parametrize(
    ("said", "meaning", "words"),
    [
        ({"kind": "c5.large"}, BackendError, r"is of c5\.large, not of m5\.large: set `instance_types: \[c5\.large\]`"),
        ({"platform": "Windows"}, BackendError, "is of Windows machines; ours are Linux"),
        ({"tenancy": "dedicated"}, BackendError, "is of dedicated hardware"),
        ({"interruptible": "true"}, BackendError, "may be taken back by its owner"),
        ({"state": "expired"}, BackendError, "is expired"),
        ({"state": "cancelled"}, BackendError, "is cancelled"),
        (
            {"state": "scheduled", "starts": "2026-12-01T11:30:00.000Z"},
            NoCapacity,
            "is scheduled until 2026-12-01 11:30 UTC",
        ),
        ({"state": "payment-pending"}, NoCapacity, "is payment-pending"),
        ({"zone": "eu-west-1c"}, NoCapacity, "is in eu-west-1c, not in eu-west-1a"),
    ],
)
def test_what_a_reservation_does_not_fit_is_said_before_anything_is_asked_for(
    places: AwsPlaces, said: dict[str, str], meaning: type[BackendError], words: str
) -> None:
    id = places.account.reserve(**{"kind": "m5.large", "zone": "eu-west-1a", **said})
    zone = "eu-west-1a" if "zone" in said else ""
    with pytest.raises(meaning, match=f"reservation {id} {words}") as caught:
        launched(places, reservation=id, zone=zone)
    assert type(caught.value) is meaning
    assert places.account.calls()["eu-west-1", "RunInstances"] == 0


def test_a_type_that_a_region_does_not_have_stops_nothing_else_there(places: AwsPlaces) -> None:
    with pytest.raises(NoCapacity, match="InvalidInstanceType") as caught:
        launched(places, of("p5.48xlarge", region="eu-west-1"), together=True)
    assert caught.value.retry_after == 3600


def test_a_reservation_that_is_not_there_and_a_spot_one(places: AwsPlaces) -> None:
    with pytest.raises(BackendError, match=r"InvalidCapacityReservationId\.NotFound"):
        launched(places, reservation="cr-00000000000000000")
    id = places.account.reserve(kind="m5.large", zone=ZONE)
    with pytest.raises(BackendError, match="is never spot: set `spot_policy: on-demand`"):
        launched(places, SPOT, reservation=id, max_price=Decimal(1))


# ---------------------------------------------------------------- whole ticks


def kinds(site: AwsSite) -> list[tuple[str, str]]:
    return sorted((one["type"], one["zone"]) for one in site.account.living())


@pytest.mark.parametrize("left", ZONES)
def test_a_gang_goes_to_the_zone_that_has_room_within_the_same_apply(site: AwsSite, left: str) -> None:
    for zone in ZONES:
        site.account.room("m5.large", 0 if zone != left else 9, zone=zone)
    apply(site, papers(pools=[EMPTY], runs=[task("pair", nodes=2)]), confirm=lambda plan, state: plan)
    assert kinds(site) == [("m5.large", left)] * 2
    without = {(one.instance_type, one.zone) for one in site.state.capacity}
    assert without <= {("m5.large", zone) for zone in ZONES if zone != left}


def test_a_gang_that_no_zone_has_room_for_takes_the_next_offer_whole(site: AwsSite) -> None:
    for zone in ZONES:
        site.account.room("m5.large", 1, zone=zone)
    apply(site, papers(pools=[EMPTY], runs=[task("pair", nodes=2)]), confirm=lambda plan, state: plan)
    assert [kind for kind, _ in kinds(site)] == ["m5a.large"] * 2
    assert len({zone for _, zone in kinds(site)}) == 1
    assert {(one.zone, one.until - site.clock.now()) for one in site.state.capacity} == {
        *((zone, 180) for zone in ZONES), ("", 45),
    }  # fmt: skip


def test_a_cluster_stays_in_one_zone_and_one_region_as_it_grows(site: AwsSite) -> None:
    site.regions = ("eu-west-1", "us-east-1")
    pool = replace(POOL, placement="cluster")
    for count in (1, 2, 4):
        apply(site, papers(pools=[replace(pool, nodes_min=count)], regions=site.regions))
        site.clock.at += 20
        cron(site)
    (zone,) = {one["zone"] for one in site.account.living()}
    assert len(site.account.living()) == 4
    for kind in ("m5.large", "m5a.large", "g5.xlarge"):
        site.account.room(kind, 4 if kind == "m5.large" else 0, zone=zone)
    result = apply(site, papers(pools=[replace(pool, nodes_min=5)], regions=site.regions))
    assert {one["zone"] for one in site.account.living()} == {zone}
    assert site.account.living("us-east-1") == []
    assert f"no capacity in {zone}" in repr(site.state.capacity)
    assert "with the rest of its pool in eu-west-1" in result.plan.unmet[0].why


def test_a_reservation_that_is_full_keeps_nobody_else_from_that_type(site: AwsSite) -> None:
    id = site.account.reserve(kind="m5.large", zone=ZONE)
    where = Where(spot="auto", instance_types=("m5.large",), reservation=id)
    reserved = Pool(name="reserved", nodes_min=3, where=where)
    result = apply(site, papers(pools=[replace(POOL, nodes_min=2), replace(reserved, nodes_min=2)]))
    assert [kind for kind, _ in kinds(site)] == ["m5.large"] * 4
    result = apply(site, papers(pools=[replace(POOL, nodes_min=3), reserved]))
    assert [kind for kind, _ in kinds(site)] == ["m5.large"] * 5
    assert {(one.instance_type, one.zone, one.reservation) for one in site.state.capacity} == {
        ("m5.large", ZONE, id), ("m5.large", "", id),
    }  # fmt: skip
    (unmet,) = result.plan.unmet
    assert "reserved" in unmet.subject
    assert f"no capacity in {ZONE}, where it would have to be (ReservationCapacityExceeded: The req" in unmet.why
    assert site.account.calls()["eu-west-1", "RunInstances"] == 5  # the other pool's once more, until it is seen
    assert not any(one["spot"] for one in site.account.living())  # what is reserved never is


def test_a_reservation_of_another_type_says_what_to_write_and_stops_nothing_else(site: AwsSite) -> None:
    id = site.account.reserve(kind="c5.large", zone=ZONE)
    reserved = Pool(name="reserved", nodes_min=1, where=Where(reservation=id))
    result = apply(site, papers(pools=[POOL, reserved]))
    assert [kind for kind, _ in kinds(site)] == ["m5.large"]
    (unmet,) = result.plan.unmet
    assert "is of c5.large, not of m5.large: set `instance_types: [c5.large]`" in unmet.why


# ---------------------------------------------------------------- more than a page


def test_more_than_a_thousand_come_over_pages_and_none_is_missed(places: AwsPlaces) -> None:
    places.account.set(crowd=2345)
    seen = places.place().instances()
    assert len({one.external_id for one in seen}) == len(seen) == 2345
    assert {one.id for one in seen} == {f"c{number // 50}-{number % 50}" for number in range(2345)}
    assert places.account.calls()["eu-west-1", "DescribeInstances"] == 4  # an empty page is no end


@pytest.mark.parametrize("after", [1, 2, 3])
@pytest.mark.parametrize("fault", [{}, {"cut": True}, {"code": ""}, {"page": "<html><body>Sign in</body></html>"}])
def test_a_page_that_fails_halfway_is_neither_empty_nor_a_part(
    places: AwsPlaces, after: int, fault: dict[str, Any]
) -> None:
    places.account.set(crowd=2345)
    places.account.fault("DescribeInstances", skip=after, **fault)
    with pytest.raises(TryLater):
        places.place().instances()


def test_a_tick_over_a_listing_that_fails_halfway_ends_and_buys_nothing(site: AwsSite) -> None:
    pools = [replace(POOL, nodes_min=1), *(Pool(name=name, nodes_min=1) for name in ("other", "third"))]
    apply(site, papers(pools=pools))
    site.clock.at += 20
    cron(site)
    site.account.set(page=1)
    living = {one["id"] for one in site.account.living()}
    assert len(living) == 3
    site.account.clear()
    site.clock.at += 400
    assert cron(site).plan.actions == ()
    assert site.account.calls()["eu-west-1", "DescribeInstances"] == 3
    for skip in (0, 1, 2, 1, 2):
        site.account.fault("DescribeInstances", skip=skip)
        site.clock.at += 400
        result = cron(site)
        assert result.refused == ""
        assert [place.error != "" for place in site.state.places] == [True]
    assert {one["id"] for one in site.account.living()} == living
    assert {one.phase for one in site.state.instances} == {"ready"}
    site.clock.at += 400
    cron(site)
    assert {one.external_id for one in site.state.instances} == living


# ---------------------------------------------------------------- what a person reads of it


CODES = ("m5.large", "m5a.large", "g5.xlarge")
VCPU = "VcpuLimitExceeded"


def done_of(site: AwsSite, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """The exit code of an apply at a prompt, and what it said when it was over."""
    result = apply(site, papers(pools=[POOL]), confirm=lambda plan, state: plan)
    settled = Settled(first=result, last=result, reached=True)
    code = report(settled, interrupted=False, strict=False, detached=False)
    said = capsys.readouterr()
    return code, "".join(line for line in (said.out + said.err).splitlines(True) if not line.startswith("warning: "))


def test_an_offer_that_was_passed_over_for_another_is_no_failure(
    site: AwsSite, capsys: pytest.CaptureFixture[str]
) -> None:
    site.account.room("m5.large", 0)
    code, said = done_of(site, capsys)
    assert kinds(site)[0][0] == "m5a.large"
    assert (code, said) == (
        0,
        "Done: 1 instance created.\n"
        "passed over: InsufficientInstanceCapacity: We currently do not have sufficient m5.large capacity.\n",
    )


NO_MORE = "We currently do not have sufficient {} capacity."
FEW = "You have requested more vCPU capacity than your current vCPU limit of 32 allows for the instance bucket that "
FEW += "the specified instance type belongs to"
MORE = ": ask for more in Service Quotas, or allow other instance types or regions"
UNMET = "unmet: pool default-pool: 1 of 1 node missing: 6 offers → 5 with cpu x86 → 3 with on-demand → 0 with a place "
UNMET += "to ask now ({}), the cheapest left out: m5.large $0.11"
DEAR = "unmet: pool default-pool: what was confirmed is not to be had; next would be g5.xlarge in aws/eu-west-1 "
DEAR += "at $1.12, above 1.5 × the confirmed price ($0.16): apply again to be asked"
TOLD: dict[str, tuple[Callable[[Account], object], int, list[str]]] = {
    "capacity": (
        lambda aws: [aws.room(kind, 0) for kind in CODES],
        1,
        [f"failed: InsufficientInstanceCapacity: {NO_MORE.format(kind)}" for kind in CODES[:2]] + [DEAR],
    ),
    "quota": (
        lambda aws: [aws.quota("L-1216C47A", 16), *(aws.room(kind, 0, code=VCPU) for kind in CODES)],
        1,
        [f"failed: {VCPU}: {FEW}: quota Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances (L-1216C47A) "
         f"is 16 vCPUs here{MORE}", DEAR],
    ),
    "a quota that may not be read": (
        lambda aws: [aws.room(kind, 0, code=VCPU) for kind in CODES],
        1,
        [f"failed: {VCPU}: {FEW}: quota Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances (L-1216C47A); "
         f"its value could not be read{MORE}", DEAR],
    ),
    "permission": (
        lambda aws: aws.fault("RunInstances", "UnauthorizedOperation", status=403, message="Not you.", times=9),
        1,
        ["failed: UnauthorizedOperation: Not you. (RunInstances)",
         UNMET.format("UnauthorizedOperation: Not you. (RunInstances)")],
    ),
    "throttled": (
        lambda aws: aws.fault("DescribeSubnets", times=9),
        1,
        [UNMET.format("RequestLimitExceeded: slow down")],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TOLD)
def test_what_was_not_to_be_had_is_told_apart(site: AwsSite, capsys: pytest.CaptureFixture[str], name: str) -> None:
    refuse, code, told = TOLD[name]
    refuse(site.account)
    found, said = done_of(site, capsys)
    assert site.account.living() == []
    assert said.splitlines() == ["Nothing was done.", *told]
    assert found == code
