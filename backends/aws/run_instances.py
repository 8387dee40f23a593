"""Render a request as parameters of EC2's RunInstances. Pure.

`inputs` hold everything that the rendering rests on but the user data, which carries a derived key and is never
stored: a request that is sent again is the same, whatever the documents say by then.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Any

from backends.aws.images import Image
from backends.aws.network import Network
from backends.aws.reservations import Reserved
from backends.aws.security_groups import Groups
from backends.aws.tags import as_list, door_group, peers_group, placement_group, tags_of
from schemas.launch import Request

GIB = 1024
DISK = 100 * GIB  # MiB, where nobody asked
Inputs = dict[str, str]


def inputs_of(
    request: Request,
    *,
    account: str,
    options: Mapping[str, Any],
    image: Image,
    network: Network,
    kind: Mapping[str, Any],
    reserved: Reserved,
) -> Inputs:
    """The facts, by name, as text. `kind` is EC2's description of the type, where the instances belong together."""
    facts = {
        "account": account,
        "image": image.id,
        "root": image.root,
        "volumes": ",".join(image.others),
        "size": str(max(-(-(request.disk or DISK) // GIB), image.size)),
        "vpc": network.vpc,
        "subnet": network.subnet,
        "zone": network.zone or request.zone,
        "public": "" if options.get("public_ips") is False else "yes",
        "door": options.get("security_group") or door_group(request.project),
        "own_door": "" if options.get("security_group") else "yes",
        "peers": peers_group(request.project, request.pool),
        "placement": reserved.group or _placed(request, kind, network),
        "cards": _cards(kind, public=options.get("public_ips") is not False),
        "profile": options.get("iam_instance_profile") or "",
        "kms": options.get("kms_key") or "",
        "reservation": request.reservation,
        "block": "yes" if reserved.block else "",
        "tags": json.dumps(tags_of(request, options.get("tags") or {}), sort_keys=True),
    }
    return {name: value for name, value in facts.items() if value}


def _placed(request: Request, kind: Mapping[str, Any], network: Network) -> str:
    """Our placement group. What was reserved outside of one is not to be had within it; a block is close together."""
    if request.reservation or "cluster" not in kind.get("PlacementGroupInfo", {}).get("SupportedStrategies", ()):
        return ""
    return placement_group(request.project, request.pool, network.zone)


def _cards(kind: Mapping[str, Any], *, public: bool) -> str:
    """`CARD:TYPE,…`: its interfaces, where some are fast ones (EFA), one on each network card; "" is an ordinary one.

    The first has the address: EC2 gives no public one to several. The others have none (EFA-only).
    """
    fast = _fast(kind)
    if public or not fast:
        return "0:efa" if 0 in fast else ""
    further = [f"{card}:{'efa-only' if 'efa-only' in fast[card] else 'efa'}" for card in sorted(fast) if card]
    return ",".join(["0:efa" if 0 in fast else "0:interface", *further])


def _fast(kind: Mapping[str, Any]) -> dict[int, Collection[str]]:
    """network card -> the types of interface it takes, of those cards that take a fast one, as many as it may have."""
    network = kind.get("NetworkInfo", {})
    most = int(network.get("EfaInfo", {}).get("MaximumEfaInterfaces") or 1) if network.get("EfaSupported") else 0
    cards = network.get("NetworkCards") or [{"NetworkCardIndex": 0}]
    types = {int(one["NetworkCardIndex"]): one.get("InterfaceTypes") or ("efa",) for one in cards}
    return {card: types[card] for card in sorted(card for card in types if "efa" in types[card])[:most]}


def unused_by(inputs: Inputs, kind: Mapping[str, Any]) -> str:
    """A sentence about fast interfaces that a machine does without for its public address, or ""."""
    used, all_ = inputs.get("cards", "").count("efa"), len(_fast(kind))
    if used >= all_:
        return ""
    return (
        f"{kind['InstanceType']}: {used or 'none'} of its {all_} fast interfaces (EFA) is used, since EC2 gives no "
        "public address to several: `public_ips: false` of the backend takes them all"
    )


def digest_of(request: Request, user_data: str) -> str:
    """Of the full rendering: RunInstances as it would be, with names in place of the groups' ids."""
    inputs = dict(request.inputs)
    names = Groups(inputs.get("door", ""), inputs.get("peers", ""))
    rendered = parameters(request, groups=names, user_data=user_data)
    return "sha256:" + hashlib.sha256(json.dumps(rendered, sort_keys=True).encode()).hexdigest()


def parameters(request: Request, *, groups: Groups, user_data: str) -> dict[str, Any]:
    """RunInstances: all of them or none, once for this token."""
    inputs = dict(request.inputs)
    asked: dict[str, Any] = {
        "ImageId": inputs["image"],
        "InstanceType": request.instance_type,
        "MinCount": len(request.ids),
        "MaxCount": len(request.ids),
        "ClientToken": request.token,
        "InstanceInitiatedShutdownBehavior": "terminate",
        "MetadataOptions": {
            "HttpTokens": "required", "HttpPutResponseHopLimit": 1, "HttpEndpoint": "enabled",
        },
        "BlockDeviceMappings": _volumes(inputs),
        "TagSpecifications": _tags(inputs, spot=request.spot),
        **_interfaces(inputs, groups),
    }  # fmt: skip
    if user_data:
        asked["UserData"] = user_data
    if placed := _placement(inputs):
        asked["Placement"] = placed
    if "profile" in inputs:
        name = "Arn" if inputs["profile"].startswith("arn:") else "Name"
        asked["IamInstanceProfile"] = {name: inputs["profile"]}
    return asked | _market(request, inputs)


def _volumes(inputs: Inputs) -> list[dict[str, Any]]:
    """None of them outlives its instance."""
    root: dict[str, Any] = {
        "VolumeSize": int(inputs["size"]), "VolumeType": "gp3", "Encrypted": True, "DeleteOnTermination": True,
    }  # fmt: skip
    if "kms" in inputs:
        root["KmsKeyId"] = inputs["kms"]
    others = [name for name in inputs.get("volumes", "").split(",") if name]
    return [
        {"DeviceName": inputs["root"], "Ebs": root},
        *({"DeviceName": name, "Ebs": {"Encrypted": True, "DeleteOnTermination": True}} for name in others),
    ]


def _tags(inputs: Inputs, *, spot: bool) -> list[dict[str, Any]]:
    kinds = ["instance", "volume", "network-interface", *(["spot-instances-request"] if spot else [])]
    return [{"ResourceType": kind, "Tags": as_list(json.loads(inputs["tags"]))} for kind in kinds]


def _interfaces(inputs: Inputs, groups: Groups) -> dict[str, Any]:
    """Without a subnet EC2 chooses a zone with room, in the default network, which gives public addresses."""
    ids = [group for group in groups if group]
    if "subnet" not in inputs:
        return {"SecurityGroupIds": ids}
    made = []
    for card, _, kind in (each.partition(":") for each in inputs.get("cards", "0:").split(",")):
        one: dict[str, Any] = {
            "DeviceIndex": 0 if card == "0" else 1, "NetworkCardIndex": int(card), "SubnetId": inputs["subnet"],
            "Groups": ids, "DeleteOnTermination": True,
        }  # fmt: skip
        made.append(one | ({"InterfaceType": kind} if kind else {}))
    if len(made) == 1:
        made[0]["AssociatePublicIpAddress"] = "public" in inputs
    return {"NetworkInterfaces": made}


def _placement(inputs: Inputs) -> dict[str, str]:
    placed = {}
    if "zone" in inputs and "subnet" not in inputs:
        placed["AvailabilityZone"] = inputs["zone"]
    if "placement" in inputs:
        placed["GroupName"] = inputs["placement"]
    return placed


def _market(request: Request, inputs: Inputs) -> dict[str, Any]:
    """Spot: once, never again by itself; a price above `max_price` is EC2's to refuse, too."""
    asked: dict[str, Any] = {}
    if request.spot:
        spot = {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate"}
        if request.max_price is not None:
            spot["MaxPrice"] = f"{request.max_price:f}"
        asked["InstanceMarketOptions"] = {"MarketType": "spot", "SpotOptions": spot}
    elif "block" in inputs:
        asked["InstanceMarketOptions"] = {"MarketType": "capacity-block"}
    named = inputs.get("reservation", "")
    if named:
        key = "CapacityReservationResourceGroupArn" if named.startswith("arn:") else "CapacityReservationId"
        asked["CapacityReservationSpecification"] = {"CapacityReservationTarget": {key: named}}
    return asked
