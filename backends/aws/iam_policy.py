"""Least-privilege IAM policies: one for plan, one for apply. Pure.

Whatever ends or changes a thing is allowed only where the thing has this project's tag, and whatever makes one only
where it gets that tag: another project's things are out of reach. Kinds of resources and condition keys as in the
Service Authorization Reference of Amazon EC2.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from backends.aws.tags import PROJECT
from backends.scope import Kind, PolicyScope
from schemas.access import way_of
from schemas.desired import BackendConfig
from schemas.location import Bucket

Statement = dict[str, Any]

LOOKS = (
    "ec2:DescribeAddresses",
    "ec2:DescribeCapacityReservations",
    "ec2:DescribeImages",
    "ec2:DescribeInstanceTypeOfferings",
    "ec2:DescribeInstanceTypes",
    "ec2:DescribeInstanceStatus",
    "ec2:DescribeInstances",
    "ec2:DescribeKeyPairs",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribePlacementGroups",
    "ec2:DescribeRegions",
    "ec2:DescribeSecurityGroups",
    "ec2:DescribeSpotInstanceRequests",
    "ec2:DescribeSpotPriceHistory",
    "ec2:DescribeSubnets",
    "ec2:DescribeVolumes",
    "ec2:DescribeVpcs",
    "servicequotas:GetAWSDefaultServiceQuota",
    "servicequotas:GetServiceQuota",
    "sts:GetCallerIdentity",
)
PARTITIONS = {
    "cn-": "aws-cn", "us-gov-": "aws-us-gov", "us-iso-": "aws-iso", "us-isob-": "aws-iso-b", "us-isof-": "aws-iso-f",
    "eu-isoe-": "aws-iso-e", "eusc-": "aws-eusc",
}  # fmt: skip
"""How names of regions start, and what ARNs there start with instead of `arn:aws:`."""
IMAGES = "arn:aws:ssm:*::parameter/aws/service/*"
TAGGED_BY = ("RunInstances", "CreateSecurityGroup", "CreatePlacementGroup", "AuthorizeSecurityGroupIngress")
MADE = ("instance", "volume", "network-interface", "spot-instances-request")
USED = ("image", "subnet", "security-group", "placement-group", "capacity-reservation", "key-pair", "snapshot")
ENDED = {
    "ec2:TerminateInstances": ("instance",),
    "ec2:CancelSpotInstanceRequests": ("spot-instances-request",),
    "ec2:DeleteVolume": ("volume",),
    "ec2:DeleteNetworkInterface": ("network-interface",),
    "ec2:DeletePlacementGroup": ("placement-group",),
    "ec2:DeleteKeyPair": ("key-pair",),
    "ec2:ReleaseAddress": ("elastic-ip",),
    "ec2:DeleteSecurityGroup": ("security-group",),
    "ec2:AuthorizeSecurityGroupIngress": ("security-group", "security-group-rule"),
    "ec2:AuthorizeSecurityGroupEgress": ("security-group", "security-group-rule"),
    "ec2:RevokeSecurityGroupIngress": ("security-group", "security-group-rule"),
    "ec2:UpdateSecurityGroupRuleDescriptionsIngress": ("security-group", "security-group-rule"),
}


def policy(kind: Kind, config: BackendConfig, scope: PolicyScope) -> dict[str, Any]:
    """A document of IAM's, to be attached to whoever runs `dstack plan` or `dstack apply`."""
    statements = [_looks(), _images(), *_reads(scope)]
    if kind == "apply":
        statements += [*_makes(scope), _ends(scope), *_rules(scope), *_writes(scope), *_optional(config, scope)]
    return {"Version": "2012-10-17", "Statement": [_in(partition_of(config.regions), one) for one in statements]}


def partition_of(regions: Iterable[str]) -> str:
    """Which of AWS's separate worlds they are in; an account is in one. Without regions: the public one."""
    first = next(iter(regions), "")
    return next((name for start, name in PARTITIONS.items() if first.startswith(start)), "aws")


def _in(partition: str, statement: Statement) -> Statement:
    """With its resources named as that partition does."""
    named = statement["Resource"]
    if isinstance(named, str):
        return {**statement, "Resource": _named(partition, named)}
    return {**statement, "Resource": [_named(partition, one) for one in named]}


def _named(partition: str, arn: str) -> str:
    return f"arn:{partition}:{arn.removeprefix('arn:aws:')}" if arn.startswith("arn:aws:") else arn


def actions(document: dict[str, Any]) -> frozenset[str]:
    """Every action that the document allows."""
    return frozenset(action for statement in document["Statement"] for action in statement["Action"])


# ---------------------------------------------------------------- what is looked at


def _looks() -> Statement:
    """These know no resource: EC2 lists all or nothing."""
    return _allow("Look", LOOKS, "*")


def _images() -> Statement:
    return _allow("PublicImages", ("ssm:GetParameter", "ssm:GetParameters"), IMAGES)


def _reads(scope: PolicyScope) -> Iterable[Statement]:
    if scope.buckets:
        yield _allow("ListBuckets", ("s3:ListBucket", "s3:ListBucketVersions"), [_bucket(one) for one in scope.buckets])
        objects = [_objects(one) for one in scope.buckets]
        yield _allow("ReadObjects", ("s3:GetObject", "s3:GetObjectVersion"), objects)


