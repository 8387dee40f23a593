"""Complete a declared host as `ssh` would reach it from here: address, user, keys, jumps, and whom it trusts."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path

from msgspec import structs

from reconciler.config.known_hosts import Known, read_known_hosts
from reconciler.hosts.ssh.ask_ssh import NoWay, SshProgram
from reconciler.hosts.ssh.directives import Directives, Own
from schemas.host import Host, Jump, key_blob
from schemas.ssh_names import host_name_fault, login_fault

MOST = 8  # jumps
_TOLD_A_SHELL = re.compile(r"[A-Za-z0-9_.:][A-Za-z0-9_.:@-]{0,254}(%[A-Za-z0-9]{1,15})?")
_HOP = re.compile(r"(?:(?P<user>\S+)@)?(?:\[(?P<six>[^]]+)\]|(?P<host>[^:\s]+))(?::(?P<port>\d{1,5}))?\Z")


@dataclass(frozen=True, kw_only=True)
class Hop:
    """One server to connect to: everything effective, paths expanded. `key` is its pin, "" where there is none.

    `name` is what messages call it: "" for the host itself, `jump NAME` for one on the way.
    `login` is the project's own private key, of a machine that we bought; nothing of this user's is tried there.
    `tunnel` is the argv of a vendor's program that leads there, instead of a dial; `needs` the programs it takes, each
    with what to do where it is not installed, `environment` what it is run with.
    `proxy` is the user's own command that leads there, complete: its stdin and stdout are the connection.
    `written` is what the documents call it, `own` what the user's configuration says beyond all that.
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
    written: str = ""
    own: Own = field(default_factory=Own)

    @property
    def who(self) -> str:
        """Before a message: whoever reads it knows which host was asked; a jump must be named."""
        return f"{self.name}: " if self.name else ""

    @property
    def at(self) -> str:
        return self.hostname if self.port == 22 else f"{self.hostname}:{self.port}"

    @property
    def fault(self) -> str:
        """Why nothing is done with its names, wherever they come from; "" where they are names."""
        return login_fault(self.user) or ("" if self.tunnel else host_name_fault(self.hostname))


