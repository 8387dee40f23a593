"""Of the strict double: capacity reservations, blocks, and what EC2 refuses of interfaces, by AWS's own pages.

moto has no reservation and takes any interfaces. Codes are EC2's as far as its pages name them ("Error codes for the
Amazon EC2 API", the troubleshooting of reservations); where they name none it is `InvalidParameterCombination`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any
from xml.sax.saxutils import escape

LACKING = "The requested reservation does not have sufficient compatible and available capacity for this request."
FIELDS = {
    "id": "capacityReservationId", "kind": "instanceType", "zone": "availabilityZone", "state": "state",
    "platform": "instancePlatform", "tenancy": "tenancy", "type": "reservationType", "group": "placementGroupArn",
    "starts": "startDate", "total": "totalInstanceCount", "interruptible": "interruptible",
}  # fmt: skip


class Wrong(Exception):
    """What EC2 answers instead."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


def described(known: Mapping[str, Mapping[str, str]], ids: list[str]) -> str:
    """`known`: id -> fields."""
    for id in ids:
        if not re.fullmatch(r"cr-[0-9a-f]{8,17}", id):
            raise Wrong("InvalidCapacityReservationId.Malformed", f"Invalid id: '{id}' (expecting 'cr-...')")
        if id not in known:
            raise Wrong("InvalidCapacityReservationId.NotFound", f"The capacity reservation ID '{id}' does not exist")
    items = "".join(
        f"<item>{''.join(f'<{FIELDS[name]}>{escape(value)}</{FIELDS[name]}>' for name, value in one.items())}</item>"
        for id, one in known.items()
        if not ids or id in ids
    )
    return f"<capacityReservationSet>{items}</capacityReservationSet>"


def check_reservation(
    said: Mapping[str, str], known: Mapping[str, Mapping[str, str]], *, used: Counter[str], zone: str
) -> str:
    """The reservation that a RunInstances takes, or "". `used`: reservation -> machines that live in it."""
    id = said.get("CapacityReservationSpecification.CapacityReservationTarget.CapacityReservationId", "")
    market = said.get("InstanceMarketOptions.MarketType", "")
    if not id:
        if market == "capacity-block":
            raise Wrong("InvalidParameterCombination", "A capacity block must be named by CapacityReservationTarget")
        return ""
    described(known, [id])
    one = known[id]
    block = one["type"] == "capacity-block"
    if market == "spot" or (market == "capacity-block") != block:
        raise Wrong("InvalidParameterCombination", f"The market type {market or 'on-demand'} does not go with {id}")
    group = said.get("Placement.GroupName", "")
    fits = (one["kind"], one["state"]) == (said["InstanceType"], "active") and zone == one["zone"]
    inside = group == one.get("group", "").rpartition("/")[2]
    if not fits or not inside or used[id] + int(said["MinCount"]) > int(one["total"]):
        raise Wrong("ReservationCapacityExceeded", LACKING)
    return id


# ---------------------------------------------------------------- interfaces


def check_interfaces(said: Mapping[str, str], network: Mapping[str, Any]) -> None:
    """`network`: the type's NetworkInfo."""
    mine = list(interfaces(said))
    if not mine:
        return
    if any(name.startswith("SecurityGroup") for name in said):
        raise Wrong(
            "InvalidParameterCombination",
            "Network interfaces and an instance-level security groups may not be specified on the same request",
        )
    if len(mine) > 1 and any("AssociatePublicIpAddress" in one for one in mine):
        raise Wrong(
            "InvalidParameterCombination",
            "The associatePublicIPAddress parameter cannot be specified when launching with multiple network "
            "interfaces.",
        )
    _check_places(mine)
    _check_cards(mine, network)


def interfaces(said: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Each one that the request names."""
    numbers = sorted({int(key.split(".")[1]) for key in said if key.startswith("NetworkInterface.")})
    for number in numbers:
        start = f"NetworkInterface.{number}."
        yield {key.removeprefix(start): value for key, value in said.items() if key.startswith(start)}


def _place(one: Mapping[str, str]) -> tuple[int, int]:
    return int(one.get("NetworkCardIndex", "0")), int(one["DeviceIndex"])


def _check_places(mine: list[dict[str, str]]) -> None:
    first = [one for one in mine if _place(one) == (0, 0)]
    if len(first) != 1 or first[0].get("InterfaceType") == "efa-only":
        raise Wrong("InvalidParameterCombination", "One interface with an address is to be at card 0, device 0")
    if len({_place(one) for one in mine}) < len(mine):
        raise Wrong("InvalidParameterCombination", "Each interface is to have a place of its own")


def _check_cards(mine: list[dict[str, str]], network: Mapping[str, Any]) -> None:
    cards = {int(one["NetworkCardIndex"]): one for one in network.get("NetworkCards", [{"NetworkCardIndex": 0}])}
    on_each = Counter(_place(one)[0] for one in mine)
    for one in mine:
        card, kind = _place(one)[0], one.get("InterfaceType", "interface")
        if card not in cards or on_each[card] > cards[card].get("MaximumNetworkInterfaces", 1):
            raise Wrong("InvalidNetworkCardIndex", f"The network card index {card} is not valid for this instance type")
        if kind not in cards[card].get("InterfaceTypes", ["interface"]):
            raise Wrong("InvalidParameterCombination", f"Network card {card} takes no interface of type {kind}")
    fast = sum(one.get("InterfaceType", "").startswith("efa") for one in mine)
    if fast > network.get("EfaInfo", {}).get("MaximumEfaInterfaces", 0):
        raise Wrong("InvalidParameterCombination", f"The instance type does not take {fast} EFA interfaces")
