"""Security groups of a project: created when needed, adopted by name, with rules that expire.

Two of them: one lets those in who tick, from their addresses, each rule with an expiry in its description; one of each
pool lets its instances talk among themselves. Only rules of ours that have expired are ever removed.
"""

from __future__ import annotations

import ipaddress
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from backends.aws.errors import ask, code_of, failures, understood
from backends.aws.tags import POOL, PROJECT, as_list, as_mapping, door_group
from backends.errors import BackendError, TryLater

LASTS = 24 * 3600  # seconds that a rule for an address lives; renewed when half of them are over
SSH = 22
_UNTIL = re.compile(r"dstack until (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)")


class Groups(NamedTuple):
    """Ids."""

    door: str
    peers: str


class IngressGroup(NamedTuple):
    """Who is let in: this address for a while (`own`, "" is unknown or not wanted), and these ranges for good."""

    own: str
    declared: tuple[str, ...] = ()


def said(ingress: str | Sequence[str]) -> tuple[bool, tuple[str, ...]]:
    """Whether who ticks is let in, and which ranges are, by the backend's `ingress`."""
    each = (ingress,) if isinstance(ingress, str) else tuple(ingress)
    return "own" in each, tuple(one for one in each if one not in ("own", "none"))


def ensure_groups(
    ec2: Any, *, vpc: str, project: str, pool: str, door_name: str, peers_name: str, door: IngressGroup | None, now: int
) -> Groups:
    """Both groups, with their rules; one of ours that is there is adopted. `door` `None`: nobody is let in.

    A door of another name than ours is the person's own: it is used as it is. Raises `BackendError` where that is
    missing, or where a group has our name and not our tag: whom it lets in was not for us to say.
    """
    tags = {PROJECT: project}
    known = _named(ec2, vpc, [door_name, peers_name])
    if door_name == door_group(project):
        first = _ours(known, door_name, project) or _made(
            ec2, vpc, door_name, tags, words=f"those who tick for project {project}"
        )
    else:
        first = known.get(door_name)
        if first is None:
            raise BackendError(f"`security_group`: {vpc} has no group called {door_name}: make it, or leave that out")
    second = _ours(known, peers_name, project) or _made(
        ec2, vpc, peers_name, {**tags, POOL: pool}, words=f"instances of pool {pool} among themselves"
    )
    if not _talks(second):
        _among_themselves(ec2, second["GroupId"])
    if door is not None:
        let_in(ec2, first, door, now=now)
    return Groups(first["GroupId"], second["GroupId"])


def let_in_everywhere(ec2: Any, door_name: str, project: str, door: IngressGroup, *, now: int) -> bool:
    """In every network where the project has that group. Whether anything was let in that was not before."""
    tag = {"Name": f"tag:{PROJECT}", "Values": [project]}
    filters = [{"Name": "group-name", "Values": [door_name]}, tag]
    groups = ask(ec2, "describe_security_groups", Filters=filters)["SecurityGroups"]
    new = [group for group in groups if let_in(ec2, group, door, now=now)]
    return bool(new)


def let_in(ec2: Any, group: Mapping[str, Any], door: IngressGroup, *, now: int) -> bool:
    """Rules for `door` in `group` (as described), and none of ours that has expired. Whether one is new."""
    rules = dict(_rules(group))
    _remove(ec2, group["GroupId"], [cidr for cidr, words in rules.items() if _expired(words, now=now)])
    wanted = {_network(cidr): "dstack declared" for cidr in door.declared}
    if door.own:
        until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now + LASTS))
        own = _network(door.own)
        if own not in wanted and _ends(rules.get(own, ""), now=now) < now + LASTS // 2:
            wanted[own] = f"dstack until {until}"
    new = [cidr for cidr in wanted if cidr not in rules or _expired(rules[cidr], now=now)]
    for cidr, words in wanted.items():
        if cidr in new:
            _allow(ec2, group["GroupId"], cidr, words)
        elif _UNTIL.fullmatch(rules[cidr]) and rules[cidr] != words:
            ask(ec2, "update_security_group_rule_descriptions_ingress", GroupId=group["GroupId"],
                IpPermissions=[_permission(cidr, words)])  # fmt: skip
    return bool(new)


def _named(ec2: Any, vpc: str, names: Sequence[str]) -> dict[str, Any]:
    filters = [{"Name": "group-name", "Values": list(names)}, {"Name": "vpc-id", "Values": [vpc]}]
    found = ask(ec2, "describe_security_groups", Filters=filters)["SecurityGroups"]
    return {group["GroupName"]: group for group in found}


