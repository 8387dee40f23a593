"""Complete a declared host from `~/.ssh/config`: address, user, keys, jumps."""

from __future__ import annotations

import getpass
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from msgspec import structs

from reconciler.config.known_hosts import Known, read_known_hosts
from schemas.host import Host, Jump

if TYPE_CHECKING:
    from paramiko import SSHConfig

MOST = 8  # jumps
_TOLD_A_SHELL = re.compile(r"[A-Za-z0-9_.:][A-Za-z0-9_.:@-]{0,254}(%[A-Za-z0-9]{1,15})?")
_HOP = re.compile(r"(?:(?P<user>[^@\s]+)@)?(?:\[(?P<six>[^]]+)\]|(?P<host>[^:\s]+))(?::(?P<port>\d{1,5}))?\Z")


@dataclass(frozen=True, kw_only=True)
class Hop:
    """One server to connect to: everything effective, paths expanded. `key` is its pin, "" where there is none.

    `name` is what messages call it: "" for the host itself, `jump NAME` for one on the way.
    `login` is the project's own private key, of a machine that we bought; nothing of this user's is tried there.
    `tunnel` is the argv of a vendor's program that leads there, instead of a dial; `needs` the programs it takes, each
    with what to do where it is not installed, `environment` what it is run with.
    `proxy` is the user's own command that leads there, complete: its stdin and stdout are the connection.
    """

    name: str
    hostname: str
    port: int
    user: str
    identities: tuple[Path, ...]
    key: str
    login: str = field(default="", repr=False)
    tunnel: tuple[str, ...] = ()
    needs: tuple[tuple[str, str], ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    proxy: str = ""

    @property
    def who(self) -> str:
        """Before a message: whoever reads it knows which host was asked; a jump must be named."""
        return f"{self.name}: " if self.name else ""

    @property
    def at(self) -> str:
        return self.hostname if self.port == 22 else f"{self.hostname}:{self.port}"


class NoWay(ValueError):
    """The user's configuration leads nowhere. The message says why."""


class Here:
    """This machine and its user: what `ssh` would know here. `root` is the project's folder."""

    def __init__(self, *, root: Path, home: Path, config: Path | None = None) -> None:
        self._root, self._home = root, home
        self._config_file = config or home / ".ssh" / "config"
        self._config: SSHConfig | None = None

    def hops(self, host: Host) -> tuple[Hop, ...]:
        """The jumps in order, then the host itself. What is declared wins over the user's own. Raises `NoWay`."""
        jumps = host.jumps or self._own_jumps(host.hostname)
        for _ in range(MOST):  # the first jump may have jumps of its own
            if not jumps or not (before := self._own_jumps(jumps[0].hostname)):
                break
            jumps = (*before, *jumps)
        else:
            raise NoWay(f"more than {MOST} jumps lead to {host.hostname}: does one lead to itself?")
        last = self._hop(host, name="")
        hops = (*(self._hop(jump, name=f"jump {jump.hostname}", or_with=last) for jump in jumps), last)
        first = jumps[0].hostname if jumps else host.hostname
        return (replace(hops[0], proxy=self._proxy(first, hops[0])), *hops[1:])

    def jump(self, jump: Jump) -> Hop:
        """On the way to a machine that we bought: entered with this user's own keys, pinned as written or known."""
        pinned = jump if jump.host_key else structs.replace(jump, host_key=self._own_key(jump))
        return self._hop(pinned, name=f"jump {jump.hostname}")

    def _hop(self, way: Host | Jump, *, name: str, or_with: Hop | None = None) -> Hop:
        """A jump that names no key is entered with the host's (`or_with`)."""
        found = self._lookup(way.hostname)
        written = [way.identity_file] if way.identity_file else found.get("identityfile", [])
        return Hop(
            name=name,
            hostname=found.get("hostname", way.hostname),
            port=way.port or int(found.get("port", 22)),
            user=way.user or found.get("user", "") or getpass.getuser(),
            identities=tuple(self._path(one) for one in written) or (or_with.identities if or_with else ()),
            key=way.host_key,
        )

    def _proxy(self, written: str, hop: Hop) -> str:
        """`ProxyCommand` of the user's own configuration, where no `ProxyJump` stands before it; "" where none.

        `written` is what the host is called there. The command is the user's, the values are not: a shell reads both.
        """
        found = self._lookup(written)
        if _first_way(found) != "proxycommand" or not (command := found["proxycommand"]):
            return ""
        values = {"h": hop.hostname, "n": written, "p": str(hop.port), "r": hop.user, "%": "%"}
        for value in (hop.hostname, written, hop.user):
            if not _TOLD_A_SHELL.fullmatch(value):
                raise NoWay(f"the ProxyCommand of {written} is not given {value!a}: a shell would read it otherwise")

        def value_of(token: re.Match[str]) -> str:
            if token[1] not in values:
                raise NoWay(f"the ProxyCommand of {written} has {token[0]}: known are %h, %n, %p, %r and %%")
            return values[token[1]]

        return re.sub("%(.?)", value_of, command)

    def _lookup(self, hostname: str) -> Mapping[str, Any]:
        if self._config is None:
            here = self._config_file.is_file()
            self._config = _config_class().from_path(str(self._config_file)) if here else _config_class()()
        found: Mapping[str, Any] = self._config.lookup(hostname)
        return found

    def _path(self, written: str) -> Path:
        """`~` is this user's home; a relative one lies in the project."""
        if written.startswith("~/"):
            return self._home / written[2:]
        return self._root / written

    def _own_jumps(self, hostname: str) -> tuple[Jump, ...]:
        """`ProxyJump` of the user's own configuration: pinned by the project's keys, or by the user's own."""
        found = self._lookup(hostname)
        said = str(found.get("proxyjump", "none"))
        if said.lower() == "none" or _first_way(found) != "proxyjump":
            return ()
        jumps = [read_jump(one) for one in said.split(",")]
        if [jump.hostname for jump in jumps] == [hostname]:  # of `Host *`, say: nobody jumps by way of themselves
            return ()
        return tuple(structs.replace(jump, host_key=self._own_key(jump)) for jump in jumps)

    def _own_key(self, jump: Jump) -> str:
        hop = self._hop(jump, name="")
        for file in (self._root / ".dstack/known_hosts", self._home / ".ssh/known_hosts"):
            known: Known = read_known_hosts(file)
            for name in (jump.hostname, hop.hostname):
                if key := known.key_of(name, hop.port):
                    return key
        return ""


def _first_way(found: Mapping[str, Any]) -> str:
    """`ProxyCommand` and `ProxyJump` exclude each other: the one that is said first holds, as for OpenSSH."""
    return next((name for name in found if name in ("proxycommand", "proxyjump")), "")


@cache
def _config_class() -> type[SSHConfig]:
    """The library fills a ProxyCommand with what the file says; the documents may say more."""
    from paramiko import SSHConfig

    class Config(SSHConfig):  # type: ignore[misc]
        TOKENS_BY_CONFIG_KEY: ClassVar = {
            key: tokens for key, tokens in SSHConfig.TOKENS_BY_CONFIG_KEY.items() if key != "proxycommand"
        }

    return Config


def read_jump(text: str) -> Jump:
    """`[user@]host[:port]`, as `ssh -J` takes it. Raises `ValueError`."""
    found = _HOP.match(text.strip().removeprefix("ssh://"))
    if found is None:
        raise ValueError(f"not a jump host: {text!r}")
    return Jump(
        hostname=found["six"] or found["host"],
        port=int(found["port"]) if found["port"] else None,
        user=found["user"] or "",
    )
