"""The network of a project: its resource group, and in each location a virtual network and a security group.

Each is looked for by name first, and made only where it is missing. Rules of the security group that are not ours stay.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from typing import Any

from backends.azure.api import NETWORK, RESOURCES, ArmApi
from backends.azure.errors import AzureError
from backends.errors import BackendError, TryLater

RULE = "dstack-"
UNTIL = "dstack until "
DAY = 86400
FIRST, LAST = 1000, 4000  # priorities of our rules
ASKED = "https://checkip.amazonaws.com"  # the same service as for AWS: it only says where a request came from
OWN_NETWORK = "10.64.0.0/16"

_changing = threading.Lock()


def group_of(options: Mapping[str, Any], project: str) -> str:
    """The name of the project's resource group."""
    return str(options.get("resource_group") or f"dstack-{project}")


def group_path(arm: ArmApi, group: str) -> str:
    return f"{arm.root}/resourceGroups/{group}"


def ensure_group(arm: ArmApi, group: str, *, project: str, region: str, declared: bool) -> None:
    """Raises `BackendError` where the documents name one that is not there."""
    path = group_path(arm, group)
    if arm.found(path, version=RESOURCES) is not None:
        return
    if declared:
        raise BackendError(f"resource group {group}: there is none in this subscription: `az group create` makes it")
    arm.write("PUT", path, {"location": region, "tags": {"dstack-project": project}}, version=RESOURCES)


def names(group_id: str, *, project: str, region: str) -> tuple[str, str]:
    """Paths of our security group and of our virtual network there."""
    base = f"{group_id}/providers/Microsoft.Network"
    return (
        f"{base}/networkSecurityGroups/dstack-{project}-{region}",
        f"{base}/virtualNetworks/dstack-{project}-{region}",
    )


def declared_subnet(arm: ArmApi, said: str) -> str:
    """The id of a subnet from `vpc_ids`: `GROUP/NETWORK`, `GROUP/NETWORK/SUBNET` or Azure's own id of a network."""
    if said.startswith("/"):
        network, subnet = said, ""
    else:
        parts = said.split("/")
        if len(parts) not in (2, 3) or not all(parts):
            raise BackendError(f"vpc_ids: {said} should be GROUP/NETWORK or GROUP/NETWORK/SUBNET")
        network = f"{group_path(arm, parts[0])}/providers/Microsoft.Network/virtualNetworks/{parts[1]}"
        subnet = parts[2] if len(parts) == 3 else ""
    found = arm.found(network, version=NETWORK)
    there = [] if found is None else (found.get("properties") or {}).get("subnets") or []
    chosen = next((one for one in there if not subnet or one.get("name") == subnet), None)
    if chosen is None:
        raise BackendError(f"vpc_ids: {said}: there is no such network, or no such subnet in it")
    return str(chosen["id"])


def ensure_network(arm: ArmApi, path: str, *, project: str, region: str) -> None:
    if arm.found(path, version=NETWORK) is not None:
        return
    subnets = [{"name": "default", "properties": {"addressPrefix": OWN_NETWORK}}]
    body = {
        "location": region,
        "tags": {"dstack-project": project},
        "properties": {"addressSpace": {"addressPrefixes": [OWN_NETWORK]}, "subnets": subnets},
    }
    arm.followed(arm.write("PUT", path, body, version=NETWORK), patience=60)


def ensure_security(
    arm: ArmApi, path: str, *, project: str, region: str, own: str, ranges: Iterable[str], now: int
) -> bool:
    """Let `own` (for a day) and `ranges` in to port 22; true where a rule was added. What is past its day goes."""
    with _changing:
        for _ in range(3):
            found = arm.found(path, version=NETWORK)
            kept, added = _rules(found, own=own, ranges=ranges, now=now)
            if found is not None and kept == found["properties"].get("securityRules", []):
                return False
            body = {
                "location": region,
                "tags": {"dstack-project": project},
                "properties": {"securityRules": kept},
            }
            guard = {"If-Match": str(found["etag"])} if found and found.get("etag") else {}
            guard = guard or ({"If-None-Match": "*"} if found is None else {})
            try:
                arm.followed(arm.write("PUT", path, body, version=NETWORK, headers=guard), patience=60)
                return added
            except TryLater as error:
                if not str(error).startswith("PreconditionFailed"):
                    raise
        raise TryLater(f"{path}: somebody else changes it all the time")


def _rules(found: Any, *, own: str, ranges: Iterable[str], now: int) -> tuple[list[Any], bool]:
    """Those that it should have, and whether one of them is new."""
    there = list(found["properties"].get("securityRules", [])) if found else []
    kept = [one for one in there if not _over(one, now)]
    wanted = dict.fromkeys(ranges, "") | ({own: f"{UNTIL}{now + DAY}"} if own else {})
    added = False
    for source, description in wanted.items():
        name = RULE + hashlib.sha256(source.encode()).hexdigest()[:12]
        known = next((one for one in kept if one.get("name") == name), None)
        if known is not None and (not description or _until(known) - now > DAY // 2):
            continue
        used = {(one.get("properties") or {}).get("priority") for one in kept if one is not known}
        priority = next((number for number in range(FIRST, LAST) if number not in used), LAST)
        kept = [one for one in kept if one is not known] + [_rule(name, source, description, priority)]
        added = added or known is None
    return kept, added


def _rule(name: str, source: str, description: str, priority: int) -> dict[str, Any]:
    told = {"description": description} if description else {}
    return {
        "name": name,
        "properties": {
            **told, "protocol": "Tcp", "sourceAddressPrefix": source, "sourcePortRange": "*",
            "destinationAddressPrefix": "*", "destinationPortRange": "22", "access": "Allow", "priority": priority,
            "direction": "Inbound",
        },
    }  # fmt: skip


def _until(rule: Mapping[str, Any]) -> int:
    said = re.fullmatch(rf"{UNTIL}(\d+)", str((rule.get("properties") or {}).get("description") or ""))
    return int(said[1]) if said else 0


def _over(rule: Mapping[str, Any], now: int) -> bool:
    return str(rule.get("name", "")).startswith(RULE) and 0 < _until(rule) <= now


def own_address(endpoint: str) -> str:
    """Our public address, as a range of one; "" where it is not known. `DSTACK_ADDRESS` says it."""
    said = os.environ.get("DSTACK_ADDRESS", "").strip()
    if not said and endpoint:
        return ""
    try:
        if not said:
            with urllib.request.urlopen(ASKED, timeout=4) as answer:
                said = answer.read(64).decode("ascii", errors="replace").strip()
        return str(ipaddress.ip_network(said))
    except (urllib.error.URLError, OSError, ValueError):
        return ""


def removed(arm: ArmApi, path: str, *, version: str) -> None:
    """One that is gone already is no error."""
    try:
        arm.write("DELETE", path, version=version)
    except AzureError as error:
        if error.status != 404:
            raise
