"""How a machine in a cloud is reached from here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from schemas.base import Value
from schemas.host import Jump

Mode = Literal["direct", "instance-connect", "ssm", "jump"]


class Way(Value, frozen=True, kw_only=True):
    """`direct`: its address. `instance-connect`, `ssm`: its cloud's own program tunnels. `jump`: over that server.

    `profile` is the one of the cloud's own configuration that its program uses, "" for its default.
    """

    mode: Mode = "direct"
    jump: Jump | None = None
    profile: str = ""


def way_of(options: Mapping[str, Any]) -> Way:
    """A backend's own, by its `connect`, with the profile of its credentials."""
    creds, said = options.get("creds") or {}, options.get("connect") or {}
    return msgspec.convert({**said, "profile": str(creds.get("profile", ""))}, Way)
