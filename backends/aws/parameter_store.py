"""A secret that AWS's parameter store keeps, read with the aws backend's own credentials."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from backends.aws.clients import client
from backends.aws.errors import ask
from backends.errors import BackendError
from schemas.desired import BackendConfig

NO_BACKEND = "there is no backend of type aws whose credentials could read it"


class Unreadable(Exception):
    """The parameter is not to be had here and now; the message holds AWS's own words, never the value."""


def store_of_parameters(backends: Iterable[BackendConfig]) -> BackendConfig | None:
    """The backend whose account keeps them: the first of type aws."""
    return next((one for one in backends if one.type == "aws"), None)


def parameter(name: str, backends: Iterable[BackendConfig], environ: Mapping[str, str]) -> str:
    """The value, decrypted. In the backend's first region, else in that of the environment. Raises `Unreadable`."""
    config = store_of_parameters(backends)
    if config is None:
        raise Unreadable(NO_BACKEND)
    here = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    region = config.regions[0] if config.regions else here
    try:
        answer = ask(client(config, "ssm", region), "get_parameter", Name=name, WithDecryption=True)
    except BackendError as error:
        raise Unreadable(f"{name} in {config.name}/{region}: {error}") from None
    return str(answer["Parameter"]["Value"])
