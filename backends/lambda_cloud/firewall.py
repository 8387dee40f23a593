"""Keep the project's firewall ruleset at Lambda: one in each region, port 22 from known addresses alone.

It is ours by its name and is attached when a machine is made. The rules of the account as a whole are never written:
each write of those replaces what others wrote. A rule of our own address ends after a day; rules of others stay.
"""

from __future__ import annotations

import calendar
import re
import time
from collections.abc import Mapping, Sequence
from ipaddress import ip_network
from typing import Any

from backends.errors import TryLater
from backends.http_answers import ApiError, segment
from backends.lambda_cloud.account import Account
from schemas.base import Value

WITHOUT = frozenset({"us-south-1"})
"""Regions whose machines Lambda puts behind no firewall: port 22 is open to the world there."""
LASTS = 86400
_UNTIL = re.compile(r"dstack until (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)")
_FORM = "%Y-%m-%dT%H:%M:%SZ"


class Door(Value, frozen=True, kw_only=True):
    """Who may come to port 22: declared ranges, and our own address, "" where it is not wanted or not known."""

    declared: tuple[str, ...] = ()
    own: str = ""


def ensure(account: Account, region: str, door: Door, *, now: int) -> str:
    """The id of the region's ruleset, made where there is none, that lets in `door`."""
    found = _ours(account, region)
    if found is None:
        body = {"name": account.name, "region": region, "rules": _wanted((), door, now=now)}
        try:
            account.write("POST", "/firewall-rulesets", body)
        except (ApiError, TryLater) as error:
            failed: Exception | None = error  # another process may have made it at the same time
        else:
            failed = None
        found = _ours(account, region)
        if found is None:
            raise failed or TryLater(f"Lambda does not list the firewall ruleset {account.name} of {region} yet")
    let_in(account, found, door, now=now)
    return str(found["id"])


def let_in_there(account: Account, region: str, door: Door, *, now: int) -> bool:
    """Whether a rule was added to the region's ruleset. False where there is no such ruleset."""
    found = _ours(account, region)
    return found is not None and let_in(account, found, door, now=now)


def let_in(account: Account, ruleset: Mapping[str, Any], door: Door, *, now: int) -> bool:
    """Rules for `door`, and none of ours that has expired. Whether one is new."""
    rules = [one for one in ruleset.get("rules") or () if isinstance(one, dict)]
    wanted = _wanted(rules, door, now=now)
    if wanted == rules:
        return False
    account.write("PATCH", f"/firewall-rulesets/{segment(str(ruleset['id']))}", {"rules": wanted})
    return bool({_source(one) for one in wanted} - {_source(one) for one in rules})


def _ours(account: Account, region: str) -> dict[str, Any] | None:
    """The oldest, where two processes made one each."""
    found = [
        one for one in account.listed("/firewall-rulesets")
        if one.get("name") == account.name and _region(one) == region
    ]  # fmt: skip
    return min(found, key=lambda one: (str(one.get("created")), str(one.get("id"))), default=None)


def _region(ruleset: Mapping[str, Any]) -> str:
    region = ruleset.get("region")
    return str(region.get("name", "")) if isinstance(region, dict) else ""


def _wanted(rules: Sequence[dict[str, Any]], door: Door, *, now: int) -> list[dict[str, Any]]:
    """`rules` without what expired or is no longer declared, and with those of `door`."""
    kept = [one for one in rules if not _outlived(one, door, now=now)]
    there = {_source(one) for one in kept}
    new = [_rule(cidr, "dstack declared") for cidr in door.declared if cidr not in there]
    own = _network(door.own)
    if own and own not in (*there, *door.declared):
        new.append(_rule(own, f"dstack until {time.strftime(_FORM, time.gmtime(now + LASTS))}"))
    return [*kept, *new]


def _outlived(rule: Mapping[str, Any], door: Door, *, now: int) -> bool:
    """Whether it is ours and over; our own address is renewed when half of its time is gone."""
    said = str(rule.get("description", ""))
    if said == "dstack declared":
        return _source(rule) not in door.declared
    until = _UNTIL.fullmatch(said)
    if until is None:
        return False
    left = _unix(until[1]) - now
    return left <= 0 or (_source(rule) == _network(door.own) and left < LASTS // 2)


def _unix(text: str) -> int:
    return calendar.timegm(time.strptime(text, _FORM))


def _rule(cidr: str, words: str) -> dict[str, Any]:
    return {"protocol": "tcp", "port_range": [22, 22], "source_network": cidr, "description": words}


def _source(rule: Mapping[str, Any]) -> str:
    return _network(str(rule.get("source_network", "")))


def _network(address: str) -> str:
    """`198.51.100.7` is `198.51.100.7/32`; "" for what is no IPv4 range: Lambda's rules know no other."""
    try:
        found = ip_network(address, strict=False)
    except ValueError:
        return ""
    return str(found) if found.version == 4 else ""