def _ours(known: Mapping[str, Any], name: str, project: str) -> Any:
    """`None` where there is none of that name."""
    group = known.get(name)
    if group is not None and as_mapping(group.get("Tags")).get(PROJECT) != project:
        raise BackendError(
            f"the security group {group['GroupId']} is called {name} and does not carry the tag {PROJECT}={project}: "
            "it is not used; rename or remove it, or, where it is this project's, tag it so"
        )
    return group


def _made(ec2: Any, vpc: str, name: str, tags: Mapping[str, str], *, words: str) -> Any:
    specification = {"ResourceType": "security-group", "Tags": as_list({"Name": name, **tags})}
    made = unless(
        "InvalidGroup.Duplicate",
        lambda: ec2.create_security_group(
            GroupName=name, Description=f"dstack: {words}"[:255], VpcId=vpc, TagSpecifications=[specification]
        ),
    )
    if made is not None:
        return {"GroupId": made["GroupId"], "GroupName": name, "IpPermissions": []}
    there = _ours(_named(ec2, vpc, [name]), name, tags[PROJECT])
    if there is None:
        raise TryLater(f"the security group {name} was just made by another and is not to be seen yet")
    return there


def unless(code: str, call: Callable[[], Any]) -> Any:
    """The answer; `None` where it was done before, as that code says."""
    try:
        return call()
    except failures() as error:
        if code_of(error) == code:
            return None
        raise understood(error) from None


def _talks(group: Mapping[str, Any]) -> bool:
    pairs = [pair for one in group.get("IpPermissions", ()) for pair in one.get("UserIdGroupPairs", ())]
    return any(pair.get("GroupId") == group["GroupId"] for pair in pairs)


def _among_themselves(ec2: Any, id: str) -> None:
    """Both ways: EFA wants the way out to be said as well. In last, as by that it is seen to be done (`_talks`)."""
    pair = {"GroupId": id, "Description": "dstack: among themselves"}
    everything = {"GroupId": id, "IpPermissions": [{"IpProtocol": "-1", "UserIdGroupPairs": [pair]}]}
    for call in (ec2.authorize_security_group_egress, ec2.authorize_security_group_ingress):
        unless("InvalidPermission.Duplicate", partial(call, **everything))


# ---------------------------------------------------------------- rules for addresses


def _rules(group: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(range, description) of what may come to SSH."""
    for permission in group.get("IpPermissions", ()):
        if permission.get("FromPort") == SSH and permission.get("ToPort") == SSH:
            for one in permission.get("IpRanges", ()):
                yield one["CidrIp"], one.get("Description", "")
            for one in permission.get("Ipv6Ranges", ()):
                yield one["CidrIpv6"], one.get("Description", "")


def _ends(words: str, *, now: int) -> int:
    """When it expires; one that is not ours to remove never does."""
    found = _UNTIL.fullmatch(words)
    if found is None:
        return now + 100 * LASTS if words else 0
    from calendar import timegm

    return timegm(time.strptime(found[1], "%Y-%m-%dT%H:%M:%SZ"))


def _expired(words: str, *, now: int) -> bool:
    return bool(_UNTIL.fullmatch(words)) and _ends(words, now=now) <= now


def _network(address: str) -> str:
    try:
        return str(ipaddress.ip_network(address, strict=False))
    except ValueError:
        raise BackendError(f"`ingress`: {address} is no address or range") from None


def _permission(cidr: str, words: str) -> dict[str, Any]:
    ranges = (
        {"Ipv6Ranges": [{"CidrIpv6": cidr, "Description": words}]}
        if ":" in cidr
        else {"IpRanges": [{"CidrIp": cidr, "Description": words}]}
    )
    return {"IpProtocol": "tcp", "FromPort": SSH, "ToPort": SSH, **ranges}


def _allow(ec2: Any, group: str, cidr: str, words: str) -> None:
    unless(
        "InvalidPermission.Duplicate",
        lambda: ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[_permission(cidr, words)]),
    )


def _remove(ec2: Any, group: str, cidrs: Sequence[str]) -> None:
    for cidr in cidrs:
        permission = _permission(cidr, "")
        for ranges in (permission.get("IpRanges", ()), permission.get("Ipv6Ranges", ())):
            for one in ranges:
                one.pop("Description")
        revoke = partial(ec2.revoke_security_group_ingress, GroupId=group, IpPermissions=[permission])
        unless("InvalidPermission.NotFound", revoke)