class Here:
    """This machine and its user: what `ssh` would know here. `root` is the project's folder."""

    def __init__(
        self, *, root: Path, home: Path, config: Path | None = None, family: int = 0, ssh: SshProgram | None = None
    ) -> None:
        """`family` wins over `AddressFamily`: `socket.AF_INET`, or 0."""
        self._root, self._home, self._family = root, home, family
        self._ssh = ssh or SshProgram(home=home, config=config)

    def hops(self, host: Host) -> tuple[Hop, ...]:
        """The jumps in order, then the host itself. What is declared wins over the user's own. Raises `NoWay`."""
        jumps = host.jumps or self._own_jumps(host)
        for _ in range(MOST):  # the first jump may have jumps of its own
            if not jumps or not (before := self._own_jumps(jumps[0])):
                break
            jumps = (*before, *jumps)
        else:
            raise NoWay(f"more than {MOST} jumps lead to {host.hostname}: does one lead to itself?")
        last = self._hop(host, name="")
        hops = (*(self._hop(jump, name=f"jump {jump.hostname}", or_with=last) for jump in jumps), last)
        first = jumps[0] if jumps else host
        return (replace(hops[0], proxy=self._proxy(first, hops[0])), *hops[1:])

    def jump(self, jump: Jump) -> tuple[Hop, ...]:
        """On the way to a machine that we bought: entered with this user's own keys, pinned as written or known.

        The last of them is the jump; before it are those that the user's own configuration leads there by.
        """
        alone = Host(
            name=jump.hostname,
            hostname=jump.hostname,
            port=jump.port,
            user=jump.user,
            identity_file=jump.identity_file,
            host_key=jump.host_key or self._own_key(jump),
        )
        *before, last = self.hops(alone)
        return (*before, replace(last, name=f"jump {jump.hostname}"))

    def trusted(self, way: Host | Jump) -> tuple[str, ...]:
        """Keys that this user's own known_hosts files, and the system's, have for it, as ssh looks them up."""
        hop = self._hop(way, name="")
        return tuple(key for known in self._known_here(hop) for key in known.keys_of(*_called(hop)))

    def revoked(self, hop: Hop, key: str) -> str:
        """Where `key` of that server is revoked: a file and line, or why nobody can know; "" where it is not."""
        names = dict.fromkeys((hop.hostname, hop.own.alias, hop.written))
        for known in (self._known_to_project(), *self._known_here(hop)):
            for name in filter(None, names):
                if line := known.revoked(key, name, hop.port):
                    return f"{known.source}:{line}"
        return _listed(hop.own.revoked, key) if hop.own.revoked else ""

    def by_authority(self, hop: Hop) -> str:
        """Where a certificate authority is trusted for that server: a file and line, or ""."""
        for known in (self._known_to_project(), *self._known_here(hop)):
            if line := known.authority(*_called(hop)):
                return f"{known.source}:{line}"
        return ""

    def _hop(self, way: Host | Jump, *, name: str, or_with: Hop | None = None) -> Hop:
        """A jump that names no key is entered with the host's (`or_with`)."""
        said = self._said(way)
        written = (self._path(way.identity_file),) if way.identity_file else said.identities
        own = said.own()
        own = replace(own, usual=() if written is not None else own.usual, family=self._family or own.family)
        hop = Hop(
            name=name,
            hostname=said.hostname,
            port=said.port,
            user=said.user,
            identities=written or (or_with.identities if or_with and written is None else ()),
            key=way.host_key,
            written=way.hostname,
            own=own,
        )
        if hop.fault:
            raise NoWay(f"{hop.who}{hop.fault}")
        return hop

    def _proxy(self, way: Host | Jump, hop: Hop) -> str:
        """`ProxyCommand` of the user's own configuration, where no `ProxyJump` holds; "" where none.

        The command is the user's, the values are not: a shell reads both.
        """
        said = self._said(way)
        if not said.proxy_command:
            return ""
        for value in (hop.hostname, way.hostname, hop.user):
            if not _TOLD_A_SHELL.fullmatch(value):
                raise NoWay(
                    f"the ProxyCommand of {way.hostname} is not given {value!a}: a shell would read it otherwise"
                )
        return said.command

    def _said(self, way: Host | Jump) -> Directives:
        answer = self._ssh.of(way.hostname, user=way.user, port=way.port or 0)
        defaults = self._ssh.defaults if answer else {}
        return Directives(
            answer, defaults=defaults, home=self._home, written=way.hostname, user=way.user, port=way.port or 0
        )

    def _path(self, written: str) -> Path:
        """`~` is this user's home; a relative one lies in the project."""
        if written.startswith("~/"):
            return self._home / written[2:]
        return self._root / written

    def _own_jumps(self, way: Host | Jump) -> tuple[Jump, ...]:
        """`ProxyJump` of the user's own configuration: pinned by the project's keys, or by the user's own."""
        jumps = [read_jump(one) for one in self._said(way).jumps]
        if [jump.hostname for jump in jumps] == [way.hostname]:  # of `Host *`, say: nobody jumps by way of themselves
            return ()
        return tuple(structs.replace(jump, host_key=self._own_key(jump)) for jump in jumps)

    def _own_key(self, jump: Jump) -> str:
        hop = self._hop(jump, name="")
        for name in (jump.hostname, hop.hostname):
            if key := self._known_to_project().key_of(name, hop.port):
                return key
        return next((key for known in self._known_here(hop) for key in known.keys_of(*_called(hop))), "")

    def _known_to_project(self) -> Known:
        return read_known_hosts(self._root / ".dstack/known_hosts")

    def _known_here(self, hop: Hop) -> tuple[Known, ...]:
        files = hop.own.trusted or tuple(self._home / ".ssh" / name for name in ("known_hosts", "known_hosts2"))
        return tuple(map(read_known_hosts, files))


def _called(hop: Hop) -> tuple[str, int | None]:
    """What ssh looks for in known_hosts files: an alias stands there without a port."""
    return (hop.own.alias, None) if hop.own.alias else (hop.hostname, hop.port)


def _listed(path: Path, key: str) -> str:
    """`RevokedHostKeys`: public keys, a line each. Whatever else it is, ssh's own rule holds: no key is accepted."""
    try:
        lines = path.read_bytes().decode("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        return f"nobody knows: RevokedHostKeys {path} cannot be read as a list of public keys ({error})"
    for number, line in enumerate(lines, 1):
        if key_blob(key) in (word.rstrip("=") for word in line.split()):
            return f"{path}:{number}"
    return ""


def read_jump(text: str) -> Jump:
    """`[user@]host[:port]`, as `ssh -J` takes it. Raises `NoWay`."""
    found = _HOP.match(text.strip().removeprefix("ssh://"))
    if found is None or not 0 < int(found["port"] or 22) < 65536:
        raise NoWay(f"not a jump host: {text!a}")
    hostname, user = found["six"] or found["host"], found["user"] or ""
    if fault := host_name_fault(hostname) or (user and login_fault(user)):
        raise NoWay(f"not a jump host: {fault}")
    return Jump(hostname=hostname, port=int(found["port"]) if found["port"] else None, user=user)
