"""Parse an `ssh` destination and its options into a declared host. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from schemas.ssh_names import host_name_fault, key_path_fault, login_fault

_DESTINATION = re.compile(
    r"(?:ssh://)?(?:(?P<user>[^/\s]+)@)?(?:\[(?P<six>[^]]+)\]|(?P<host>[^@:/\s]+|[0-9a-fA-F:]*:[0-9a-fA-F:]+))"
    r"(?::(?P<port>\d{1,5}))?/?\Z"
)
# Options that say where and who; those that say whom to trust or what to forward are ours to decide.
_OPTIONS = {
    "port": "port", "user": "user", "identityfile": "identity_file", "proxyjump": "jump", "hostname": "hostname",
}  # fmt: skip
_IGNORED = {
    "stricthostkeychecking", "userknownhostsfile", "batchmode", "loglevel", "connecttimeout", "addkeystoagent",
    "identitiesonly", "serveraliveinterval", "serveralivecountmax", "controlmaster", "controlpath", "controlpersist",
}  # fmt: skip
_REFUSED = {"forwardagent": "agents are never forwarded", "forwardx11": "X11 is never forwarded"}


class NotADestination(ValueError):
    """The message says what is wrong, and what is taken instead."""


@dataclass(frozen=True, kw_only=True)
class ParsedDestination:
    """`ignored` are options that change nothing here."""

    hostname: str
    port: int | None = None
    user: str = ""
    identity_file: str = ""
    jump: str = ""
    ignored: tuple[str, ...] = field(default=())

    def entry(self) -> dict[str, Any]:
        """As `hosts` of a pool has it, with what was said and nothing else."""
        said = {"hostname": self.hostname, "port": self.port, "user": self.user, "identity_file": self.identity_file}
        return {key: value for key, value in said.items() if value}


def read_destination(
    text: str,
    *,
    port: int | None = None,
    login: str = "",
    identity: str = "",
    jump: str = "",
    options: Sequence[str] = (),
) -> ParsedDestination:
    """`[user@]host[:port]` or `ssh://…`; the flags win over the options, as in `ssh`. Raises `NotADestination`."""
    found = _DESTINATION.match(text)
    plain = found is not None and found["port"] is not None and not text.startswith("ssh://") and not found["six"]
    if found is None or text.startswith("-"):
        raise NotADestination(f"{text}: not a destination: `[user@]host`, or `ssh://user@host:port`")
    if plain and port is not None:
        raise NotADestination(f"{text}: a port in the destination and `-p {port}`: say one of them")
    said, ignored = _options(options)
    told = found["port"] or port or said.get("port")
    if told is not None and not 0 < int(told) < 65536:
        raise NotADestination(f"{text}: {told} is no port")
    return _checked(
        ParsedDestination(
            hostname=said.get("hostname") or found["six"] or found["host"],
            port=int(told) if told is not None else None,
            user=found["user"] or login or said.get("user", ""),
            identity_file=identity or said.get("identity_file", ""),
            jump=jump or said.get("jump", ""),
            ignored=ignored,
        )
    )


def _checked(asked: ParsedDestination) -> ParsedDestination:
    """Nothing that ssh, or a shell that ssh feeds, would take for anything but a name."""
    user, key = asked.user, asked.identity_file
    for fault in (host_name_fault(asked.hostname), user and login_fault(user), key and key_path_fault(key)):
        if fault:
            raise NotADestination(fault)
    return asked


def _options(options: Sequence[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    said: dict[str, str] = {}
    ignored = []
    for option in options:
        name, equals, value = option.partition("=") if "=" in option else option.partition(" ")
        key = name.strip().lower()
        if key in _REFUSED and value.strip().lower() not in ("no", ""):
            raise NotADestination(f"-o {option}: {_REFUSED[key]}")
        if key in _OPTIONS and equals:
            said.setdefault(_OPTIONS[key], value.strip())
        elif key in _IGNORED or key in _REFUSED:
            ignored.append(name.strip())
        else:
            known = "Port, User, IdentityFile, ProxyJump, HostName"
            raise NotADestination(f"-o {option}: here go {known}; what else you need belongs into ~/.ssh/config")
    if "port" in said and not said["port"].isdecimal():
        raise NotADestination(f"-o Port={said['port']}: not a port")
    return said, tuple(ignored)
