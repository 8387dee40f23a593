"""How a machine in a cloud is reached from here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from schemas.base import Value
from schemas.host import Jump

Mode = Literal["direct", "jump", "program"]
PLAIN: tuple[Mode, ...] = ("direct", "jump")
"""The modes that need no program of the backend's."""


class Way(Value, frozen=True, kw_only=True):
    """How an instance is reached: at its address, over a server, or by a program of its backend."""

    mode: Mode = "direct"
    """`direct`: SSH to its address. `jump`: SSH over `jump`. `program`: what `name` runs leads there."""
    name: str = ""
    """With `program`, which one: one of the `access` of its backend's type, such as `ssm`."""
    jump: Jump | None = None
    """The server on the way, with `jump`."""
    profile: str = ""
    """The profile of the cloud's own configuration that its program uses, "" for its default."""

    namespace: str = ""
    """The namespace of a cluster that its program looks in, "" for that of its context."""
    config: str = ""
    """The file that its program takes the cluster's address and credentials from, "" for its default."""

    @property
    def label(self) -> str:
        """As `connect` is written: the program's name, else the mode."""
        return self.name or self.mode


class Access(Value, frozen=True, kw_only=True):
    """The program that leads to one instance, as its backend names it. Nothing in it is secret."""

    argv: tuple[str, ...]
    """Run without a shell. Its stdin and stdout are the connection."""
    environment: tuple[tuple[str, str], ...] = ()
    """Added to the environment that it is run with."""
    needs: tuple[tuple[str, str], ...] = ()
    """The programs that must be installed here, each with what to do where it is not."""
    speaks: Literal["sshd", "sh"] = "sshd"
    """`sshd`: the connection is to an SSH server, and the host key is pinned as ever. `sh`: `argv` takes the arguments
    of a program that it runs on the host, with its stdin and stdout; there is no SSH server."""


def written_way(value: Mapping[str, Any]) -> dict[str, Any]:
    """A stored `connect` as today's `Way`: before format 3 a program stood as the mode (`mode: ssm`)."""
    mode = value.get("mode", "direct")
    return dict(value) if mode in (*PLAIN, "program") else {**value, "mode": "program", "name": mode}


def way_of(options: Mapping[str, Any]) -> Way:
    """A backend's own, by its `connect`, with the profile of its credentials."""
    creds, said = options.get("creds") or {}, options.get("connect") or {}
    file = options.get("kubeconfig") or ""
    more = {
        "profile": str(creds.get("profile", "")),
        "namespace": str(options.get("namespace") or ""),
        "config": str(file.get("filename", "") if isinstance(file, dict) else file),
    }
    return msgspec.convert({**written_way(said), **more}, Way)
