"""List and remove what carries a project's tag in a region and is no instance.

What is attached to something counts as used by it, whoever's it is. Prices are those of most regions, about.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from backends.aws.errors import ask, pages
from backends.aws.tags import LAUNCH, LINEAGE, POOL, as_mapping, of_project
from backends.errors import BackendError, CallFailed, PartlyListed, StillUsed
from schemas.base import HOURS, Price
from schemas.leftover import Kind, Leftover

GIB_MONTH = {"gp3": Decimal("0.08"), "gp2": Decimal("0.10"), "io1": Decimal("0.125"), "io2": Decimal("0.125")}
ADDRESS_HOUR = Decimal("0.005")  # aws.amazon.com/vpc/pricing: each public IPv4 address
USED = ("DependencyViolation", "InvalidPlacementGroup.InUse", "VolumeInUse", "InvalidNetworkInterface.InUse")
GONE = (
    "InvalidVolume.NotFound",
    "InvalidAllocationID.NotFound",
    "InvalidNetworkInterfaceID.NotFound",
    "InvalidGroup.NotFound",
    "InvalidGroupId.NotFound",
    "InvalidPlacementGroup.Unknown",
    "InvalidKeyPair.NotFound",
    "InvalidSpotInstanceRequestID.NotFound",
)


def leftovers_in(ec2: Any, *, project: str, place: str) -> list[Leftover]:
    """Used or not: `in_use` says by what. `PartlyListed` where a kind is refused: each needs its own permission."""
    tagged = of_project(project)
    found: list[Leftover] = []
    refused: dict[str, str] = {}
    for kind, look in LOOKS.items():
        try:
            found += look(ec2, tagged, place)
        except BackendError as error:
            refused[kind] = str(error)
    if refused:
        raise PartlyListed(found, refused)
    return found


def remove_from(ec2: Any, one: Leftover) -> None:
    """One that is gone already is no error. Raises `StillUsed` where it is used, in AWS's words."""
    operation, name = REMOVALS[one.kind]
    value: Any = [one.id] if name.endswith("Ids") else one.id
    try:
        ask(ec2, operation, **{name: value})
    except CallFailed as error:
        code = str(error).partition(":")[0]
        if code in USED:
            raise StillUsed(str(error)) from None
        if code not in GONE:
            raise


REMOVALS: dict[Kind, tuple[str, str]] = {
    "spot-request": ("cancel_spot_instance_requests", "SpotInstanceRequestIds"),
    "address": ("release_address", "AllocationId"),
    "volume": ("delete_volume", "VolumeId"),
    "interface": ("delete_network_interface", "NetworkInterfaceId"),
    "security-group": ("delete_security_group", "GroupId"),
    "placement-group": ("delete_placement_group", "GroupName"),
    "key-pair": ("delete_key_pair", "KeyPairId"),
}


def _made(kind: Kind, id: str, place: str, tags: Any, **known: Any) -> Leftover:
    said = as_mapping(tags)
    return Leftover(
        kind=kind,
        id=id,
        place=place,
        name=known.pop("name", "") or said.get("Name", ""),
        pool=said.get(POOL, ""),
        launch=said.get(LAUNCH, ""),
        lineage=said.get(LINEAGE, ""),
        **known,
    )


def _pages(ec2: Any, operation: str, key: str, **parameters: Any) -> Iterator[Mapping[str, Any]]:
    for page in pages(ec2, operation, **parameters):
        yield from page.get(key, ())


def _volumes(ec2: Any, tagged: list[Any], place: str) -> Iterator[Leftover]:
    for one in _pages(ec2, "describe_volumes", "Volumes", Filters=tagged, MaxResults=500):
        used = ", ".join(each["InstanceId"] for each in one.get("Attachments", ()))
        price = GIB_MONTH.get(one.get("VolumeType", ""), Decimal("0.10")) * one["Size"] / HOURS
        yield _made("volume", one["VolumeId"], place, one.get("Tags"), in_use=used,
                    created_at=_seconds(one.get("CreateTime")), hourly=price)  # fmt: skip


def _addresses(ec2: Any, tagged: list[Any], place: str) -> Iterator[Leftover]:
    for one in ask(ec2, "describe_addresses", Filters=tagged)["Addresses"]:
        used = one.get("InstanceId") or one.get("NetworkInterfaceId") or ""
        yield _made("address", one["AllocationId"], place, one.get("Tags"), in_use=used, hourly=Price(ADDRESS_HOUR),
                    name=one.get("PublicIp", ""))  # fmt: skip


def _interfaces(ec2: Any, tagged: list[Any], place: str) -> Iterator[Leftover]:
    for one in _pages(ec2, "describe_network_interfaces", "NetworkInterfaces", Filters=tagged, MaxResults=500):
        used = "" if one.get("Status") == "available" else one.get("Attachment", {}).get("InstanceId") or "its host"
        yield _made("interface", one["NetworkInterfaceId"], place, one.get("TagSet"), in_use=used)


def _groups(ec2: Any, tagged: list[Any], place: str) -> Iterator[Leftover]:
    for one in _pages(ec2, "describe_security_groups", "SecurityGroups", Filters=tagged, MaxResults=500):
        yield _made("security-group", one["GroupId"], place, one.get("Tags"), name=one["GroupName"])


def _placements(ec2: Any, tagged: list[Any], place: str) -> Iterator[Leftover]:
    for one in ask(ec2, "describe_placement_groups", Filters=tagged)["PlacementGroups"]:
        yield _made("placement-group", one["GroupName"], place, one.get("Tags"), name=one["GroupName"])


def _keys(ec2: Any, tagged: list[Any], place: str) -> Iterator[Leftover]:
    for one in ask(ec2, "describe_key_pairs", Filters=tagged)["KeyPairs"]:
        yield _made("key-pair", one["KeyPairId"], place, one.get("Tags"), name=one["KeyName"],
                    created_at=_seconds(one.get("CreateTime")))  # fmt: skip


def _requests(ec2: Any, tagged: list[Any], place: str) -> Iterator[Leftover]:
    """Those that may still be fulfilled: nobody waits for them."""
    waiting = [*tagged, {"Name": "state", "Values": ["open"]}]
    for one in ask(ec2, "describe_spot_instance_requests", Filters=waiting)["SpotInstanceRequests"]:
        yield _made("spot-request", one["SpotInstanceRequestId"], place, one.get("Tags"),
                    created_at=_seconds(one.get("CreateTime")))  # fmt: skip


LOOKS: dict[Kind, Callable[[Any, list[Any], str], Iterator[Leftover]]] = {
    "spot-request": _requests,
    "address": _addresses,
    "volume": _volumes,
    "interface": _interfaces,
    "security-group": _groups,
    "placement-group": _placements,
    "key-pair": _keys,
}


def _seconds(moment: object) -> int | None:
    return int(moment.timestamp()) if isinstance(moment, datetime) else None
