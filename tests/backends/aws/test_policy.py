"""The IAM policies: every call of ours is allowed, looking can change nothing, and nothing of another project's is."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from backends.aws.iam_policy import actions, policy
from backends.aws.tags import PROJECT
from backends.scope import Kind, PolicyScope
from reconciler.state.access_modes import modes_of
from schemas.access import Way
from schemas.desired import BackendConfig, Desired
from schemas.host import Host
from schemas.location import Bucket
from schemas.pool import Pool
from schemas.resources import Where

ROOT = Path(__file__).parents[3]
AWS = BackendConfig(name="aws", type="aws", regions=("eu-west-1",))
SCOPE = PolicyScope(project="demo12345678")
FULL = PolicyScope(
    project="demo12345678", buckets=(Bucket(scheme="s3", bucket="team", prefix="runs"),), parameters=("/team/token",)
)
OPTIONS: dict[str, Any] = {"iam_instance_profile": "trainer", "kms_key": "1234", "connect": {"mode": "ssm"}}
WRITES = ("Create", "Delete", "Run", "Terminate", "Authorize", "Revoke", "Update", "Put", "Release", "Cancel", "Start",
          "PassRole", "Abort", "Modify", "Attach", "Detach", "Open", "Send")  # fmt: skip
KINDS: tuple[Kind, ...] = ("plan", "apply")
NEEDLESS = {"sts:AssumeRole"}  # allowed by the role's own trust policy
SERVICES = {"ec2": "ec2", "ssm": "ssm", "sts": "sts", "service-quotas": "servicequotas",
            "resourcegroupstaggingapi": "tag"}  # fmt: skip


def called() -> set[str]:
    """Every operation of AWS's that our backend names, as its action: by botocore's own list of what there is."""
    from botocore import xform_name
    from botocore.session import get_session

    session = get_session()
    known = {
        xform_name(operation): f"{prefix}:{operation}"
        for service, prefix in SERVICES.items()
        for operation in session.get_service_model(service).operation_names
    }
    names = {name for path in sorted((ROOT / "backends/aws").glob("*.py")) for name in words(path)}
    return {known[name] for name in names if name in known and "_" in name}


def words(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        if isinstance(node, ast.Attribute):
            yield node.attr


def test_every_call_of_the_backend_is_allowed() -> None:
    found = called()
    assert {"ec2:RunInstances", "ec2:DescribeInstances", "ec2:CreateSecurityGroup", "ssm:GetParameters"} <= found
    assert found - NEEDLESS - actions(policy("apply", AWS, SCOPE)) == set()


def test_no_look_is_allowed_that_no_call_makes() -> None:
    looks = {one for one in actions(policy("plan", AWS, SCOPE)) if one.startswith(("ec2:", "sts:", "servicequotas:"))}
    assert looks - called() == set()


@pytest.mark.parametrize(
    ("region", "partition"),
    [
        ("eu-west-1", "aws"),
        ("cn-north-1", "aws-cn"),
        ("us-gov-west-1", "aws-us-gov"),
        ("us-iso-east-1", "aws-iso"),
        ("us-isob-east-1", "aws-iso-b"),
        ("eusc-de-east-1", "aws-eusc"),
    ],
)
def test_resources_are_named_as_where_the_regions_are(region: str, partition: str) -> None:
    config = BackendConfig(name="aws", type="aws", regions=(region,), options=OPTIONS)
    for kind in KINDS:
        named = [arn for one in policy(kind, config, FULL)["Statement"] for arn in listed(one["Resource"])]
        assert {arn.split(":")[1] for arn in named if arn != "*"} == {partition}


def test_machines_get_the_role_that_is_named() -> None:
    config = BackendConfig(name="aws", type="aws", options={"iam_instance_profile": "trainer-profile"})

    def role(scope: PolicyScope) -> Any:
        found = policy("apply", config, scope)["Statement"]
        return next(one["Resource"] for one in found if one["Sid"] == "GiveInstancesTheirRole")

    assert role(SCOPE) == "arn:aws:iam::*:role/trainer-profile"
    assert role(replace(SCOPE, instance_role="trainer")) == "arn:aws:iam::*:role/trainer"


def test_plan_can_change_nothing_and_has_each_look() -> None:
    allowed = actions(policy("plan", AWS, FULL))
    assert [one for one in allowed if one.partition(":")[2].startswith(WRITES)] == []
    looks = {one for one in called() if one.partition(":")[2].startswith(("Describe", "Get", "List"))}
    assert looks - allowed == set()
    assert allowed <= actions(policy("apply", AWS, FULL))


@pytest.mark.parametrize("kind", ["plan", "apply"])
def test_it_is_a_policy_that_iam_takes(kind: Kind) -> None:
    document = policy(kind, BackendConfig(name="aws", type="aws", options=OPTIONS), FULL)
    assert len(json.dumps(document, separators=(",", ":"))) <= 6144, "a managed policy of IAM's"
    names = [one["Sid"] for one in document["Statement"]]
    assert len(set(names)) == len(names)
    assert all(one.isalnum() for one in names)
    for one in document["Statement"]:
        assert set(one) <= {"Sid", "Effect", "Action", "Resource", "Condition"}
        assert all(":" in action and "*" not in action for action in one["Action"])
        assert one["Resource"] == "*" or all(arn.startswith("arn:aws:") for arn in listed(one["Resource"]))


def listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def test_what_ends_or_changes_a_thing_does_so_only_to_this_projects() -> None:
    for one in policy("apply", AWS, SCOPE)["Statement"]:
        ending = [action for action in one["Action"] if action.partition(":")[2].startswith(("Terminate", "Delete"))]
        if ending and any(action.startswith("ec2:") for action in ending):
            assert one["Condition"] == {"StringEquals": {f"aws:ResourceTag/{PROJECT}": "demo12345678"}}
    made = next(one for one in policy("apply", AWS, SCOPE)["Statement"] if one["Sid"] == "Launch")
    assert made["Condition"] == {"StringEquals": {f"aws:RequestTag/{PROJECT}": "demo12345678"}}


def test_only_what_the_documents_ask_for() -> None:
    bare = actions(policy("apply", AWS, SCOPE))
    assert not {"iam:PassRole", "kms:CreateGrant", "ssm:StartSession", "s3:PutObject"} & bare
    full = actions(policy("apply", BackendConfig(name="aws", type="aws", options=OPTIONS), FULL))
    assert {"iam:PassRole", "kms:CreateGrant", "ssm:StartSession", "s3:PutObject"} <= full


SSM, CONNECT = (Way(mode="program", name=name) for name in ("ssm", "instance-connect"))
TUNNELS = {"ssm": "ssm:StartSession", "instance-connect": "ec2-instance-connect:OpenTunnel"}
POOLS = {  # backend's way, pools -> ways
    "no-pool": ("ssm", (), {"ssm"}),
    "as-the-backend": ("ssm", (Pool(name="a"),), {"ssm"}),
    "one-of-its-own": ("direct", (Pool(name="a", connect=SSM), Pool(name="b")), {"direct", "ssm"}),
    "all-of-their-own": ("ssm", (Pool(name="a", connect=CONNECT),), {"instance-connect"}),
    "each-another": (
        "direct", (Pool(name="a", connect=SSM), Pool(name="b", connect=CONNECT)),
        {"ssm", "instance-connect"},
    ),
    "elsewhere": ("direct", (Pool(name="a", connect=SSM, where=Where(backends=("gcp",))),), {"direct"}),
    "servers": ("ssm", (Pool(name="a", connect=Way(), hosts=(Host(name="h", hostname="h"),)),), {"ssm"}),
}  # fmt: skip


@pytest.mark.parametrize("case", POOLS)
def test_what_the_pools_of_the_backend_need_adds_up(case: str) -> None:
    own, pools, expected = POOLS[case]
    config = BackendConfig(name="aws", type="aws", options={"connect": {"mode": own}})
    modes = modes_of(Desired(project="demo12345678", backends=(config,), pools=pools), config)
    assert set(modes) == expected
    allowed = actions(policy("apply", config, replace(SCOPE, modes=modes)))
    assert {mode for mode, action in TUNNELS.items() if action in allowed} == expected - {"direct"}
    assert not set(TUNNELS.values()) & actions(policy("plan", config, replace(SCOPE, modes=modes)))
