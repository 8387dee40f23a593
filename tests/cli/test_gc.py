"""`dstack gc`: what carries the project's tag and has no owner goes, in every region; nothing else is touched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from msgspec.structs import replace

from reconciler.engine.garbage import LATER, ask_everywhere, remove_all, unanswered
from reconciler.engine.ports import Connections
from reconciler.report.json import leftovers_json
from reconciler.state.unowned import unowned
from schemas.launch import Made
from schemas.leftover import ORDER, Leftover
from schemas.pool import Pool
from tests.backends.aws.test_backend import ON_DEMAND, account, request, use  # noqa: F401 - a fixture
from tests.doubles.aws.aws_double import REGION, Account, AwsServer
from tests.doubles.aws.aws_world import Around, AwsPlaces, AwsSite, papers
from tests.doubles.commands.command import ROOT, folder_at
from tests.worlds.world import PROJECT, apply, cron

POOL = Pool(name="default-pool", default=True, nodes_min=1)
OTHER = "us-east-1"


@pytest.fixture
def site(account: Account, tmp_path: Path) -> AwsSite:  # noqa: F811
    site = AwsSite(scratch=tmp_path, account=account, regions=(REGION, OTHER))
    apply(site, papers(pools=[POOL]))
    site.clock.at += 20
    cron(site)
    return site


def litter(account: Account, project: str, region: str) -> dict[str, str]:  # noqa: F811
    """One of each kind that nobody owns: kind -> id."""
    ec2 = account.client(region=region)
    tags = [{"Key": "dstack-project", "Value": project}, {"Key": "dstack-pool", "Value": "gone"}]

    def tagged(kind: str) -> list[dict[str, Any]]:
        return [{"ResourceType": kind, "Tags": tags}]

    subnet = ec2.describe_subnets()["Subnets"][0]
    name = f"left-{project}"
    group = ec2.create_security_group(
        GroupName=name, Description="x", VpcId=subnet["VpcId"], TagSpecifications=tagged("security-group")
    )["GroupId"]
    card = ec2.create_network_interface(SubnetId=subnet["SubnetId"], TagSpecifications=tagged("network-interface"))[
        "NetworkInterface"
    ]
    ec2.create_placement_group(GroupName=name, Strategy="cluster", TagSpecifications=tagged("placement-group"))
    backend = AwsPlaces(account=account, around=Around(project=project, lineage="")).place(region)
    asked = request(ON_DEMAND, "lost", project=project, pool="gone", lineage="", place=backend.place)
    offer = replace(ON_DEMAND, region=region)
    (machine,) = backend.launch(backend.prepare(replace(asked, token=f"{project}-{region}"), offer)).values()
    assert isinstance(machine, Made)
    return {
        "instance": machine.external_id,
        "address": ec2.allocate_address(Domain="vpc", TagSpecifications=tagged("elastic-ip"))["AllocationId"],
        "volume": ec2.create_volume(
            AvailabilityZone=subnet["AvailabilityZone"], Size=100, VolumeType="gp3", TagSpecifications=tagged("volume")
        )["VolumeId"],
        "interface": card["NetworkInterfaceId"],
        "security-group": group,
        "placement-group": name,
        "key-pair": ec2.create_key_pair(KeyName=name, TagSpecifications=tagged("key-pair"))["KeyPairId"],
    }  # fmt: skip


def found(site: AwsSite) -> tuple[Connections, tuple[Leftover, ...], dict[str, str]]:
    connections = Connections(site.ports(), site.state.lineage)
    asked = ask_everywhere(site.ports(), site.state, connections)
    return connections, unowned(site.state, asked.found), asked.silent


def kinds(chosen: tuple[Leftover, ...], place: str) -> dict[str, str]:
    return {one.kind: one.id for one in chosen if one.place == place and not one.name.startswith("dstack-")}


def test_what_nobody_owns_is_found_in_every_region_and_removed(site: AwsSite) -> None:
    ours = {region: litter(site.account, PROJECT, region) for region in (REGION, OTHER)}
    theirs = {region: litter(site.account, "otherproject", region) for region in (REGION, OTHER)}
    (owned,) = (one.external_id for one in site.state.instances)
    connections, chosen, silent = found(site)
    assert silent == {}
    assert {region: kinds(chosen, f"aws/{region}") for region in ours} == ours
    assert [one.kind for one in chosen] == sorted((one.kind for one in chosen), key=ORDER.index)
    costs = {one.kind: round(float((one.hourly or 0) * 730), 2) for one in chosen}
    assert (costs["volume"], costs["address"], costs["instance"]) == (8.0, 3.65, 78.11)
    told: dict[str, str] = {}
    waiting = remove_all(connections, site.state, chosen, told=lambda one, why: told.update({one.id: why}))
    again = found(site)[1]
    assert {one.id for one in again} == waiting == {id for id, why in told.items() if why}
    assert {why for why in told.values() if why} <= {LATER}
    for region in theirs:
        living = {one["id"] for one in site.account.living(region)}
        assert theirs[region]["instance"] in living
        assert (owned in living) == (region == REGION)
        others = AwsPlaces(account=site.account, around=Around(project="otherproject")).place(region).leftovers()
        assert {kind: one.id for kind, id in theirs[region].items() for one in others if one.id == id} | {
            "instance": theirs[region]["instance"]
        } == theirs[region]


def test_what_waits_for_a_machines_end_is_no_failure_and_goes_next_time(site: AwsSite) -> None:
    kinds_of = litter(site.account, PROJECT, OTHER)
    site.account.client(region=OTHER).terminate_instances(InstanceIds=[kinds_of["instance"]])
    connections, chosen, _ = found(site)
    (group,) = (one for one in chosen if one.id == kinds_of["security-group"])
    told: dict[str, str] = {}

    def removed(*, leaving: tuple[str, ...]) -> frozenset[str]:
        site.account.fault("DeleteSecurityGroup", "DependencyViolation", status=400, message="has a dependent object")
        return remove_all(
            connections, site.state, [group], leaving=leaving, told=lambda one, why: told.update({one.id: why})
        )

    assert removed(leaving=(f"aws/{OTHER}",)) == {group.id}
    assert told[group.id] == LATER
    assert removed(leaving=()) == frozenset()
    assert told[group.id] == "DependencyViolation: has a dependent object"
    assert remove_all(connections, site.state, [group], told=lambda one, why: told.update({one.id: why})) == frozenset()
    assert told[group.id] == ""


def test_what_is_used_asked_for_or_anothers_is_no_leftover(site: AwsSite) -> None:
    """The groups and the disk of a living instance; what another lineage of the project's state made."""
    assert found(site)[1] == ()
    backend = AwsPlaces(account=site.account, around=Around(project=PROJECT, lineage="otherlin")).place()
    backend.launch(backend.prepare(request(project=PROJECT, lineage="otherlin", pool="theirs"), ON_DEMAND))
    assert found(site)[1] == ()


