"""List and remove what a project's resource group has besides machines. Prices are those of most locations, about."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from backends.azure.api import NETWORK, ArmApi
from backends.azure.network import removed
from backends.errors import BackendError, PartlyListed
from schemas.base import HOURS, Price
from schemas.leftover import Kind, Leftover

DISKS = "2023-04-02"
GIB_MONTH = {"Premium_LRS": Decimal("0.15"), "StandardSSD_LRS": Decimal("0.075"), "Standard_LRS": Decimal("0.045")}
ADDRESS_HOUR = Decimal("0.005")  # azure.microsoft.com/pricing/details/ip-addresses: Standard, static
LOOKS: dict[Kind, tuple[str, str]] = {
    "volume": ("Microsoft.Compute/disks", DISKS),
    "interface": ("Microsoft.Network/networkInterfaces", NETWORK),
    "address": ("Microsoft.Network/publicIPAddresses", NETWORK),
    "security-group": ("Microsoft.Network/networkSecurityGroups", NETWORK),
}


def leftovers_in(arm: ArmApi, group: str, *, project: str, place: str) -> list[Leftover]:
    """Used or not: `in_use` says by what. `PartlyListed` where a kind is refused to be listed."""
    found: list[Leftover] = []
    refused: dict[str, str] = {}
    for kind, (path, version) in LOOKS.items():
        try:
            rows = list(_rows(arm, f"{group}/providers/{path}", version=version))
            found += [_one(kind, row, place) for row in rows if _ours(row, project)]
        except BackendError as error:
            refused[kind] = str(error)
    if refused:
        raise PartlyListed(found, refused)
    return found


def _rows(arm: ArmApi, path: str, *, version: str) -> Iterator[Mapping[str, Any]]:
    """None where the resource group is not there."""
    try:
        yield from arm.pages(path, version=version)
    except BackendError as error:
        if getattr(error, "code", "") not in ("ResourceGroupNotFound", "ResourceNotFound"):
            raise


def _ours(row: Mapping[str, Any], project: str) -> bool:
    """By its tag; a disk inherits none, and is known by the name that its machine gave it."""
    from backends.naming import read_mark

    tags = {str(name).lower(): value for name, value in (row.get("tags") or {}).items()}
    name = str(row.get("name") or "").removesuffix("-os")
    return tags.get("dstack-project") == project or read_mark(name, project=project) is not None


def _one(kind: Kind, row: Mapping[str, Any], place: str) -> Leftover:
    tags = {str(name).lower(): str(value) for name, value in (row.get("tags") or {}).items()}
    properties = row.get("properties") or {}
    hourly = Price(0)
    used = ""
    if kind == "volume":
        used = str(row.get("managedBy") or "")
        rate = GIB_MONTH.get(str((row.get("sku") or {}).get("name")), GIB_MONTH["Premium_LRS"])
        hourly = Price(rate * int(properties.get("diskSizeGB") or 0) / HOURS)
    elif kind == "address":
        used, hourly = str((properties.get("ipConfiguration") or {}).get("id") or ""), Price(ADDRESS_HOUR)
    elif kind == "interface":
        used = str((properties.get("virtualMachine") or {}).get("id") or "")
    else:
        used = ", ".join(str(one.get("id")) for one in properties.get("networkInterfaces") or ())
    return Leftover(
        kind=kind,
        id=str(row["id"]),
        place=place,
        name=str(row.get("name") or ""),
        pool=tags.get("dstack-pool", ""),
        launch=tags.get("dstack-launch", ""),
        lineage=tags.get("dstack-lineage", ""),
        in_use=used.rpartition("/")[2],
        hourly=hourly,
    )


def remove_from(arm: ArmApi, one: Leftover) -> None:
    """One that is gone already is no error. Raises `StillUsed` where it is used, in Azure's words."""
    if one.kind not in LOOKS or not one.id.lower().startswith(f"{arm.root.lower()}/resourcegroups/"):
        raise BackendError(f"{one.place} cannot remove {one.kind} {one.id}")
    removed(arm, one.id, version=LOOKS[one.kind][1])


def addresses(arm: ArmApi, group: str) -> dict[str, tuple[str, str]]:
    """Machine's id in lower case -> its public and its private address, of the project's group."""
    base = f"{group}/providers/Microsoft.Network"
    public = {
        str(row.get("id", "")).lower(): str((row.get("properties") or {}).get("ipAddress") or "")
        for row in _rows(arm, f"{base}/publicIPAddresses", version=NETWORK)
    }
    found: dict[str, tuple[str, str]] = {}
    for row in _rows(arm, f"{base}/networkInterfaces", version=NETWORK):
        properties = row.get("properties") or {}
        machine = str((properties.get("virtualMachine") or {}).get("id") or "").lower()
        for one in properties.get("ipConfigurations") or ():
            said = one.get("properties") or {}
            outside = public.get(str((said.get("publicIPAddress") or {}).get("id") or "").lower(), "")
            if machine and machine not in found:
                found[machine] = (outside, str(said.get("privateIPAddress") or ""))
    return found
