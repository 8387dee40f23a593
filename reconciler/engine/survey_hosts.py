"""Check servers before they are declared: host keys and every check, concurrently."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from dataclasses import replace as replace_key
from typing import Literal

from msgspec.structs import replace

from backends.errors import CallFailed
from backends.ssh.backend import Looked, look
from reconciler.config.known_hosts import Known, name_of
from reconciler.engine.ports import Ports
from reconciler.hosts.runner import Unreachable, Untrusted
from reconciler.hosts.ssh.declared_hosts import SshReach
from reconciler.system.concurrent import gather
from schemas.host import Host, Jump, fingerprint

LIMIT = 90.0
Trust = Literal["known", "yours", "given", "new", "changed", "revoked"]


@dataclass(frozen=True, kw_only=True)
class ShownKey:
    """A key that a server showed."""

    name: str
    address: str
    key: str
    trust: Trust
    """Known to the project, to the user alone, given by hand, new, changed, or revoked."""
    pinned: str = ""
    revoked: str = ""
    """Where it is revoked: a file and its line."""
    authority: str = ""
    """Where a certificate authority is trusted for that server, which is not supported."""

    @property
    def settled(self) -> bool:
        """A person has agreed to this very key before."""
        return self.trust in ("known", "yours", "given")


@dataclass(frozen=True, kw_only=True)
class Surveyed:
    """`host` with the keys that were shown as its pins. `error`: it cannot be logged in to; no `looked` then."""

    host: Host
    keys: tuple[ShownKey, ...] = ()
    looked: Looked | None = None
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class Trusted:
    """Where keys are looked up, besides the user's own files: the project's file, and what was given by hand."""

    project: Known
    given: str = ""

    def of(self, name: str, way: Host | Jump, shown: str, *, user: Sequence[str], revoked: str) -> ShownKey:
        """`user` are the keys that the user's own files have for it, `revoked` where `shown` is revoked, or ""."""
        address = name_of(way.hostname, way.port)
        known = (way.host_key,) if way.host_key else self.project.keys_of(way.hostname, way.port)
        trust: Trust = "new"
        if revoked:
            trust = "revoked"
        elif self.given and isinstance(way, Host):
            trust = "given" if shown == self.given else "changed"
        elif known:
            trust = "known" if known[0] == shown else "changed"
        elif shown in user:
            trust = "yours"
        pinned = self.given if self.given and isinstance(way, Host) else known[0] if known else ""
        return ShownKey(name=name, address=address, key=shown, trust=trust, pinned=pinned, revoked=revoked)


def survey(
    ports: Ports, reach: SshReach, hosts: Sequence[Host], *, trusted: Trusted, project: str
) -> tuple[Surveyed, ...]:
    """In the order of `hosts`; one that hangs delays no other beyond its own deadline."""
    tasks = {number: _Survey(reach, host, trusted, project).run for number, host in enumerate(hosts)}
    found: Mapping[int, Surveyed | Exception] = dict(gather(ports, tasks, limit=LIMIT, width=64))
    return tuple(_settled(found.get(number), host) for number, host in enumerate(hosts))


def _settled(found: Surveyed | Exception | None, host: Host) -> Surveyed:
    if isinstance(found, Surveyed):
        return found
    return Surveyed(host=host, error=f"{found}" if found else f"no answer within {LIMIT:.0f} s")


@dataclass(kw_only=False)
class _Survey:
    reach: SshReach
    host: Host
    trusted: Trusted
    project: str
    keys: list[ShownKey] = field(default_factory=list)

    def run(self) -> Surveyed:
        host = self.host
        try:
            jumps: tuple[Jump, ...] = ()
            for jump in host.jumps:
                jumps = (*jumps, self._jump(jump, before=jumps))
            host = replace(host, jumps=jumps)
            host = replace(host, host_key=self._key(host.name, host, host))
            looked = look(self.reach, host, project=self.project, thorough=True, now=time.time())
        except (Unreachable, CallFailed) as error:
            return Surveyed(host=host, keys=tuple(self.keys), error=str(error))
        return Surveyed(host=host, keys=tuple(self.keys), looked=looked)

    def _jump(self, jump: Jump, *, before: tuple[Jump, ...]) -> Jump:
        """Pinned, by way of those before it."""
        alone = Host(
            name=jump.hostname,
            hostname=jump.hostname,
            port=jump.port,
            user=jump.user,
            identity_file=jump.identity_file,
            jumps=before,
        )
        return replace(jump, host_key=self._key(f"jump {jump.hostname}", jump, alone))

    def _key(self, name: str, way: Host | Jump, host: Host) -> str:
        """The key that it shows: nobody logs in to a server whose key is not pinned."""
        try:
            self.reach.lines.to(replace(host, host_key=""))
        except Untrusted as error:
            if not error.shown:
                raise
            lines = self.reach.lines
            revoked = lines.revoked(host, error.shown)
            known = self.trusted.of(name, way, error.shown, user=lines.trusted(way), revoked=revoked)
            self.keys.append(replace_key(known, authority=lines.authority(host)))
            if revoked:
                raise Untrusted(
                    f"host key {fingerprint(error.shown)} is revoked ({revoked}): it is not used"
                ) from error
            return error.shown
        raise Unreachable(f"{name}: a server without a pinned key was trusted")
