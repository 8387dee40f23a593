"""The AWS backend against a strict double of EC2: the contract, what it asks for, and what each refusal means."""

from __future__ import annotations

import base64
from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from backends.aws import instance_status
from backends.aws.regions import regions
from backends.base import Backend
from backends.errors import BackendError, NoCapacity, QuotaExceeded, TryLater
from schemas.access import Way
from schemas.backend_types import TYPES
from schemas.desired import BackendConfig
from schemas.launch import Ending, Made, Request
from schemas.offer import Offer
from schemas.resources import Gpu
from tests.contracts.backend_contract import FAR, BackendContract, BackendRig, living
from tests.doubles.aws.aws_double import REGION, Account, AwsServer
from tests.doubles.aws.aws_world import Around, AwsPlaces, sold

ON_DEMAND, SPOT, _, ARM, GPU, GPU_SPOT = sold()


@pytest.fixture
def account(aws_server: AwsServer, monkeypatch: pytest.MonkeyPatch) -> Account:
    """An account of its own, and the environment of whoever has its keys."""
    one = aws_server.account()
    use(one, monkeypatch)
    return one


def use(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in account.environ.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def places(account: Account) -> AwsPlaces:
    return AwsPlaces(account=account)


class Rig:
    kind = TYPES["aws"]
    project, lineage, room = "testproject", "lineage1", 3

    def __init__(self, account: Account) -> None:
        self.places = AwsPlaces(account=account)
        account.room("m5.large", self.room)

    def connect(self, *, lineage: str = "") -> Backend:
        return self.places.place(lineage=lineage)

    def settle(self) -> None:
        """Nothing is under way: the double's listings lag only where a test says so."""


class TestAwsBackend(BackendContract):
    kind = TYPES["aws"]

    @pytest.fixture
    def rig(self, account: Account) -> BackendRig:
        return Rig(account)


def request(offer: Offer = ON_DEMAND, name: str = "l1", *, count: int = 1, **changes: Any) -> Request:
    asked = Request(
        place=offer.place,
        launch=name,
        token=f"testproject-{name}",
        ids=tuple(f"{name}-{n}" for n in range(count)),
        names=tuple(f"pool-{n}" for n in range(count)),
        pool="pool",
        instance_type=offer.instance_type,
        zone=offer.zone,
        spot=offer.spot,
        price=offer.price,
        lineage="lineage1",
        generation=1,
        project="testproject",
        not_after=FAR,
    )
    return replace(asked, **changes)


def launched(
    places: AwsPlaces, offer: Offer = ON_DEMAND, *, options: dict[str, Any] | None = None, **changes: Any
) -> Any:
    """What EC2 was asked for, as its own parameters, and the backend that asked."""
    backend = places.place(**(options or {}))
    backend.launch(backend.prepare(request(offer, **changes), offer))
    return places.account.requests()[-1], backend


def tagged(asked: dict[str, str], kind: str) -> dict[str, str]:
    from tests.doubles.aws.aws_double import tags_of

    return tags_of(asked, kind)


# ---------------------------------------------------------------- what is asked for


def test_an_instance_ends_with_its_power_and_everything_goes_with_it(places: AwsPlaces) -> None:
    asked, _ = launched(places, disk=200 * 1024)
    assert asked["InstanceInitiatedShutdownBehavior"] == "terminate"
    assert asked["MetadataOptions.HttpTokens"] == "required"
    assert asked["MetadataOptions.HttpPutResponseHopLimit"] == "1"
    assert {name.rpartition(".")[2]: value for name, value in asked.items() if ".Ebs." in name} == {
        "VolumeSize": "200", "VolumeType": "gp3", "Encrypted": "true", "DeleteOnTermination": "true",
    }  # fmt: skip
    assert asked["MinCount"] == asked["MaxCount"] == "1"
    assert asked["ClientToken"] == "testproject-l1"
    for kind in ("instance", "volume", "network-interface"):
        tags = tagged(asked, kind)
        assert tags["dstack-project"] == "testproject"
        assert (tags["dstack-launch"], tags["dstack-pool"], tags["dstack-generation"]) == ("l1", "pool", "1")


def test_user_data_is_rendered_again_and_stored_nowhere(places: AwsPlaces) -> None:
    backend = places.place()
    prepared = backend.prepare(request(), ON_DEMAND)
    backend.launch(prepared)
    sent = base64.b64decode(places.account.requests()[-1]["UserData"]).decode()
    assert "BEGIN OPENSSH PRIVATE KEY" in sent
    assert "PRIVATE KEY" not in repr(prepared)


def test_what_renders_otherwise_is_not_sent_again(places: AwsPlaces) -> None:
    prepared = places.place().prepare(request(), ON_DEMAND)
    other = AwsPlaces(account=places.account, around=Around(boot=lambda launch: places.around.boot("other")))
    with pytest.raises(TryLater, match="renders otherwise"):
        other.place().launch(prepared)
    assert places.account.requests() == []


def test_spot_is_once_and_bound_by_max_price(places: AwsPlaces) -> None:
    asked, _ = launched(places, SPOT, max_price=Decimal("0.05"))
    assert {name: value for name, value in asked.items() if name.startswith("InstanceMarketOptions")} == {
        "InstanceMarketOptions.MarketType": "spot",
        "InstanceMarketOptions.SpotOptions.SpotInstanceType": "one-time",
        "InstanceMarketOptions.SpotOptions.InstanceInterruptionBehavior": "terminate",
        "InstanceMarketOptions.SpotOptions.MaxPrice": "0.05",
    }
    assert tagged(asked, "spot-instances-request")["dstack-project"] == "testproject"
    places.account.set(spot={"m5.large": "0.06"})
    with pytest.raises(NoCapacity, match="SpotMaxPriceTooLow") as caught:
        launched(places, SPOT, name="l2", max_price=Decimal("0.05"))
    assert caught.value.retry_after == 45


def test_a_gpu_gets_a_gpu_image_and_arm_one_of_its_own(places: AwsPlaces) -> None:
    images = {image["ImageId"]: image for image in places.account.client().describe_images(Owners=["self"])["Images"]}
    assert images == {}
    found = {}
    for number, offer in enumerate((ON_DEMAND, GPU, ARM)):
        asked, _ = launched(places, offer, name=f"l{number}")
        found[offer.instance_type] = asked["ImageId"]
    assert len(set(found.values())) == 3
    arm = places.account.client().describe_images(ImageIds=[found["m6g.large"]])["Images"][0]
    assert arm["Architecture"] == "arm64"
    with pytest.raises(BackendError, match=r"is for x86_64, m6g\.large is arm64"):
        launched(places, ARM, options={"os_images": {"cpu-arm": found["m5.large"]}})


P3 = replace(GPU, instance_type="p3.2xlarge", resources=replace(GPU.resources, gpu=Gpu(name="V100", memory=16 * 1024)))
G4AD = replace(
    GPU, instance_type="g4ad.xlarge", resources=replace(GPU.resources, gpu=Gpu(name="V520", vendor="amd", memory=8192))
)


@pytest.mark.parametrize("options", [{}, {"os_images": {"cpu": "ami-0123", "T4": "ami-0123"}}], ids=["none", "others"])
@pytest.mark.parametrize(("offer", "why"), [(P3, "V100, which is too old for"), (G4AD, "V520, which is not NVIDIA's")])
def test_a_gpu_that_the_default_image_cannot_drive_is_not_bought(
    places: AwsPlaces, offer: Offer, why: str, options: dict[str, Any]
) -> None:
    with pytest.raises(NoCapacity, match=rf"{offer.instance_type}: .*{why}.*`os_images: ") as caught:
        places.place(**options).prepare(request(offer), offer)
    assert caught.value.retry_after == 3600


@pytest.mark.parametrize("key", ["V100", "v100", "gpu", "nvidia"])
def test_an_image_of_ones_own_is_for_any_gpu_and_one_by_its_name_counts_first(places: AwsPlaces, key: str) -> None:
    prepared = places.place().prepare(request(GPU), GPU)
    image = dict(prepared.inputs)["image"]
    other = "ami-00000000000000000"
    images = {"gpu": other, "nvidia": other, **({"gpu": image} if key == "nvidia" else {}), key: image}
    chosen = places.place(os_images=images).prepare(request(P3, "l2"), P3)
    assert dict(chosen.inputs)["image"] == image


def test_a_gang_is_close_together_all_or_none(places: AwsPlaces) -> None:
    asked, _ = launched(places, GPU, count=2, together=True)
    assert asked["MinCount"] == asked["MaxCount"] == "2"
    group = asked["Placement.GroupName"]
    assert group.startswith("dstack-testproject-pool-eu-west-1")
    assert asked["NetworkInterface.1.SubnetId"]
    launched(places, GPU, name="l2", count=2, together=True)
    groups = places.account.client().describe_placement_groups()["PlacementGroups"]
    assert {one["Strategy"] for one in groups} == {"cluster"}


def test_the_network_is_as_the_documents_say(places: AwsPlaces) -> None:
    ec2 = places.account.client()
    vpc = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.9.1.0/24", AvailabilityZone="eu-west-1b")["Subnet"]["SubnetId"]
    ec2.create_tags(Resources=[vpc], Tags=[{"Key": "Name", "Value": "lab"}])
    for number, options in enumerate(({"vpc_ids": {REGION: vpc}}, {"vpc_name": "lab"}, {"subnets": [subnet]})):
        asked, backend = launched(places, options={**options, "public_ips": False}, name=f"l{number}")
        assert asked["NetworkInterface.1.SubnetId"] == subnet
        assert asked["NetworkInterface.1.AssociatePublicIpAddress"] == "false"
        (seen,) = [seen for seen in backend.instances() if seen.launch == f"l{number}"]
        assert (seen.zone, seen.network) == ("eu-west-1b", vpc)
        assert seen.address == seen.internal_ip != ""
    with pytest.raises(BackendError, match="no networks are called nowhere"):
        launched(places, options={"vpc_name": "nowhere"})
    with pytest.raises(BackendError, match="`default_vpcs` is off"):
        launched(places, options={"default_vpcs": False})
    with pytest.raises(BackendError, match="not among the backend's `zones`"):
        launched(places, zone="eu-west-1a", options={"zones": ["eu-west-1b"]})


def test_the_rest_of_the_options(places: AwsPlaces) -> None:
    iam = places.account.client("iam")
    iam.create_instance_profile(InstanceProfileName="worker")
    options = {"iam_instance_profile": "worker", "kms_key": "alias/lab", "tags": {"team": "nlp", "dstack-project": "x"}}
    asked, _ = launched(places, options=options, tags=(("pool", "big"),), zone="eu-west-1c")
    assert asked["IamInstanceProfile.Name"] == "worker"
    assert asked["BlockDeviceMapping.1.Ebs.KmsKeyId"] == "alias/lab"
    tags = tagged(asked, "instance")
    assert (tags["team"], tags["pool"], tags["dstack-project"]) == ("nlp", "big", "testproject")
    assert places.account.living()[-1]["zone"] == "eu-west-1c"


# ---------------------------------------------------------------- who is let in


def rules(account: Account, name: str = "dstack-testproject") -> list[tuple[Any, str]]:
    groups = account.client().describe_security_groups(Filters=[{"Name": "group-name", "Values": [name]}])
    return [
        (permission.get("FromPort"), one.get("CidrIp") or one.get("CidrIpv6") or one.get("GroupId"))
        for group in groups["SecurityGroups"]
        for permission in group["IpPermissions"]
        for one in (*permission["IpRanges"], *permission.get("Ipv6Ranges", ()), *permission["UserIdGroupPairs"])
    ]


def test_only_who_ticks_is_let_in_and_only_for_a_while(places: AwsPlaces, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1_800_000_000]
    places.around.now = lambda: now[0]
    monkeypatch.setenv("DSTACK_ADDRESS", "203.0.113.7")
    launched(places, name="l1")
    assert rules(places.account) == [(22, "203.0.113.7/32")]
    people = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22,
              "IpRanges": [{"CidrIp": "198.51.100.0/24", "Description": "by hand"}]}  # fmt: skip
    group = places.account.client().describe_security_groups(
        Filters=[{"Name": "group-name", "Values": ["dstack-testproject"]}])["SecurityGroups"][0]  # fmt: skip
    places.account.client().authorize_security_group_ingress(GroupId=group["GroupId"], IpPermissions=[people])
    monkeypatch.setenv("DSTACK_ADDRESS", "203.0.113.8")
    now[0] += 3600
    launched(places, name="l2")
    assert rules(places.account) == [(22, "203.0.113.7/32"), (22, "198.51.100.0/24"), (22, "203.0.113.8/32")]
    now[0] += 23 * 3600 + 1
    launched(places, name="l3")
    assert rules(places.account) == [(22, "198.51.100.0/24"), (22, "203.0.113.8/32")]
    now[0] += 23 * 3600  # renewed at half its time, it lives on
    launched(places, name="l4")
    assert (22, "203.0.113.8/32") in rules(places.account)


