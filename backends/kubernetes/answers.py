"""What an API server's refusals mean. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from backends.http_answers import Dialect

EXISTS, CONFLICT, EXPIRED = "AlreadyExists", "Conflict", "Expired"
_QUOTA = re.compile(r"exceeded quota: ([^,]+),")
_SETTLING = ("error looking up service account", "No API token found")
"""What a namespace answers that was made a moment ago."""


def _words(body: Mapping[str, Any]) -> str:
    return str(body.get("message", ""))


def _code(body: Mapping[str, Any]) -> str:
    """The Status' reason, except where its message says more than that."""
    words = _words(body)
    if _QUOTA.search(words):
        return "ExceededQuota"
    if any(one in words for one in _SETTLING):
        return "Settling"
    return str(body.get("reason", ""))


def _quota(body: Mapping[str, Any]) -> str:
    found = _QUOTA.search(_words(body))
    return found[1] if found else ""


DIALECT = Dialect(
    errors={
        (400, ""): "permanent",
        (401, ""): "permanent",
        (403, "ExceededQuota"): "quota",
        (403, "Settling"): "later",
        (403, ""): "permanent",
        (404, ""): "missing",
        (422, ""): "permanent",
    },
    code=_code,
    words=_words,
    quota=_quota,
)


def is_reason(error: Exception, reason: str) -> bool:
    """Whether the Status behind `error` had that reason."""
    return f": {reason}: " in str(error)