def test_an_open_launch_owns_what_it_makes(site: AwsSite) -> None:
    """Its answer was lost: nothing of it is taken for a leftover before a tick has seen it."""
    site.account.set(lag=3)
    site.account.fault("RunInstances", after=True, cut=True)
    apply(site, papers(pools=[replace(POOL, nodes_min=2)]))
    assert site.state.intents
    site.account.set(lag=0)
    assert found(site)[1] == ()


def test_another_account_has_nothing_of_ours(
    site: AwsSite, aws_server: AwsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = aws_server.account()
    use(other, monkeypatch)
    theirs = litter(other, PROJECT, REGION)
    _, chosen, silent = found(site)
    assert chosen == ()
    assert all("another account answers" in why for why in silent.values())
    assert theirs["instance"] in {one["id"] for one in other.living()}


def test_an_orphan_past_its_grace_is_ended_by_an_apply_too(site: AwsSite) -> None:
    """One that no launch made; what one made that this state has never heard of is left to a person."""
    lost = litter(site.account, PROJECT, REGION)["instance"]
    site.account.client().delete_tags(Resources=[lost], Tags=[{"Key": "dstack-launch"}])
    for _ in range(4):
        site.clock.at += 400
        apply(site, papers(pools=[POOL]))
    assert lost not in {one["id"] for one in site.account.living()}
    assert len([one for one in site.account.living() if one["tags"]["dstack-project"] == PROJECT]) == 1


def test_its_json_is_as_the_schema_says(site: AwsSite) -> None:
    litter(site.account, PROJECT, OTHER)
    _, chosen, _ = found(site)
    silent, refused = {"aws/x": "no answer"}, {"aws/y": {"volume": "no"}}
    value = leftovers_json(chosen, removed={chosen[0].id: "", chosen[1].id: "used"}, silent=silent, refused=refused)
    jsonschema.validate(
        json.loads(json.dumps(value)), json.loads((ROOT / "schemas/json/gc-json.schema.json").read_text())
    )
    assert [(one["removed"], one["why_not"]) for one in value["found"][:3]] == [
        (True, None), (False, "used"), (False, None)]  # fmt: skip


def denied(account: Account, region: str, *actions: str) -> None:  # noqa: F811
    for action in actions:
        said = f"You are not authorized to perform: ec2:{action}"
        account.fault(action, "UnauthorizedOperation", times=9, status=403, message=said, region=region)


def test_one_kind_that_may_not_be_listed_hides_no_other(site: AwsSite) -> None:
    ours = {region: litter(site.account, PROJECT, region) for region in (REGION, OTHER)}
    for region in ours:
        denied(site.account, region, "DescribeAddresses", "DescribeVolumes")
    connections = Connections(site.ports(), site.state.lineage)
    asked = ask_everywhere(site.ports(), site.state, connections)
    assert asked.silent == {}
    assert set(asked.refused) == {f"aws/{region}" for region in ours}
    assert all(set(kinds) == {"address", "volume"} for kinds in asked.refused.values())
    assert not asked.whole
    chosen = unowned(site.state, asked.found)
    for region, things in ours.items():
        left = {kind: id for kind, id in things.items() if kind not in ("address", "volume")}
        assert kinds(chosen, f"aws/{region}") == left
    lines = list(unanswered(asked.silent, asked.refused))
    assert len(lines) == 2, "equal answers are one line"
    assert lines[0].startswith("addresses in aws/eu-west-1, aws/us-east-1 could not be listed, and may be there: ")
    assert lines[1].startswith("volumes in aws/eu-west-1, aws/us-east-1 could not be listed, and may be there: ")


def test_machines_are_seen_where_nothing_else_may_be_listed(site: AwsSite) -> None:
    lost = litter(site.account, PROJECT, REGION)["instance"]
    looks = ("SpotInstanceRequests", "Addresses", "Volumes", "NetworkInterfaces", "SecurityGroups", "PlacementGroups")
    denied(site.account, REGION, *(f"Describe{kind}" for kind in (*looks, "KeyPairs")))
    _, chosen, _ = found(site)
    assert [one.id for one in chosen if one.place == f"aws/{REGION}"] == [lost]


def test_a_tick_forgets_nothing_of_a_kind_that_it_may_not_list(site: AwsSite) -> None:
    volume = site.account.client().create_volume(
        AvailabilityZone=f"{REGION}a",
        Size=10,
        TagSpecifications=[{"ResourceType": "volume", "Tags": [
            {"Key": "dstack-project", "Value": PROJECT}, {"Key": "dstack-lineage", "Value": site.state.lineage},
        ]}],
    )["VolumeId"]  # fmt: skip
    site.clock.at += 3601
    cron(site)
    assert [one.id for one in site.state.unowned] == [volume]
    denied(site.account, REGION, "DescribeVolumes")
    site.clock.at += 3601
    result = cron(site)
    assert [one.id for one in site.state.unowned] == [volume]
    assert any("unowned volumes were not checked" in one for one in result.warnings)


DOCUMENTS = """\
project: {name: demo, id: demo12345678}
state: local
backends: [{type: aws, regions: [eu-west-1]}]
pools: [{name: cloud, default: true, nodes: 0..1}]
"""


def test_the_command_lists_asks_and_removes(account: Account, tmp_path: Path) -> None:  # noqa: F811
    """In a region that the documents do not name."""
    folder = folder_at(tmp_path)
    for file in (folder.root / ".dstack").glob("*.yml"):
        file.unlink()
    (folder.root / ".dstack/main.yml").write_text(DOCUMENTS)
    applied = folder.dstack("apply", "-y", env=account.environ)
    assert applied.code == 0, applied.said
    tags = [{"Key": "dstack-project", "Value": "demo12345678"}, {"Key": "Name", "Value": "scratch"}]
    specification = [{"ResourceType": "volume", "Tags": tags}]
    ec2 = account.client(region="us-east-2")
    volume = ec2.create_volume(AvailabilityZone="us-east-2a", Size=100, TagSpecifications=specification)["VolumeId"]
    deaf = folder.dstack("gc", env={**account.environ, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"})
    assert (deaf.code, deaf.out) == (1, ""), "where no place could say, nothing is said of what there is"
    assert "aws cannot say what it has" in deaf.err
    asked = folder.dstack("gc", env=account.environ)
    assert asked.code == 1
    assert volume in asked.out
    assert "$8.00" in asked.out or "$10.00" in asked.out
    assert "`dstack gc --yes` removes it" in asked.err
    assert len(ec2.describe_volumes()["Volumes"]) == 1
    done = folder.dstack("gc", "--yes", "--json", env=account.environ)
    assert [(one["id"], one["place"], one["name"], one["removed"]) for one in json.loads(done.out)["found"]] == [
        (volume, "aws/us-east-2", "scratch", True)]  # fmt: skip
    assert (done.code, ec2.describe_volumes()["Volumes"]) == (0, [])
