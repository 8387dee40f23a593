"""Read a value from AWS's parameter store with the backend's credentials."""

from __future__ import annotations

import os

from backends.aws.clients import client
from backends.aws.errors import ask
from backends.errors import BackendError, CallFailed
from schemas.desired import BackendConfig


def parameter(config: BackendConfig, kind: str, name: str) -> str:
    """The value, decrypted, of the backend's first region, else of the environment's.

    Raises `BackendError` with AWS's own words, never the value.
    """
    here = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    region = config.regions[0] if config.regions else here
    try:
        answer = ask(client(config, kind, region), "get_parameter", Name=name, WithDecryption=True)
    except CallFailed as error:
        raise BackendError(f"{name} in {config.name}/{region}: {error}") from None
    return str(answer["Parameter"]["Value"])
