"""Convert EC2's description of an instance. Pure."""

from __future__ import annotations

import re
from calendar import timegm
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal, InvalidOperation
from time import strptime
from typing import Any, Literal

from backends.aws.tags import BACKEND, GENERATION, LAUNCH, LINEAGE, POOL, PRICE, PROJECT, as_mapping
from schemas.base import Price, is_price
from schemas.instance import Seen

Phase = Literal["starting", "running", "stopped", "ending", "ended"]
PHASES: dict[str, Phase] = {
    "pending": "starting", "running": "running", "stopping": "stopped", "stopped": "stopped",
    "shutting-down": "ending", "terminated": "ended",
}  # fmt: skip
TAKEN = ("Server.SpotInstanceTermination", "Server.SpotInstanceShutdown")  # docs.aws.amazon.com: StateReason
TOLD = ("Client.UserInitiatedShutdown", "Client.InstanceInitiatedShutdown", *TAKEN)
_AT = re.compile(r"\((\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) (?:GMT|UTC)\)")


def seen(instance: Mapping[str, Any], *, region: str, request_status: str = "") -> Seen:
    """`request_status` is its spot request's, where somebody had to ask for it."""
    tags = as_mapping(instance.get("Tags"))
    state = instance.get("State", {}).get("Name", "")
    spot = instance.get("InstanceLifecycle") == "spot"
    launch = tags.get(LAUNCH, "")
    phase = PHASES.get(state, "running")
    return Seen(
        external_id=instance["InstanceId"],
        id=f"{launch}-{instance.get('AmiLaunchIndex', 0)}" if launch else "",
        launch=launch,
        pool=tags.get(POOL, ""),
        backend=tags.get(BACKEND, ""),
        lineage=tags.get(LINEAGE, ""),
        generation=_number(tags.get(GENERATION, "")),
        phase=phase,
        interrupted=spot and phase in ("stopped", "ending", "ended") and _taken(instance, request_status),
        by_itself=_by_itself(instance),
        reason=_reason(instance, request_status) if phase in ("stopped", "ending", "ended") else "",
        region=region,
        zone=instance.get("Placement", {}).get("AvailabilityZone", ""),
        instance_type=instance.get("InstanceType", ""),
        spot=spot,
        price=_price(tags.get(PRICE, "")),
        address=instance.get("PublicIpAddress") or instance.get("PrivateIpAddress") or "",
        internal_ip=instance.get("PrivateIpAddress") or "",
        network=instance.get("VpcId") or "",
        created_at=_seconds(instance.get("LaunchTime")),
        # Of one that powered itself off EC2 tells no time.
        ended_at=_ended_at(instance) if phase == "ended" and not _by_itself(instance) else None,
        untagged=tuple(name for name in (PROJECT, LINEAGE, LAUNCH, POOL) if name not in tags),
    )


def untold(instance: Mapping[str, Any]) -> bool:
    """A spot instance that ended for a reason which does not say who ended it: its spot request does."""
    over = instance.get("State", {}).get("Name") in ("shutting-down", "terminated")
    told = (instance.get("StateReason") or {}).get("Code", "") in TOLD
    return over and not told and bool(instance.get("SpotInstanceRequestId"))


def _taken(instance: Mapping[str, Any], request_status: str) -> bool:
    """EC2 took it. `instance-terminated-by-user` is ours; a failed launch or a schedule's end is no interruption."""
    if (instance.get("StateReason") or {}).get("Code", "") in TAKEN:
        return True
    by_ec2 = request_status.startswith(("instance-terminated-", "marked-for-termination", "spot-instance-terminat"))
    ours = request_status in ("instance-terminated-by-user", "spot-instance-terminated-by-user")
    return by_ec2 and not ours and "launch-failed" not in request_status


def _reason(instance: Mapping[str, Any], request_status: str) -> str:
    """In EC2's own words."""
    reason = instance.get("StateReason") or {}
    words = reason.get("Message") or reason.get("Code") or instance.get("StateTransitionReason") or ""
    if request_status and "by-user" not in request_status:
        words = f"{words} ({request_status})" if words else request_status
    return " ".join(words.split())[:300]


def _by_itself(instance: Mapping[str, Any]) -> bool:
    return bool((instance.get("StateReason") or {}).get("Code", "") == "Client.InstanceInitiatedShutdown")


def _ended_at(instance: Mapping[str, Any]) -> int | None:
    found = _AT.search(instance.get("StateTransitionReason") or "")
    return timegm(strptime(found[1], "%Y-%m-%d %H:%M:%S")) if found else None


def _seconds(moment: object) -> int | None:
    return int(moment.timestamp()) if isinstance(moment, datetime) else None


def _number(text: str) -> int:
    return int(text) if re.fullmatch(r"\d{1,15}", text) else 0


def _price(text: str) -> Price | None:
    """Anyone may write a tag: what is no price is none."""
    try:
        price = Decimal(text)
    except InvalidOperation:
        return None
    return price if is_price(price) and price >= 0 else None
