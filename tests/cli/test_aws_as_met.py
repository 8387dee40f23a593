"""AWS as its user meets it: what cannot work for good says why and ends with 1, and what bills is in the sum."""

from __future__ import annotations

import pytest

from tests.cli.test_cloud_by_hand import Person, person  # noqa: F401 - a fixture
from tests.cli.test_seeds import DOCUMENTS, attended  # noqa: F401 - a fixture
from tests.doubles.aws.aws_double import KEY
from tests.doubles.aws.cloud_hosts import why_not

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")


@pytest.fixture
def user(attended: Person) -> Person:  # noqa: F811
    """A project that is applied, with a pool and nothing in it."""
    attended.types("init -y")
    (attended.folder / "project/.dstack/runs/hello.yml").unlink()
    given = f"--key-id {KEY}{attended.account.number} --secret-stdin --region eu-west-1"
    attended.types(f"aws configure {given}", given="secretSECRET0123456789secretSECRET012345\n")
    attended.writes("pools.yml", DOCUMENTS)
    attended.types("apply -y -d")
    return attended


def test_a_machine_whose_end_is_refused_goes_on_costing(user: Person) -> None:
    user.types("pool add --instance-type m5.large --name one -y")
    user.account.fault("TerminateInstances", "UnauthorizedOperation", status=403, times=99, message="not allowed")
    assert "not allowed" in user.types("pool remove one -y", code=1)
    assert "No changes. $0.11/h now." in user.types("plan")
    assert "not allowed" in user.types("apply -y -d", code=1)


def without_network(user: Person, region: str) -> None:
    ec2 = user.account.client(region=region)
    for subnet in ec2.describe_subnets()["Subnets"]:
        ec2.delete_subnet(SubnetId=subnet["SubnetId"])
    for vpc in ec2.describe_vpcs()["Vpcs"]:
        for gate in ec2.describe_internet_gateways()["InternetGateways"]:
            ec2.detach_internet_gateway(InternetGatewayId=gate["InternetGatewayId"], VpcId=vpc["VpcId"])
        ec2.delete_vpc(VpcId=vpc["VpcId"])


def test_a_region_without_a_network_is_said_where_something_is_asked_of_it(user: Person) -> None:
    without_network(user, "eu-west-1")
    told = "eu-west-1 has no default network: `aws ec2 create-default-vpc --region eu-west-1`"
    said = user.types("pool add --instance-type m5.large -y", code=1)
    assert f"error: 1 of 1 not added: {told}" in said
    assert user.account.living("") == []
    user.writes("pools.yml", DOCUMENTS + "    nodes: 1\n")
    planned = " ".join(user.types("apply -y -d").split())
    assert "1 of 1 node missing: " in planned
    assert told in planned, "known by now, and asked for no more"


def test_a_machine_that_ended_itself_costs_until_its_timer_was_due(user: Person) -> None:
    """No tick came for five hours; EC2 does not tell when a machine powered itself off."""
    user.types("pool add --instance-type m5.large --name one -y --idle-duration 20m")
    (said,) = user.hand.passes("5h")
    assert said.endswith(": powered itself off")
    user.types("apply -y -d")
    total = next(line for line in user.types("cost").splitlines() if line.startswith("total")).split()
    assert total[2] in ("34m", "35m"), "twenty minutes idle, and the quarter of an hour that the timer waits"
    assert total[-1] == "$0.06"
