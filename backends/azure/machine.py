"""Render a request as the body of a virtual machine, and read machines back. Pure."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Literal

from backends.azure.errors import CAPACITY
from backends.boot.spec import Boot
from backends.errors import BackendError
from backends.naming import labels_of, mark
from schemas.base import Price, is_price
from schemas.instance import Seen
from schemas.launch import Refused, Request

MOST_TAGS = 50
OURS = ("dstack-project", "dstack-lineage", "dstack-launch", "dstack-pool")
PRICE, BACKEND = "dstack-price", "dstack-backend"
POWER: dict[str, Literal["starting", "running", "stopped"]] = {
    "starting": "starting", "running": "running", "stopping": "stopped", "stopped": "stopped",
    "deallocating": "stopped", "deallocated": "stopped",
}  # fmt: skip
STILL_BILLED = "shut down from within, and billed until it is deleted"
BOOT_TIMED_OUT = ("VMStartTimedOut", "OSProvisioningTimedOut")


def tags_of(request: Request, id: str, extra: Mapping[str, str]) -> dict[str, str]:
    """Of a machine and of what goes with it. Raises `BackendError` where they are more than Azure takes."""
    ours = labels_of(request, id) | {BACKEND: request.place.partition("/")[0]}
    if request.price is not None:
        ours[PRICE] = str(request.price)
    tags = {**extra, **dict(request.tags), **ours}
    if len(tags) > MOST_TAGS:
        raise BackendError(f"{len(tags)} tags with those of the backend, the pool and ours: Azure takes {MOST_TAGS}")
    for key, value in tags.items():
        if re.search(r"[<>%&\\?/]", key) or len(key) > 512 or len(value) > 256:
            raise BackendError(f"tag {key!r}: Azure takes no <>%&\\?/ in a key, and 256 characters of a value")
    return tags


def body_of(request: Request, id: str, *, region: str, boot: Boot, user_data: str) -> dict[str, Any]:
    """The machine with its disk, interface and address: all of them are deleted with it."""
    inputs = dict(request.inputs)
    name, home = mark(request.project, id), f"/home/{boot.user}/.ssh/authorized_keys"
    tags = {name[4:]: value for name, value in inputs.items() if name.startswith("tag:")} | labels_of(request, id)
    body: dict[str, Any] = {
        "location": region,
        "tags": tags,
        "properties": {
            "hardwareProfile": {"vmSize": request.instance_type},
            "storageProfile": {
                "imageReference": _image(inputs["image"]),
                "osDisk": {
                    "name": f"{name}-os",
                    "createOption": "FromImage",
                    "deleteOption": "Delete",
                    "diskSizeGB": int(inputs["size"]),
                    "managedDisk": {"storageAccountType": "StandardSSD_LRS"},
                },
            },
            "osProfile": {
                "computerName": name,
                "adminUsername": boot.user,
                "customData": base64.b64encode(user_data.encode()).decode(),
                "linuxConfiguration": {
                    "disablePasswordAuthentication": True,
                    "ssh": {"publicKeys": [{"path": home, "keyData": key} for key in boot.authorized_keys]},
                },
            },
            "networkProfile": {
                "networkApiVersion": "2022-11-01",
                "networkInterfaceConfigurations": [_interface(name, inputs, tags)],
            },
        },
    }
    if request.zone:
        body["zones"] = [request.zone.rpartition("-")[2]]
    if inputs.get("identity"):
        body["identity"] = {"type": "UserAssigned", "userAssignedIdentities": {inputs["identity"]: {}}}
    properties = body["properties"]
    if request.reservation:
        properties["capacityReservation"] = {"capacityReservationGroup": {"id": request.reservation}}
    if request.spot:
        # The most that Azure may charge is the on-demand price, unless the pool says less.
        most = float(round(request.max_price, 5)) if request.max_price is not None else -1
        properties |= {"priority": "Spot", "evictionPolicy": "Delete", "billingProfile": {"maxPrice": most}}
    return body


def _interface(name: str, inputs: Mapping[str, str], tags: Mapping[str, str]) -> dict[str, Any]:
    address: dict[str, Any] = {"primary": True, "subnet": {"id": inputs["subnet"]}}
    if "public" in inputs:
        address["publicIPAddressConfiguration"] = {
            "name": f"{name}-ip",
            "sku": {"name": "Standard"},
            "tags": dict(tags),
            "properties": {"deleteOption": "Delete", "publicIPAllocationMethod": "Static"},
        }
    return {
        "name": f"{name}-nic",
        "tags": dict(tags),
        "properties": {
            "primary": True,
            "deleteOption": "Delete",
            "networkSecurityGroup": {"id": inputs["nsg"]},
            "ipConfigurations": [{"name": "main", "properties": address}],
        },
    }


def _image(said: str) -> dict[str, str]:
    """`PUBLISHER:OFFER:SKU:VERSION`, or the id of an image."""
    if said.startswith("/"):
        return {"id": said}
    publisher, offer, sku, version = said.split(":")
    return {"publisher": publisher, "offer": offer, "sku": sku, "version": version}


def external_id(machine: Mapping[str, Any]) -> str:
    """Azure's id in lower case, and the id that no second machine of this name has."""
    made = str(machine.get("properties", {}).get("vmId") or "").lower()
    return f"{str(machine.get('id', '')).lower()}#{made}"


