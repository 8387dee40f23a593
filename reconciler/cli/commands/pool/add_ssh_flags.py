"""Parse the arguments of `dstack pool add-ssh` into hosts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from socket import AF_INET, AF_INET6
from typing import Any

from msgspec.structs import replace

from reconciler.cli.exits import Fail
from reconciler.cli.terminal.streams import say
from reconciler.config.compile.hosts import gpu_need, name_of
from reconciler.hosts.ssh.config import Here, Hop, read_jump
from reconciler.hosts.ssh.destination import NotADestination, ParsedDestination, read_destination
from schemas.base import NAME
from schemas.desired import Desired
from schemas.host import Host, Jump
from schemas.pool import Pool

_FAMILIES: Mapping[str, int] = {"-4": AF_INET, "-6": AF_INET6}


@dataclass(frozen=True, kw_only=True)
class AddSshAsk:
    """The flags, as typed."""

    destinations: tuple[str, ...]
    identity: str = ""
    port: int | None = None
    login: str = ""
    options: tuple[str, ...] = ()
    ssh_flags: tuple[str, ...] = ()
    jump: str = ""
    config: Path | None = None
    region: str = ""
    pool: str = ""
    name: str = ""
    network: str = ""
    host_key: str = ""
    take_over: bool = False
    yes: bool = False

    @property
    def family(self) -> int:
        """By which addresses this command connects: those of `-4` or `-6`, as ssh the last; 0 for either."""
        said = [one for one in self.ssh_flags if one in _FAMILIES]
        return _FAMILIES[said[-1]] if said else 0


def hosts_of(flags: AddSshAsk, desired: Desired, *, pool: str, shared: Mapping[str, Any]) -> list[Host]:
    """One a destination. `shared` is what the `ssh` of `pool` says of all its hosts."""
    if flags.name and len(flags.destinations) > 1:
        raise Fail("--name is for one destination")
    if flags.host_key and len(flags.destinations) > 1:
        raise Fail("--host-key is for one destination")
    if flags.name and not re.fullmatch(NAME, flags.name, re.ASCII):
        raise Fail(f"--name {flags.name!a}: not a name: a-z, then up to 40 of a-z, 0-9 and -")
    _say_flags(flags)
    if flags.network:
        try:
            ip_network(flags.network, strict=False)
        except ValueError as error:
            raise Fail(f"--network {flags.network!a}: not a network, such as 10.0.0.0/24") from error
    known = next((one for one in desired.pools if one.name == pool), Pool(name=pool))
    return [_host(flags, text, desired=desired, pool=known, shared=shared) for text in flags.destinations]


def _say_flags(flags: AddSshAsk) -> None:
    if flags.family:
        say(f"note: {'-4' if flags.family == AF_INET else '-6'} holds for this command; `AddressFamily` in "
            "~/.ssh/config holds for every one")  # fmt: skip
    if idle := [one for one in flags.ssh_flags if one not in _FAMILIES]:
        say(f"note: {', '.join(idle)}: no effect here, connections are dstack's own and nothing is forwarded")


def _asked(flags: AddSshAsk, text: str) -> ParsedDestination:
    try:
        return read_destination(
            text, port=flags.port, login=flags.login, identity=flags.identity, jump=flags.jump, options=flags.options
        )
    except NotADestination as error:
        raise Fail(str(error)) from error


def _host(flags: AddSshAsk, text: str, *, desired: Desired, pool: Pool, shared: Mapping[str, Any]) -> Host:
    """The declared one of that address, looked at again; else a new one with what the pool says of all of its hosts."""
    asked = _asked(flags, text)
    for one in asked.ignored:
        say(f"note: -o {one} changes nothing here: keys are pinned, connections are ours")
    port = asked.port or shared.get("port")
    mine = (asked.hostname, port or 22)
    for other in desired.pools:
        for host in other.hosts:
            if (host.hostname, host.port or 22) == mine:
                if other.name != pool.name and flags.pool:
                    raise Fail(f"{text} is declared in pool {other.name} already: a host is in one pool")
                return host
    of_all = shared.get("proxy_jump") or []
    host = Host(
        name=flags.name or name_of(asked.hostname, port),
        hostname=asked.hostname,
        port=port,
        user=asked.user or str(shared.get("user", "")),
        identity_file=_identity(asked) or str(shared.get("identity_file", "")),
        jumps=_jumps(asked) or tuple(Jump(**one) for one in ([of_all] if isinstance(of_all, dict) else of_all)),
        network=flags.network or str(shared.get("network", "")),
        region=flags.region,
        disk_floor=pool.disk_floor,
        gpu=gpu_need(pool.need),
    )
    return _resolved(host, config=flags.config) if flags.config else host


def _resolved(host: Host, *, config: Path) -> Host:
    """With what `-F` says: nobody else has that file, so it is written down."""
    if not config.is_file():
        raise Fail(f"-F {config}: no such file")
    try:
        *before, last = Here(root=Path.cwd(), home=Path.home(), config=config).hops(host)
    except ValueError as error:
        raise Fail(f"-F {config}: {error}") from error
    if any(hop.proxy for hop in (*before, last)):
        raise Fail(f"-F {config}: a ProxyCommand cannot be declared; it is honoured in ~/.ssh/config of whoever ticks")
    return replace(
        host,
        hostname=last.hostname,
        port=last.port if last.port != 22 else host.port,
        user=last.user,
        identity_file=_first(last),
        jumps=tuple(
            Jump(
                hostname=one.hostname,
                port=one.port if one.port != 22 else None,
                user=one.user,
                identity_file=_first(one),
            )
            for one in before
        ),
    )


def _first(hop: Hop) -> str:
    found = next((path for path in hop.identities if path.is_file()), None)
    return _portable(found) if found else ""


def _identity(asked: ParsedDestination) -> str:
    """A path in the home folder is written so that it is the same for everybody."""
    if not asked.identity_file:
        return ""
    path = Path(asked.identity_file).expanduser()
    return _portable(path if path.is_absolute() else Path.cwd() / path)


def _portable(absolute: Path) -> str:
    home = Path.home()
    return f"~/{absolute.relative_to(home)}" if absolute.is_relative_to(home) else str(absolute)


def _jumps(asked: ParsedDestination) -> tuple[Any, ...]:
    if not asked.jump:
        return ()
    try:
        return tuple(read_jump(one) for one in asked.jump.split(","))
    except ValueError as error:
        raise Fail(str(error)) from error
