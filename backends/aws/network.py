"""Look up network, subnet and zone of a launch. Makes nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

from backends.errors import BackendError, NoCapacity

AGAIN = 45  # seconds; how long each zone is avoided is remembered by zone
Look = Callable[..., Any]
"""Asks EC2 once for a tick: `look("describe_vpcs", Filters=[...])`."""


class Network(NamedTuple):
    """`subnet` is "" where EC2 may choose the zone itself, by where it has room: in the default network."""

    vpc: str
    subnet: str
    zone: str


def network_for(
    look: Look,
    options: Mapping[str, Any],
    region: str,
    *,
    zone: str,
    seed: str,
    choose: bool,
    avoid: Collection[str] = (),
    offered: Callable[[], Sequence[str]],
) -> Network:
    """The subnet of `zone`, or of the one that `seed` names or else chooses among those that offer the type (`offered`,
    none: all) and are not to be avoided.

    `choose`: a subnet is needed even where EC2 could choose. Raises `BackendError` with what to write where there is
    none, `NoCapacity` where all that there are had none a moment ago.
    """
    allowed = tuple(options.get("zones") or ())
    if zone and allowed and zone not in allowed:
        raise BackendError(f"zone {zone} is not among the backend's `zones` ({', '.join(allowed)})")
    vpc = _vpc(look, options, region)
    subnets = _subnets(look, options, vpc)
    vpc_id = subnets[0]["VpcId"] if subnets else vpc
    public = options.get("public_ips") is not False
    free = not (zone or allowed or choose or options.get("subnets")) and public
    if free and subnets and all(one.get("DefaultForAz") and one.get("MapPublicIpOnLaunch") for one in subnets):
        return Network(vpc_id, "", "")
    zones = (zone,) if zone else allowed or tuple(offered())
    fitting = [one for one in subnets if not zones or one["AvailabilityZone"] in zones]
    fitting = [one for one in fitting if bool(one.get("MapPublicIpOnLaunch")) == public] or fitting
    if not fitting:
        where = f" in {' or '.join(zones)}" if zones else ""
        raise BackendError(f"{region}: {vpc_id or 'the network'} has no subnet{where}: set `subnets` of the backend")
    near = () if zone else {seed} & {one["AvailabilityZone"] for one in subnets}
    best = _chosen(_with_room(fitting, near=near, avoid=avoid, region=region), seed)
    return Network(vpc_id, best["SubnetId"], best["AvailabilityZone"])


def _with_room(
    subnets: Sequence[Mapping[str, Any]], *, near: Collection[str], avoid: Collection[str], region: str
) -> Sequence[Mapping[str, Any]]:
    there = [one for one in subnets if not near or one["AvailabilityZone"] in near]
    left = [one for one in there if one["AvailabilityZone"] not in avoid]
    if not left:
        none = " and ".join(sorted(near or {one["AvailabilityZone"] for one in there}))
        raise NoCapacity(f"{region}: no capacity in {none}, where it would have to be", retry_after=AGAIN)
    return left


def _chosen(subnets: Sequence[Mapping[str, Any]], seed: str) -> Mapping[str, Any]:
    """Each launch another zone, the same launch the same one; in it the subnet with the most free addresses."""
    zones = sorted({one["AvailabilityZone"] for one in subnets})
    zone = min(zones, key=lambda zone: hashlib.sha256(f"{seed} {zone}".encode()).digest())
    there = [one for one in subnets if one["AvailabilityZone"] == zone]
    return max(there, key=lambda one: (one.get("AvailableIpAddressCount", 0), one["SubnetId"]))


def _vpc(look: Look, options: Mapping[str, Any], region: str) -> str:
    """ "" where the subnets are named: they say it."""
    if options.get("subnets"):
        return ""
    named = (options.get("vpc_ids") or {}).get(region)
    if named:
        return str(named)
    name = options.get("vpc_name")
    if name:
        found = look("describe_vpcs", Filters=[{"Name": "tag:Name", "Values": [name]}])["Vpcs"]
        if len(found) != 1:
            raise BackendError(f"{region}: {len(found) or 'no'} networks are called {name} (`vpc_name`)")
        return str(found[0]["VpcId"])
    if options.get("default_vpcs") is False:
        raise BackendError(f"{region}: no network: `vpc_ids` has none for {region}, and `default_vpcs` is off")
    found = look("describe_vpcs", Filters=[{"Name": "isDefault", "Values": ["true"]}])["Vpcs"]
    if not found:
        raise BackendError(
            f"{region} has no default network: `aws ec2 create-default-vpc --region {region}`, or set `vpc_ids` or "
            "`vpc_name` of the backend"
        )
    return str(found[0]["VpcId"])


def _subnets(look: Look, options: Mapping[str, Any], vpc: str) -> list[Any]:
    named = list(options.get("subnets") or ())
    chosen = {"Name": "subnet-id", "Values": named} if named else {"Name": "vpc-id", "Values": [vpc]}
    filters = [chosen, {"Name": "state", "Values": ["available"]}]
    found = look("describe_subnets", Filters=filters)["Subnets"]
    return sorted(found, key=lambda one: one["SubnetId"])
