"""What a declared host leaves open, from `~/.ssh/config`: where it is, who logs in with which key, over which jumps."""

from __future__ import annotations

import getpass
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from reconciler.known_hosts import Known, read_known_hosts
from schemas.host import Host, Jump

if TYPE_CHECKING:
    from paramiko import SSHConfig

_HOP = re.compile(r"(?:(?P<user>[^@\s]+)@)?(?:\[(?P<six>[^]]+)\]|(?P<host>[^:\s]+))(?::(?P<port>\d{1,5}))?\Z")


@dataclass(frozen=True, kw_only=True)
class Hop:
    """One server to connect to: everything effective, paths expanded. `key` is its pin, "" where there is none.

    `name` is what messages call it: "" for the host itself, `jump NAME` for one on the way.
    `login` is the project's own private key, of a machine that we bought; nothing of this user's is tried there.
    `tunnel` is the argv of a vendor's program that leads there, instead of a dial; `needs` the programs it takes.
    """

    name: str
    hostname: str
    port: int
    user: str
    identities: tuple[Path, ...]
    key: str
    login: str = field(default="", repr=False)
    tunnel: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


class Here:
    """This machine and its user: what `ssh` would know here. `root` is the project's folder."""

    def __init__(self, *, root: Path, home: Path, config: Path | None = None) -> None:
        self._root, self._home = root, home
        self._config_file = config or home / ".ssh" / "config"
        self._config: SSHConfig | None = None

    def hops(self, host: Host) -> tuple[Hop, ...]:
        """The jumps in order, then the host itself."""
        jumps = host.jumps or self._own_jumps(host.hostname)
        last = self._hop(host, name="")
        return (*(self._hop(jump, name=f"jump {jump.hostname}", or_with=last) for jump in jumps), last)

    def jump(self, jump: Jump) -> Hop:
        """On the way to a machine that we bought: entered with this user's own keys, pinned as written or known."""
        pinned = jump if jump.host_key else replace(jump, host_key=self._own_key(jump))
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

    def _lookup(self, hostname: str) -> Mapping[str, Any]:
        if self._config is None:
            from paramiko import SSHConfig

            here = self._config_file.is_file()
            self._config = SSHConfig.from_path(str(self._config_file)) if here else SSHConfig()
        found: Mapping[str, Any] = self._config.lookup(hostname)
        return found

    def _path(self, written: str) -> Path:
        """`~` is this user's home; a relative one lies in the project."""
        if written.startswith("~/"):
            return self._home / written[2:]
        return self._root / written

    def _own_jumps(self, hostname: str) -> tuple[Jump, ...]:
        """`ProxyJump` of the user's own configuration: pinned by the project's keys, or by the user's own."""
        said = str(self._lookup(hostname).get("proxyjump", "none"))
        if said.lower() == "none":
            return ()
        jumps = [read_jump(one) for one in said.split(",")]
        return tuple(replace(jump, host_key=self._own_key(jump)) for jump in jumps)

    def _own_key(self, jump: Jump) -> str:
        hop = self._hop(jump, name="")
        for file in (self._root / ".dstack/known_hosts", self._home / ".ssh/known_hosts"):
            known: Known = read_known_hosts(file)
            for name in (jump.hostname, hop.hostname):
                if key := known.key_of(name, hop.port):
                    return key
        return ""


def read_jump(text: str) -> Jump:
    """`[user@]host[:port]`, as `ssh -J` takes it. Raises `ValueError`."""
    found = _HOP.match(text.strip().removeprefix("ssh://"))
    if found is None:
        raise ValueError(f"not a jump host: {text!r}")
    return Jump(
        hostname=found["six"] or found["host"], port=int(found["port"]) if found["port"] else None,
        user=found["user"] or "",
    )  # fmt: skip
