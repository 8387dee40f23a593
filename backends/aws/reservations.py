"""What a capacity reservation or capacity block binds a launch to; refuse contradictions early. Pure.

docs.aws.amazon.com/AWSEC2/latest/UserGuide: "Launch instances into an existing Capacity Reservation", "Launch instances
using Capacity Blocks", "Use Capacity Reservations with placement groups".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from backends.aws.network import Look
from backends.errors import BackendError, NoCapacity
from schemas.launch import Request

COMING = frozenset({"pending", "scheduled", "payment-pending", "assessing", "delayed"})
SOON, ELSEWHERE = 180, 3600  # seconds until it is asked again: whether it began; whether it is another zone's by now


class Reserved(NamedTuple):
    """`zone` is the only one it is in, "" is unknown. `group` is the placement group that it was made in, if any."""

    zone: str = ""
    group: str = ""
    block: bool = False


def reserved_for(look: Look, request: Request, *, region: str) -> Reserved:
    """What `request.reservation` (an id, or the ARN of a group of them) asks for; nothing of it is asked of a group.

    Raises `BackendError` where these machines can never be had of it, `NoCapacity` where not now or not in this zone.
    """
    named = request.reservation
    if not named:
        return Reserved()
    if request.spot:
        raise BackendError(f"reservation {named}: what is reserved is never spot: set `spot_policy: on-demand`")
    if named.startswith("arn:"):
        return Reserved()
    found = look("describe_capacity_reservations", CapacityReservationIds=[named])["CapacityReservations"]
    if not found:
        raise BackendError(f"reservation {named} is not in {region}: set `regions` to where it is")
    _fits(found[0], request, f"reservation {named}")
    _open(found[0], f"reservation {named}")
    return Reserved(
        zone=found[0].get("AvailabilityZone", ""),
        group=str(found[0].get("PlacementGroupArn", "")).rpartition("/")[2],
        block=found[0].get("ReservationType") == "capacity-block",
    )


def _fits(one: Mapping[str, Any], request: Request, name: str) -> None:
    kind, zone, system = one.get("InstanceType"), one.get("AvailabilityZone", ""), one.get("InstancePlatform", "")
    if kind != request.instance_type:
        raise BackendError(f"{name} is of {kind}, not of {request.instance_type}: set `instance_types: [{kind}]`")
    if not system.startswith("Linux"):
        raise BackendError(f"{name} is of {system} machines; ours are Linux")
    if one.get("Tenancy") == "dedicated":
        raise BackendError(f"{name} is of dedicated hardware; ours are on shared hardware")
    if one.get("Interruptible"):
        raise BackendError(f"{name} may be taken back by its owner (interruptible): that is not supported")
    if request.zone and zone and request.zone != zone:
        raise NoCapacity(f"{name} is in {zone}, not in {request.zone}", retry_after=ELSEWHERE)


def _open(one: Mapping[str, Any], name: str) -> None:
    state = one.get("State")
    if state in COMING:
        begins = f" until {one['StartDate']:%Y-%m-%d %H:%M} UTC" if "StartDate" in one else ""
        raise NoCapacity(f"{name} is {state}{begins}", retry_after=SOON)
    if state != "active":
        raise BackendError(f"{name} is {state}")
