"""Find the quota that bounds an instance type, and its value."""

from __future__ import annotations

import re
from typing import Any

from backends.aws.errors import ask
from backends.errors import CallFailed, QuotaExceeded

# docs.aws.amazon.com/ec2/latest/instancetypes/ec2-instance-quotas: in vCPUs; (on-demand, spot) by first letters.
QUOTAS: tuple[tuple[str, str, str, str], ...] = (
    ("dl", "DL", "L-6E869C2A", "L-85EED4F7"),
    ("inf", "Inf", "L-1945791B", "L-B5D1601B"),
    ("trn", "Trn", "L-2C3B7624", "L-6B0D517C"),
    ("hpc", "HPC", "L-F7808C92", ""),
    ("vt", "G and VT", "L-DB2E81BA", "L-3819A6DF"),
    ("mac", "", "", ""),
    ("g", "G and VT", "L-DB2E81BA", "L-3819A6DF"),
    ("p", "P", "L-417A185B", "L-7212CCBC"),
    ("f", "F", "L-74FC7D96", "L-88CF9481"),
    ("x", "X", "L-7295265B", "L-E3A00192"),
    ("u", "High Memory", "L-43DA4232", ""),
    ("", "Standard (A, C, D, H, I, M, R, T, Z)", "L-1216C47A", "L-34B43A08"),
)


def quota_of(instance_type: str, *, spot: bool) -> tuple[str, str]:
    """(code, name); the code is "" where none is known."""
    letters = re.match(r"[a-z]*", instance_type.lower())
    family = letters[0] if letters else ""
    for start, name, on_demand, of_spot in QUOTAS:
        if family.startswith(start):
            words = f"All {name} Spot Instance Requests" if spot else f"Running On-Demand {name} instances"
            return (of_spot if spot else on_demand), words
    return "", ""


def with_value(error: QuotaExceeded, quotas: Any, *, instance_type: str, spot: bool) -> QuotaExceeded:
    """The same refusal with the quota's name, code and value, as far as they may be read."""
    if error.quota not in ("VcpuLimitExceeded", "MaxSpotInstanceCountExceeded", "InstanceLimitExceeded"):
        return error
    code, name = quota_of(instance_type, spot=spot)
    if not code:
        return error
    try:
        value = ask(quotas, "get_service_quota", ServiceCode="ec2", QuotaCode=code)["Quota"]["Value"]
        words = f"quota {name} ({code}) is {value:g} vCPUs here"
    except CallFailed:
        words = f"quota {name} ({code}); its value could not be read"
    more = f"{words}: ask for more in Service Quotas, or allow other instance types or regions"
    return QuotaExceeded(f"{str(error).strip().rstrip('.')}: {more}", quota=f"{name} ({code})")
