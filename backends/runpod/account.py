"""Ask RunPod about one account: REST v2, and GraphQL for the account's id and the size of a pod, which v2 lacks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from backends.credentials import credential
from backends.errors import BackendError, TryLater
from backends.http import Api
from backends.http_answers import ApiError, Dialect, base_url
from schemas.desired import BackendConfig

ADDRESS = "https://api.runpod.io"
PATIENCE = 60.0
"""Seconds for one request."""
_NONE_NOW = re.compile(
    r"no (longer )?.*instances? (are )?(currently )?available|enough disk space|does not have the resources"
    r"|could not find .*(machine|resource|gpu|pod)|no .*capacity|out of stock",
    re.IGNORECASE,
)
_MONEY = re.compile(r"balance|insufficient (funds|credit)|spend(ing)? limit", re.IGNORECASE)


def _code(body: Mapping[str, Any]) -> str:
    """RunPod has no codes: its words tell. "" for what is no problem of RunPod's: that promises nothing."""
    if not isinstance(body["title"], str) or not isinstance(body["status"], int):
        return ""
    detail = str(body["detail"])
    return "balance" if _MONEY.search(detail) else "capacity" if _NONE_NOW.search(detail) else "problem"


DIALECT = Dialect(
    errors={
        (400, "capacity"): "capacity",
        (400, "balance"): "quota",
        (400, "problem"): "permanent",
        (401, "problem"): "permanent",
        (402, "balance"): "quota",
        (402, "problem"): "quota",
        (403, "balance"): "quota",
        (403, "problem"): "permanent",
        (404, "capacity"): "missing",
        (404, "problem"): "missing",
        (409, "problem"): "permanent",
        (422, "problem"): "permanent",
    },
    code=_code,
    words=lambda body: "; ".join((body["detail"], *map(str, body.get("errors") or ()))),
    quota=lambda body: "balance",
)


def api_of(config: BackendConfig) -> Api:
    def headers() -> Mapping[str, str]:
        return {"Authorization": f"Bearer {credential(config, 'api_key', default='RUNPOD_API_KEY')}"}

    return Api(base_url(ADDRESS, config.options.get("endpoint") or ""), headers=headers, dialect=DIALECT)


def asked(api: Api, query: str) -> Mapping[str, Any]:
    """The data of a GraphQL query. It answers errors with 200.

    Raises `TryLater`, or `BackendError` where the key may not ask.
    """
    try:
        answer = api.write("POST", "/graphql", {"query": query}, deadline=api.deadline(PATIENCE)).json
    except ApiError as error:
        raise BackendError(f"{error}; the API key needs the right to read GraphQL, which tells the account") from None
    data = answer.get("data")
    if answer.get("errors") or not isinstance(data, dict):
        said = str(answer.get("errors") or "no data")[:200]
        raise TryLater(
            f"RunPod's GraphQL: {said}; the API key needs the right to read GraphQL, which tells the account"
        )
    return data