def test_an_unknown_address_lets_nobody_in_and_that_is_said(places: AwsPlaces) -> None:
    _, backend = launched(places)
    assert rules(places.account) == []
    (note,) = backend.notes()
    assert "nobody is let in to port 22" in note
    assert backend.notes() == []


def test_a_launch_to_be_reached_directly_lets_in_and_any_other_does_not(
    places: AwsPlaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DSTACK_ADDRESS", "198.51.100.7")
    launched(places, name="l1", way=Way(mode="program", name="ssm"), options={"connect": {"mode": "direct"}})
    assert rules(places.account) == []
    launched(places, name="l2", way=Way(), options={"connect": {"mode": "ssm"}})
    assert rules(places.account) == [(22, "198.51.100.7/32")]


def test_ingress_as_declared(places: AwsPlaces, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSTACK_ADDRESS", "203.0.113.7")
    open_to = {(22, "10.0.0.0/8"), (22, "2001:db8::/32")}
    launched(places, options={"ingress": ["10.0.0.0/8", "2001:db8::/32"]})
    assert set(rules(places.account)) == open_to
    launched(places, name="l2", options={"ingress": "none"})
    assert set(rules(places.account)) == open_to
    both: dict[str, Any] = {"ingress": ["own", "192.0.2.0/24"]}
    launched(places, name="l3", way=Way(mode="program", name="ssm"), options=both)
    assert set(rules(places.account)) == (open_to := open_to | {(22, "192.0.2.0/24")})
    launched(places, name="l4", options=both)
    assert set(rules(places.account)) == open_to | {(22, "203.0.113.7/32")}


def test_instances_of_a_pool_talk_among_themselves_alone(places: AwsPlaces) -> None:
    launched(places)
    launched(places, name="l2", pool="other")
    here, there = rules(places.account, "dstack-testproject-pool"), rules(places.account, "dstack-testproject-other")
    assert [port for port, _ in here] == [None]
    assert here[0][1] != there[0][1]
    assert places.account.living()[0]["groups"] == ["dstack-testproject", "dstack-testproject-pool"]


def test_no_group_is_made_twice(places: AwsPlaces) -> None:
    launched(places)
    launched(places, name="l2")
    assert places.account.calls()[REGION, "CreateSecurityGroup"] == 2


# ---------------------------------------------------------------- what is seen


def test_an_interruption_is_what_ec2_calls_so(places: AwsPlaces) -> None:
    _, backend = launched(places, SPOT, count=3)
    first, second, third = (seen.external_id for seen in living(backend))
    places.account.interrupt(first)
    places.account.interrupt(second, status="instance-terminated-by-price", reason=False)
    backend.terminate([third])
    seen = {one.external_id: one for one in backend.instances()}
    assert {id: (one.phase, one.interrupted) for id, one in seen.items()} == {
        first: ("ended", True), second: ("ended", True), third: ("ended", False),
    }  # fmt: skip
    assert "Spot interruption" in seen[first].reason
    assert "instance-terminated-by-price" in seen[second].reason
    assert seen[third].ended_at is not None


def test_a_machine_that_powers_itself_off_is_ended_and_not_interrupted(places: AwsPlaces) -> None:
    _, backend = launched(places, SPOT)
    (one,) = living(backend)
    places.account.power_off(one.external_id)
    (seen,) = backend.instances()
    assert (seen.phase, seen.interrupted, seen.by_itself) == ("ended", False, True)
    assert "Instance initiated shutdown" in seen.reason


def test_a_listing_that_lags_is_no_end(places: AwsPlaces) -> None:
    places.account.set(lag=2, ending=2)
    _, backend = launched(places)
    assert list(backend.instances()) == []
    (one,) = places.account.living()
    assert list(backend.instances([one["id"]])) == []
    assert [seen.phase for seen in backend.instances()] == ["running"]
    backend.terminate([one["id"]])
    assert [[seen.phase for seen in backend.instances()] for _ in range(3)] == [["ending"], ["ending"], ["ended"]]


def test_what_a_seen_instance_tells(places: AwsPlaces) -> None:
    _, backend = launched(places, GPU_SPOT, zone="eu-west-1b")
    (seen,) = backend.instances()
    assert (seen.id, seen.launch, seen.pool, seen.generation) == ("l1-0", "l1", "pool", 1)
    assert (seen.region, seen.zone, seen.instance_type, seen.spot) == (REGION, "eu-west-1b", "g5.xlarge", True)
    assert seen.price == Decimal("0.430")
    assert seen.address
    assert seen.address != seen.internal_ip
    assert seen.network.startswith("vpc-")
    assert seen.created_at is not None


def test_another_projects_instances_are_never_seen(places: AwsPlaces) -> None:
    other = AwsPlaces(account=places.account, around=Around(project="otherproject"))
    backend = other.place()
    backend.launch(backend.prepare(request(project="otherproject", token="o"), ON_DEMAND))
    (theirs,) = living(backend)
    assert list(places.place().instances()) == []
    assert list(places.place().instances([theirs.external_id])) == []


# ---------------------------------------------------------------- refusals


def test_a_token_whose_instance_has_ended_gives_the_dead_one(places: AwsPlaces) -> None:
    backend = places.place()
    prepared = backend.prepare(request(), ON_DEMAND)
    first = backend.launch(prepared)["l1-0"]
    assert isinstance(first, Made)
    assert backend.terminate([first.external_id]) == {first.external_id: Ending()}
    backend.instances()
    assert backend.launch(prepared) == {"l1-0": first}
    assert places.account.living() == []


def test_a_lost_answer_is_no_second_machine(places: AwsPlaces) -> None:
    backend = places.place()
    prepared = backend.prepare(request(count=2), ON_DEMAND)
    places.account.fault("RunInstances", after=True, cut=True)
    with pytest.raises(TryLater):
        backend.launch(prepared)
    assert list(backend.launch(prepared)) == ["l1-0", "l1-1"]
    assert len(places.account.living()) == 2


def test_other_parameters_are_a_launch_that_may_have_come_true(places: AwsPlaces) -> None:
    backend = places.place()
    backend.launch(backend.prepare(request(), ON_DEMAND))
    with pytest.raises(TryLater, match="IdempotentParameterMismatch"):
        backend.launch(backend.prepare(request(generation=2), ON_DEMAND))


@pytest.mark.parametrize(
    ("code", "meaning", "words"),
    [
        ("InsufficientInstanceCapacity", NoCapacity, "sufficient m5.large capacity"),
        ("SpotMaxPriceTooLow", NoCapacity, "SpotMaxPriceTooLow"),
        ("Unsupported", NoCapacity, "Unsupported"),
        ("VcpuLimitExceeded", QuotaExceeded, r"Running On-Demand Standard .* \(L-1216C47A\) is 32 vCPUs here"),
        ("InvalidParameterValue", BackendError, "InvalidParameterValue"),
    ],
)
def test_what_cannot_be_had(places: AwsPlaces, code: str, meaning: type[BackendError], words: str) -> None:
    places.account.room("m5.large", 0, code=code)
    places.account.quota("L-1216C47A", 32)
    with pytest.raises(meaning, match=words) as caught:
        launched(places)
    assert type(caught.value) is meaning
    assert code in str(caught.value)
    assert places.account.living() == []


@pytest.mark.parametrize("code", ["RequestLimitExceeded", "Unavailable", "InternalError", ""])  # "": a proxy's page
def test_throttling_is_never_a_lack_of_capacity(places: AwsPlaces, code: str) -> None:
    places.account.fault("RunInstances", code)
    places.account.fault("DescribeInstances", code)
    with pytest.raises(TryLater, match=code or "what answered is not AWS") as caught:
        launched(places)
    assert not isinstance(caught.value, NoCapacity)
    with pytest.raises(TryLater):
        places.place().instances()


def test_a_refusal_is_believed_only_where_nothing_came_of_the_token(places: AwsPlaces) -> None:
    backend = places.place()
    prepared = backend.prepare(request(), ON_DEMAND)
    backend.launch(prepared)
    places.account.fault("RunInstances", "UnauthorizedOperation", status=403, message="not allowed")
    with pytest.raises(TryLater, match="made by an earlier request: 1"):
        backend.launch(prepared)


def test_what_is_not_allowed_is_said_in_awss_own_words(places: AwsPlaces) -> None:
    places.account.fault(
        "RunInstances", "UnauthorizedOperation", status=403, message="You are not authorized to perform"
    )
    with pytest.raises(BackendError, match="UnauthorizedOperation: You are not authorized to perform") as caught:
        launched(places)
    assert type(caught.value) is BackendError


def test_other_credentials_send_nothing(
    places: AwsPlaces, aws_server: AwsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = places.place().prepare(request(), ON_DEMAND)
    other = aws_server.account()
    use(other, monkeypatch)
    backend = places.place()
    assert backend.identity() != dict(prepared.inputs)["account"]
    with pytest.raises(TryLater, match="was prepared for account"):
        backend.launch(prepared)
    assert other.living() == places.account.living() == []


def test_an_id_that_is_not_known_keeps_no_other_from_its_end(places: AwsPlaces) -> None:
    _, backend = launched(places, count=2)
    ids = [seen.external_id for seen in living(backend)]
    asked = [ids[0], "i-0123456789abcdef0", "nonsense", ids[1]]
    assert backend.terminate(asked) == dict.fromkeys(asked, Ending())
    assert places.account.living() == []


def test_no_credentials_are_named(monkeypatch: pytest.MonkeyPatch, places: AwsPlaces) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(BackendError, match="no AWS credentials here: set AWS_PROFILE"):
        places.place().instances()


# ---------------------------------------------------------------- economy


def test_one_identity_call_for_all_regions_and_one_page_each(places: AwsPlaces) -> None:
    for region in (REGION, "us-east-1"):
        backend = places.place(region)
        backend.instances()
        backend.identity()
    calls = places.account.calls()
    assert sum(number for (_, action), number in calls.items() if action == "GetCallerIdentity") == 1
    assert calls[REGION, "DescribeInstances"] == calls["us-east-1", "DescribeInstances"] == 1


def test_regions_are_those_of_the_account(account: Account) -> None:
    assert REGION in regions(BackendConfig(name="aws", type="aws"))
    assert regions(BackendConfig(name="aws", type="aws", regions=("eu-west-1",))) == ("eu-west-1",)


# ---------------------------------------------------------------- status checks


def test_a_failed_status_check_makes_a_machine_unfit(places: AwsPlaces) -> None:
    launched(places, count=2)
    first, second = (one.external_id for one in places.place().instances())
    account = places.account
    account.impair(first)
    account.impair(second, kind="system")
    assert {one.external_id: one.unfit for one in places.place().instances()} == {
        first: "EC2 status check failed (instance, since 2026-11-30 03:10Z)",
        second: "EC2 status check failed (system, since 2026-11-30 03:10Z)",
    }
    account.impair(first, kind="")
    assert [one.unfit for one in places.place().instances() if one.external_id == first] == [""]


def test_status_checks_are_one_call_where_something_runs_and_none_elsewhere(places: AwsPlaces) -> None:
    places.account.clear()
    places.place().instances()
    assert (REGION, "DescribeInstanceStatus") not in places.account.calls()
    launched(places, count=2)
    places.account.clear()
    places.place().instances()
    assert places.account.calls()[REGION, "DescribeInstanceStatus"] == 1


@pytest.mark.parametrize("code", ["UnauthorizedOperation", "RequestLimitExceeded", "InvalidInstanceID.NotFound"])
def test_a_listing_without_its_status_checks_is_a_good_one(
    places: AwsPlaces, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instance_status, "_denied", set())
    launched(places)
    places.account.fault("DescribeInstanceStatus", code, status=403, times=1)
    places.account.clear()
    for _ in range(3):
        (one,) = places.place().instances()
        assert (one.phase, one.unfit) == ("running", "")
    asked = places.account.calls()[REGION, "DescribeInstanceStatus"]
    assert asked == (1 if code == "UnauthorizedOperation" else 3)  # what is not allowed is not asked again