def tags_in(machine: Mapping[str, Any]) -> dict[str, str]:
    """With names in lower case: Azure does not tell their cases apart."""
    return {str(name).lower(): str(value) for name, value in (machine.get("tags") or {}).items()}


def seen(machine: Mapping[str, Any], *, power: str | None, address: str = "", internal: str = "") -> Seen:
    """`power` is what follows `PowerState/`, "" where nobody told it, as of one that was never started."""
    tags, properties = tags_in(machine), machine.get("properties") or {}
    state = str(properties.get("provisioningState") or "")
    phase, failure, reason = _phase(properties, state, power or "")
    region, zones = str(machine.get("location") or "").replace(" ", "").lower(), machine.get("zones") or ()
    return Seen(
        external_id=external_id(machine),
        id=tags.get("dstack-id", ""),
        launch=tags.get("dstack-launch", ""),
        pool=tags.get("dstack-pool", ""),
        backend=tags.get(BACKEND, ""),
        lineage=tags.get("dstack-lineage", ""),
        generation=int(said) if (said := tags.get("dstack-generation", "")).isdecimal() and len(said) < 16 else 0,
        phase=phase,
        by_itself=power in ("stopped", "stopping") and not failure,
        reason=reason,
        region=region,
        zone=f"{region}-{zones[0]}" if zones else "",
        instance_type=str((properties.get("hardwareProfile") or {}).get("vmSize") or ""),
        spot=properties.get("priority") == "Spot",
        price=_price(tags.get(PRICE, "")),
        address=address or internal,
        internal_ip=internal,
        created_at=_moment(properties.get("timeCreated")),
        untagged=tuple(name for name in OURS if name not in tags),
        failure=failure,
    )


def _phase(properties: Mapping[str, Any], state: str, power: str) -> tuple[Any, Refused | None, str]:
    """A machine whose making failed is still there, with its disk and address: it is `stopped`, and ended by us."""
    if state == "Deleting":
        return "ending", None, ""
    if state == "Failed" and power not in ("running", "starting"):
        code, words = _why(properties)
        if power and not code:
            return "stopped", None, "its last change failed, and it does not run"
        capacity = code in CAPACITY or code.endswith("AllocationRequestFailure") or not code
        why = f"{code}: {words}" if code else "Azure could not make it, and does not say why"
        return "stopped", Refused(meaning="capacity" if capacity else "permanent", why=why), why
    if power in POWER:
        phase = POWER[power]
        words = STILL_BILLED if power in ("stopped", "stopping") else f"it was {power}" if phase == "stopped" else ""
        return phase, None, words
    return ("starting" if state == "Creating" else "running"), None, ""


def _why(properties: Mapping[str, Any]) -> tuple[str, str]:
    """Code and words of the status that tells of the failure."""
    for status in (properties.get("instanceView") or {}).get("statuses") or ():
        code = str(status.get("code") or "")
        if code.startswith("ProvisioningState/failed/"):
            return code.rpartition("/")[2], str(status.get("message") or "")[:300]
    return "", ""


def power_of(machine: Mapping[str, Any]) -> str:
    """ "" where it tells none."""
    statuses = ((machine.get("properties") or {}).get("instanceView") or {}).get("statuses") or ()
    codes = (str(status.get("code") or "") for status in statuses)
    return next((code.partition("/")[2] for code in codes if code.startswith("PowerState/")), "")


def _moment(text: object) -> int | None:
    try:
        return int(datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", str(text))).timestamp())
    except ValueError:
        return None


def _price(text: str) -> Price | None:
    try:
        price = Decimal(text)
    except InvalidOperation:
        return None
    return price if is_price(price) and price >= 0 else None
