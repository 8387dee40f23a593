"""What Azure's error codes mean. The code counts before the HTTP status: one status stands for several things. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from backends.errors import BackendError, CallFailed, NoCapacity, QuotaExceeded, StillUsed, TryLater

HOUR = 3600
CAPACITY = {
    "SkuNotAvailable", "AllocationFailed", "ZonalAllocationFailed", "OverconstrainedAllocationRequest",
    "OverconstrainedZonalAllocationRequest", "AllocationRequestFailure", "OverconstrainedAllocationRequestFailure",
}  # fmt: skip
QUOTA = {
    "QuotaExceeded",
    "PublicIPCountLimitReached",
    "SubnetIsFull",
    "InsufficientSubnetSize",
    "ResourceQuotaExceeded",
}
LATER = {
    "TooManyRequests", "SubscriptionRequestsThrottled", "Conflict", "AnotherOperationInProgress", "RetryableError",
    "ReferencedResourceNotProvisioned", "ResourceGroupBeingDeleted", "InternalExecutionError", "ServerTimeout",
    "NicReservedForAnotherVm", "InternalServerError", "OperationPreempted", "PreconditionFailed",
}  # fmt: skip
USED = {
    "NicInUse", "InUseSubnetCannotBeDeleted", "InUseNetworkSecurityGroupCannotBeDeleted",
    "PublicIPAddressCannotBeDeleted", "NetworkSecurityGroupInUse", "AttachedDiskCannotBeDeleted",
    "PublicIPAddressInUse",
}  # fmt: skip
GONE = {"ResourceNotFound", "NotFound", "ResourceGroupNotFound"}
WRAPPERS = {"DeploymentFailed", "BadRequest"}
_LIMITS = re.compile(r"Current Limit: \d+, Current Usage: \d+, Additional Required: \d+", re.I)
_FAMILY = re.compile(r"(?:exceeding approved|exceed(?:ing)? the approved|exceeding) (.{1,80}?) quota", re.I)


class AzureError(BackendError):
    """An answer that promises nothing: `code` is Azure's own."""

    def __init__(self, message: str, *, code: str, status: int) -> None:
        super().__init__(message)
        self.code, self.status = code, status


def told(body: object) -> tuple[str, str]:
    """Code and words of an error's body; the inner ones, where the outer is only a wrapper. ("", "") of another."""
    error = body.get("error") if isinstance(body, Mapping) else None
    if not isinstance(error, Mapping):
        return "", ""
    details = error.get("details")
    inner: Any = details[0] if isinstance(details, list) and details and isinstance(details[0], Mapping) else None
    code, words = str(error.get("code") or ""), str(error.get("message") or "")
    if inner is not None and inner.get("code") and (code in WRAPPERS or (code == "QuotaExceeded" and not words)):
        code, words = str(inner["code"]), str(inner.get("message") or words)
    return code, clean(words)


def clean(words: str) -> str:
    """One line of at most 600 characters, without control characters."""
    return " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f]+", " ", words).split())[:600]


def understood(status: int, body: object, *, retry_after: int = 0) -> CallFailed:
    """The meaning of an answer that is an error."""
    code, words = told(body)
    text = f"{code or status}: {words}" if words else f"Azure answered {code or status}"
    if status == 429:
        return TryLater(text, retry_after=retry_after)
    if code in CAPACITY or code.endswith("AllocationRequestFailure"):
        return NoCapacity(text, retry_after=HOUR)
    if code in QUOTA or (code == "OperationNotAllowed" and "quota" in words.lower()):
        return QuotaExceeded(text, quota=_quota(code, words))
    if code in USED:
        return StillUsed(text)
    if code in LATER or code == "OperationNotAllowed" or (status >= 500 and code not in GONE) or status == 408:
        return TryLater(text, retry_after=retry_after)
    return AzureError(text, code=code, status=status)


def _quota(code: str, words: str) -> str:
    """The quota's name in Azure's words, with its limit where they say it."""
    family, limits = _FAMILY.search(words), _LIMITS.search(words)
    name = family[1] if family else "LowPriorityCores" if "LowPriorityCores" in words else code
    return f"{name} ({limits[0]})" if limits else name
