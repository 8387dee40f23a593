"""Check an AWS account by calls that change nothing, before anything is launched there.

A permission is asked for by the call itself as a dry run: EC2 then answers whether it would have been allowed. One
that the policy ties to our tag can only be asked of a thing that has it; while there is none, it is not known.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

from backends.aws.clients import client
from backends.aws.errors import REFUSED, SKEW, ahead_of, ask, code_of, failures, understood, words_of
from backends.aws.images import image_for
from backends.aws.network import network_for
from backends.aws.quotas import QUOTAS
from backends.aws.tags import PROJECT, as_list, of_project
from backends.checks import BackendCheck, NotKnown
from backends.errors import BackendError, CallFailed, TryLater
from schemas.desired import BackendConfig
from schemas.location import Bucket
from schemas.offer import Offer
from schemas.resources import Resources

ALLOWED = "DryRunOperation"
POLICY = "`dstack backend policy --apply` prints what it takes"
LOOKS: dict[str, tuple[str, dict[str, Any]]] = {
    "ec2:DescribeCapacityReservations": ("describe_capacity_reservations", {}),
    "ec2:DescribeImages": ("describe_images", {"Owners": ["self"]}),
    "ec2:DescribeInstanceTypeOfferings": ("describe_instance_type_offerings", {"MaxResults": 5}),
    "ec2:DescribeInstanceTypes": ("describe_instance_types", {"InstanceTypes": ["t3.micro"]}),
    "ec2:DescribeInstanceStatus": ("describe_instance_status", {"MaxResults": 5}),
    "ec2:DescribeInstances": ("describe_instances", {"MaxResults": 5}),
    "ec2:DescribeRegions": ("describe_regions", {}),
    "ec2:DescribeSecurityGroups": ("describe_security_groups", {"MaxResults": 5}),
    "ec2:DescribeSpotInstanceRequests": ("describe_spot_instance_requests", {"MaxResults": 5}),
    "ec2:DescribeSpotPriceHistory": ("describe_spot_price_history", {"MaxResults": 5}),
    "ec2:DescribeSubnets": ("describe_subnets", {"MaxResults": 5}),
    "ec2:DescribeVpcs": ("describe_vpcs", {"MaxResults": 5}),
}
"""Action -> its call, and what keeps the answer short."""
FAMILIES = ("Standard", "G and VT", "P")
UNUSED = "dstack-check"


def probes(
    config: BackendConfig, *, project: str, buckets: tuple[Bucket, ...], now: Callable[[], float]
) -> Iterator[BackendCheck]:
    """Those of the account, then those of each region that the documents name (else of the environment's)."""
    home = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    regions = config.regions or (home,)
    caller = cache(lambda: ask(client(config, "sts", regions[0]), "get_caller_identity"))
    yield BackendCheck(
        name="credentials", look=lambda: _who(caller()), then="`dstack aws configure`, or `aws sso login`"
    )
    yield BackendCheck(name="clock", look=lambda: _clock(caller(), now()), then="set this machine's clock (NTP)")
    for bucket in buckets:
        yield BackendCheck(name=bucket.url, look=partial(_bucket, config, bucket, regions[0]), then=_rights)
    for region in regions:
        yield from _region(config, region, project=project)


def _region(config: BackendConfig, region: str, *, project: str) -> Iterator[BackendCheck]:
    ec2 = cache(lambda: client(config, "ec2", region))
    for action, (operation, few) in LOOKS.items():
        yield BackendCheck(name=f"{region} {action}", look=partial(_dry, ec2, operation, **few), then=_rights)
    yield BackendCheck(
        name=f"{region} network",
        look=lambda: _network(ec2(), config, region),
        then=f"`aws ec2 create-default-vpc --region {region}`, or `vpc_ids`, `vpc_name` or `subnets` of the backend",
    )
    image = cache(lambda: _image(ec2(), client(config, "ssm", region), config))
    or_named = partial(_rights, other="`os_images` of the backend")
    yield BackendCheck(name=f"{region} ssm:GetParameters", look=image, then=or_named)
    for action, look in _writes(ec2, image, config, region, project=project):
        yield BackendCheck(name=f"{region} {action}", look=look, then=_rights)
    quotas = partial(_quotas, config, region)
    yield BackendCheck(name=f"{region} quotas", look=quotas, then="ask for more in Service Quotas (it may take a day)")


def _rights(error: CallFailed, *, other: str = "") -> str:
    """The policy, for what was refused; an outage, a throttle or a proxy's page is no lack of rights."""
    if str(error).partition(":")[0] in (*REFUSED, "403"):
        return f"{POLICY}; or {other}" if other else POLICY
    return "try again in a while" if isinstance(error, TryLater) else other


# ---------------------------------------------------------------- of the account


def _who(answer: Any) -> str:
    return f"account {answer['Account']} as {answer['Arn']}"


def _clock(answer: Any, now: float) -> str:
    skew = ahead_of(answer, now=now)
    if skew is None:
        raise NotKnown("AWS did not say what time it is")
    if abs(skew) > SKEW:
        raise BackendError(f"this machine is {abs(skew)} s {'ahead of' if skew > 0 else 'behind'} AWS's own clock")
    return f"within {max(1, abs(skew))} s of AWS's"


def _bucket(config: BackendConfig, bucket: Bucket, region: str) -> str:
    answer = ask(client(config, "s3", region), "head_bucket", Bucket=bucket.bucket)
    there = answer.get("BucketRegion") or answer["ResponseMetadata"]["HTTPHeaders"].get("x-amz-bucket-region", "")
    return f"can be read{f', in {there}' if there else ''}"


# ---------------------------------------------------------------- of a region


def _dry(ec2: Callable[[], Any], operation: str, **parameters: Any) -> str:
    """As EC2 answers a dry run: allowed, refused, or something else that comes only after it was allowed."""
    call = getattr(ec2(), operation)
    try:
        call(DryRun=True, **parameters)
    except failures() as error:
        code = code_of(error)
        if code in REFUSED:
            raise BackendError(words_of(error)) from None
        if code == ALLOWED or code.endswith(".NotFound"):
            return "allowed"
        raise understood(error, operation=operation) from None
    return "allowed"


def _network(ec2: Any, config: BackendConfig, region: str) -> str:
    look = partial(ask, ec2)
    found = network_for(look, config.options, region, zone="", seed=region, choose=True, offered=lambda: ())
    return f"{found.vpc}, such as {found.subnet} in {found.zone}"


def _image(ec2: Any, ssm: Any, config: BackendConfig) -> str:
    offer = Offer(backend=config.name, region="", instance_type="", resources=Resources(cpus=1, memory=1), price=None)
    named = config.options.get("os_images") or {}
    return image_for(partial(ask, ec2), partial(ask, ssm), offer, os_images=named).id


def _writes(
    ec2: Callable[[], Any], image: Callable[[], str], config: BackendConfig, region: str, *, project: str
) -> Iterator[tuple[str, Callable[[], str]]]:
    """What makes something is asked with our tag; what ends something, of something that has it."""
    tags = as_list({"Name": UNUSED, PROJECT: project})

    def tagged(*kinds: str) -> list[dict[str, Any]]:
        return [{"ResourceType": kind, "Tags": tags} for kind in kinds]

    def launch() -> str:
        subnet = network_for(
            partial(ask, ec2()), config.options, region, zone="", seed=region, choose=True, offered=lambda: ()
        ).subnet
        return _dry(
            ec2,
            "run_instances",
            ImageId=image(),
            InstanceType="t3.micro",
            MinCount=1,
            MaxCount=1,
            SubnetId=subnet,
            TagSpecifications=tagged("instance", "volume", "network-interface"),
        )

    def group() -> str:
        vpc = network_for(
            partial(ask, ec2()), config.options, region, zone="", seed=region, choose=True, offered=lambda: ()
        ).vpc
        return _dry(
            ec2,
            "create_security_group",
            GroupName=UNUSED,
            Description=UNUSED,
            VpcId=vpc,
            TagSpecifications=tagged("security-group"),
        )

    yield "ec2:RunInstances", launch
    yield "ec2:CreateSecurityGroup", group
    yield "ec2:TerminateInstances", lambda: _dry(ec2, "terminate_instances", InstanceIds=[_instance(ec2(), project)])
    for action, operation in (
        ("ec2:AuthorizeSecurityGroupIngress", "authorize_security_group_ingress"),
        ("ec2:RevokeSecurityGroupIngress", "revoke_security_group_ingress"),
    ):
        yield action, partial(_ingress, ec2, operation, project)


def _instance(ec2: Any, project: str) -> str:
    """One of ours that lives."""
    states = {"Name": "instance-state-name", "Values": ["pending", "running"]}
    for held in ask(ec2, "describe_instances", Filters=[*of_project(project), states])["Reservations"]:
        return str(held["Instances"][0]["InstanceId"])
    raise NotKnown("there is no instance of this project yet to ask it of")


def _ingress(ec2: Callable[[], Any], operation: str, project: str) -> str:
    groups = ask(ec2(), "describe_security_groups", Filters=of_project(project))["SecurityGroups"]
    if not groups:
        raise NotKnown("there is no security group of this project yet to ask it of")
    nobody = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "192.0.2.1/32"}]}
    return _dry(ec2, operation, GroupId=groups[0]["GroupId"], IpPermissions=[nobody])


def _quotas(config: BackendConfig, region: str) -> str:
    """The vCPUs that an account may have at once, of the families that people ask for."""
    service = client(config, "service-quotas", region)
    codes = {
        family: (on_demand, spot)
        for _, name, on_demand, spot in QUOTAS
        for family in FAMILIES
        if name == family or name.startswith(f"{family} (")
    }
    said = [f"{family} {_quota(service, one)} (spot {_quota(service, spot)})" for family, (one, spot) in codes.items()]
    return f"vCPUs at once: {', '.join(said)}"


def _quota(service: Any, code: str) -> str:
    """`64`; `?` where the account has no value of its own and AWS's default is not to be read."""
    for operation in ("get_service_quota", "get_aws_default_service_quota"):
        try:
            answer = getattr(service, operation)(ServiceCode="ec2", QuotaCode=code)
            return f"{answer['Quota']['Value']:g}"
        except failures() as error:
            if code_of(error) != "NoSuchResourceException":
                raise understood(error) from None
    return "?"
