"""What the registry asks of Azure besides places: offers, locations, what a location sells, role definitions."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from backends.azure.api import SUBSCRIPTIONS, ArmApi
from backends.azure.network import group_of, group_path
from backends.scope import Kind, PolicyScope
from schemas.base import Seconds
from schemas.catalog import LiveRegion
from schemas.desired import BackendConfig
from schemas.offer import Offer
from schemas.resources import Need, Where

if TYPE_CHECKING:
    from backends.catalog.offers import Layers

CATALOG = Path(__file__).with_name("catalog.json")
SKUS = "2021-07-01"
NO_SPOT = "Azure tells no spot prices here: a spot machine costs at most what one on demand does"
LOOKS = (
    "Microsoft.Compute/virtualMachines/read",
    "Microsoft.Compute/virtualMachines/instanceView/read",
    "Microsoft.Compute/disks/read",
    "Microsoft.Compute/skus/read",
    "Microsoft.Compute/locations/*/read",
    "Microsoft.Network/networkInterfaces/read",
    "Microsoft.Network/publicIPAddresses/read",
    "Microsoft.Network/networkSecurityGroups/read",
    "Microsoft.Network/virtualNetworks/read",
    "Microsoft.Resources/subscriptions/read",
    "Microsoft.Resources/subscriptions/locations/read",
    "Microsoft.Resources/subscriptions/resourceGroups/read",
)
MAKES = (
    "Microsoft.Compute/virtualMachines/write",
    "Microsoft.Compute/virtualMachines/delete",
    "Microsoft.Compute/disks/write",
    "Microsoft.Compute/disks/delete",
    "Microsoft.Network/networkInterfaces/write",
    "Microsoft.Network/networkInterfaces/delete",
    "Microsoft.Network/networkInterfaces/join/action",
    "Microsoft.Network/publicIPAddresses/write",
    "Microsoft.Network/publicIPAddresses/delete",
    "Microsoft.Network/publicIPAddresses/join/action",
    "Microsoft.Network/networkSecurityGroups/write",
    "Microsoft.Network/networkSecurityGroups/delete",
    "Microsoft.Network/networkSecurityGroups/join/action",
    "Microsoft.Network/virtualNetworks/write",
    "Microsoft.Network/virtualNetworks/subnets/join/action",
    "Microsoft.Resources/subscriptions/resourceGroups/write",
)


def policy(kind: Kind, config: BackendConfig, scope: PolicyScope) -> dict[str, Any]:
    """A role definition for `az role definition create`. Listings are of the subscription, so that is its scope."""
    arm = ArmApi(config)
    actions = [*LOOKS, *(MAKES if kind == "apply" else ())]
    if kind == "apply" and config.options.get("vm_managed_identity"):
        actions.append("Microsoft.ManagedIdentity/userAssignedIdentities/assign/action")
    return {
        "Name": f"dstack {kind} {scope.project}",
        "IsCustom": True,
        "Description": f"What `dstack {kind}` of the project {scope.project} needs; its machines are in "
        f"{group_path(arm, group_of(config.options, scope.project))}",
        "Actions": sorted(actions),
        "NotActions": [],
        "AssignableScopes": [arm.root],
    }


def regions(config: BackendConfig) -> Sequence[str]:
    """Every location of the subscription that the catalog has, or those that the documents name."""
    if config.regions:
        return config.regions
    from backends.catalog.layers import shipped

    arm = ArmApi(config)
    found = {str(row.get("name") or "") for row in arm.pages(f"{arm.root}/locations", version=SUBSCRIPTIONS)}
    return sorted(found & set(shipped(config.type).regions))


def catalog_offers(config: BackendConfig, region: str, *, now: float) -> Sequence[Offer]:
    from backends.catalog.cache import cache_of
    from backends.catalog.layers import layers_of
    from backends.catalog.offers import offers

    known = layers_of(config, cache_of(os.environ), now=int(now))
    return tuple(offers(replace(config, regions=(region,)), known, Need(), Where(spot="auto")))


def live_region(config: BackendConfig, region: str, layers: Layers, *, now: Seconds) -> LiveRegion:
    """Which sizes this subscription may have there, and in which zones. Raises `BackendError`."""
    arm = ArmApi(config)
    zones: dict[str, tuple[str, ...]] = {}
    query = {"$filter": f"location eq '{region}'"}
    for row in arm.pages(f"{arm.root}/providers/Microsoft.Compute/skus", version=SKUS, query=query):
        if row.get("resourceType") != "virtualMachines" or _restricted(row):
            continue
        there = [zone for info in row.get("locationInfo") or () for zone in info.get("zones") or ()]
        zones[str(row.get("name") or "")] = tuple(sorted(f"{region}-{zone}" for zone in there))
    return LiveRegion(at=now, zones=zones, spot_error=NO_SPOT)


def _restricted(row: dict[str, Any] | Any) -> bool:
    """Of the whole location; a restriction of a zone leaves the others."""
    return any(one.get("type") == "Location" for one in row.get("restrictions") or ())