# ---------------------------------------------------------------- what is made, changed and ended


def _makes(scope: PolicyScope) -> Iterable[Statement]:
    tagged = {"StringEquals": {f"aws:RequestTag/{PROJECT}": scope.project}}
    yield _allow("Launch", ("ec2:RunInstances",), _arns(MADE), tagged)
    yield _allow("LaunchOf", ("ec2:RunInstances",), _arns(USED))
    yield _allow("Make", ("ec2:CreateSecurityGroup", "ec2:CreatePlacementGroup"),
                 _arns(("security-group", "placement-group")), tagged)  # fmt: skip
    yield _allow("MakeIn", ("ec2:CreateSecurityGroup",), _arns(("vpc",)))
    made = {"StringEquals": {"ec2:CreateAction": list(TAGGED_BY), **tagged["StringEquals"]}}
    kinds = (*MADE, "security-group", "security-group-rule", "placement-group")
    yield _allow("TagWhatIsMade", ("ec2:CreateTags",), _arns(kinds), made)
    spot = {"StringEquals": {"iam:AWSServiceName": "spot.amazonaws.com"}}
    role = "arn:aws:iam::*:role/aws-service-role/spot.amazonaws.com/AWSServiceRoleForEC2Spot"
    yield _allow("FirstSpotInstance", ("iam:CreateServiceLinkedRole",), role, spot)


def _ends(scope: PolicyScope) -> Statement:
    kinds = dict.fromkeys(kind for action, kinds in ENDED.items() if action not in _RULES for kind in kinds)
    return _allow("End", tuple(action for action in ENDED if action not in _RULES), _arns(kinds), _ours(scope))


_RULES = tuple(action for action, kinds in ENDED.items() if "security-group-rule" in kinds)


def _rules(scope: PolicyScope) -> Iterable[Statement]:
    """A rule may have no tag of its own: its group's counts."""
    yield _allow("WhoMayComeIn", _RULES, _arns(("security-group",)), _ours(scope))
    yield _allow("WhoMayComeInByRule", _RULES, _arns(("security-group-rule",)))


def _writes(scope: PolicyScope) -> Iterable[Statement]:
    if scope.buckets:
        yield _allow("WriteObjects", ("s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"),
                     [_objects(one) for one in scope.buckets])  # fmt: skip
    if scope.parameters:
        names = [f"arn:aws:ssm:*:*:parameter/{name.removeprefix('/')}" for name in scope.parameters]
        yield _allow("Secrets", ("ssm:GetParameter",), names)


def _optional(config: BackendConfig, scope: PolicyScope) -> Iterable[Statement]:
    """Only what the backend's own options ask for."""
    profile, key = config.options.get("iam_instance_profile"), config.options.get("kms_key")
    if profile:
        china = ["ec2.amazonaws.com.cn"] if partition_of(config.regions) == "aws-cn" else []
        passed = {"StringEquals": {"iam:PassedToService": ["ec2.amazonaws.com", *china]}}
        name = scope.instance_role or str(profile).rsplit("/", 1)[-1]
        yield _allow("GiveInstancesTheirRole", ("iam:PassRole",), f"arn:aws:iam::*:role/{name}", passed)
    if key:
        arn = str(key) if str(key).startswith("arn:") else f"arn:aws:kms:*:*:key/{key}"
        yield _allow("EncryptDisks", ("kms:CreateGrant", "kms:Decrypt", "kms:DescribeKey",
                     "kms:GenerateDataKeyWithoutPlaintext", "kms:ReEncryptFrom", "kms:ReEncryptTo"), arn)  # fmt: skip
    modes = scope.modes or (way_of(config.options).label,)
    if "instance-connect" in modes:
        endpoints = _arns(("instance-connect-endpoint",))
        yield _allow("ReachByInstanceConnect", ("ec2-instance-connect:OpenTunnel",), endpoints)
        yield _allow("FindInstanceConnect", ("ec2:DescribeInstanceConnectEndpoints",), "*")
    if "ssm" in modes:
        yield _allow("ReachBySsm", ("ssm:StartSession",), _arns(("instance",)), _ours(scope, key="ssm:resourceTag"))
        document = "arn:aws:ssm:*::document/AWS-StartSSHSession"
        yield _allow("ReachBySsmDocument", ("ssm:StartSession",), document)


def _ours(scope: PolicyScope, *, key: str = "aws:ResourceTag") -> dict[str, Any]:
    return {"StringEquals": {f"{key}/{PROJECT}": scope.project}}


def _allow(
    name: str, allowed: Iterable[str], resource: str | list[str], condition: dict[str, Any] | None = None
) -> Statement:
    statement: Statement = {"Sid": name, "Effect": "Allow", "Action": list(allowed), "Resource": resource}
    return {**statement, "Condition": condition} if condition else statement


def _arns(kinds: Iterable[str]) -> list[str]:
    """An image and a snapshot belong to whoever published them."""
    return [f"arn:aws:ec2:*:{'' if kind in ('image', 'snapshot') else '*'}:{kind}/*" for kind in kinds]


def _bucket(where: Bucket) -> str:
    return f"arn:aws:s3:::{where.bucket}"


def _objects(where: Bucket) -> str:
    return f"arn:aws:s3:::{where.bucket}/{where.prefix + '/' if where.prefix else ''}*"
