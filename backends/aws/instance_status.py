"""Ask EC2 what its description of an instance does not tell: who ended a spot instance, and failed status checks.

docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeInstanceStatus.html
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from msgspec.structs import replace

from backends.aws.describe_instances import seen, untold
from backends.aws.errors import REFUSED, ask
from backends.errors import CallFailed
from schemas.instance import Seen

FILTERED = 200  # the most values of a filter
NAMED = 100  # the most ids that DescribeInstanceStatus takes
PAGE = 1000
KINDS = {"SystemStatus": "system", "InstanceStatus": "instance", "AttachedEbsStatus": "disk"}

_denied: set[str] = set()
"""Places where whoever runs this may not ask for status checks: asked once by a process."""


def described(instances: Iterable[Mapping[str, Any]], *, region: str, ec2: Any = None) -> list[Seen]:
    """Each as EC2 lists it. Without the client `ec2` nothing more is asked."""
    found = list(instances)
    asked = [one["SpotInstanceRequestId"] for one in found if untold(one)] if ec2 is not None else []
    status = _requests(ec2, asked) if asked else {}
    return [
        seen(one, region=region, request_status=status.get(one.get("SpotInstanceRequestId", ""), "")) for one in found
    ]


def with_checks(listed: Sequence[Seen], *, ec2: Any, place: str) -> list[Seen]:
    """`listed`, those `unfit` whose status checks fail. One call at most, and none where nothing runs.

    What cannot be asked leaves the listing as it is: it is no less true for that.
    """
    running = [one.external_id for one in listed if one.phase == "running"]
    if not running or place in _denied:
        return list(listed)
    try:
        failed = _failed(ec2, running)
    except CallFailed as error:
        if str(error).partition(":")[0] in REFUSED:
            _denied.add(place)
        return list(listed)
    return [replace(one, unfit=failed[one.external_id]) if one.external_id in failed else one for one in listed]


def _failed(ec2: Any, ids: Sequence[str]) -> dict[str, str]:
    """Instance -> which of EC2's checks fails, and since when. Of more than `NAMED` those of the instance alone."""
    if len(ids) <= NAMED:
        chosen: dict[str, Any] = {"InstanceIds": list(ids)}
    else:
        impaired = {"Name": "instance-status.status", "Values": ["impaired"]}
        chosen = {"Filters": [impaired], "MaxResults": PAGE}
    answer = ask(ec2, "describe_instance_status", **chosen)
    told = {one["InstanceId"]: _words(one) for one in answer.get("InstanceStatuses", ())}
    return {id: words for id, words in told.items() if words}


def _words(status: Mapping[str, Any]) -> str:
    """`EC2 status check failed (instance, since 2026-12-01 03:10Z)`; "" where none is impaired."""
    kinds = {name: status.get(key) or {} for key, name in KINDS.items()}
    failing = {name: said for name, said in kinds.items() if said.get("Status") == "impaired"}
    if not failing:
        return ""
    since = [
        at
        for said in failing.values()
        for detail in said.get("Details") or ()
        if isinstance(at := detail.get("ImpairedSince"), datetime)
    ]
    when = f", since {min(since):%Y-%m-%d %H:%MZ}" if since else ""
    return f"EC2 status check failed ({' and '.join(failing)}{when})"


def _requests(ec2: Any, ids: Sequence[str]) -> dict[str, str]:
    """spot request -> its status; one that EC2 no longer knows is left out."""
    found: dict[str, str] = {}
    for start in range(0, len(ids), FILTERED):
        chosen = [{"Name": "spot-instance-request-id", "Values": list(ids[start : start + FILTERED])}]
        answer = ask(ec2, "describe_spot_instance_requests", Filters=chosen)
        for one in answer["SpotInstanceRequests"]:
            found[one["SpotInstanceRequestId"]] = one.get("Status", {}).get("Code", "")
    return found
