"""Compile a pool's SSH hosts: each with its pinned key and every value effective."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from reconciler.config.files import KNOWN_HOSTS
from reconciler.config.known_hosts import Known
from schemas.base import NAME, Price
from schemas.documents.pool import HostForm, PoolForm, ProxyForm, SshForm
from schemas.host import DISK_FLOOR, Host, Jump
from schemas.pool import Pool
from schemas.resources import GpuNeed, Need


def compile_hosts(form: PoolForm, *, known: Known) -> tuple[Host, ...]:
    """In the order of the document. `known` are the project's pinned keys (`.dstack/known_hosts`)."""
    ssh = form.ssh
    if ssh is None:
        return ()
    forms = [one if isinstance(one, HostForm) else HostForm(hostname=one) for one in ssh.hosts]
    return tuple(_host(one, form=form, ssh=ssh, known=known) for one in forms)


def _host(one: HostForm, *, form: PoolForm, ssh: SshForm, known: Known) -> Host:
    port = one.port or ssh.port
    jumps = one.proxy_jump or ssh.proxy_jump or ()
    blocks = one.blocks if one.blocks is not None else form.blocks
    return Host(
        name=one.name or name_of(one.hostname, port),
        hostname=one.hostname,
        port=port,
        user=one.user or ssh.user or "",
        identity_file=one.identity_file or ssh.identity_file or "",
        host_key=one.host_key or known.key_of(one.hostname, port),
        jumps=tuple(_jump(jump, known=known) for jump in jumps),
        network=one.network or ssh.network or "",
        internal_ip=one.internal_ip or "",
        region=one.region or ssh.region or "",
        price=one.price or Price(0),
        blocks=1 if blocks is None else blocks,
        disk_floor=DISK_FLOOR if form.disk_floor is None else form.disk_floor,
        gpu=gpu_need(form.resources or Need()),
    )


def _jump(form: ProxyForm, *, known: Known) -> Jump:
    return Jump(
        hostname=form.hostname,
        port=form.port,
        user=form.user or "",
        identity_file=form.identity_file or "",
        host_key=form.host_key or known.key_of(form.hostname, form.port),
    )


def gpu_need(need: Need) -> GpuNeed | None:
    """What a server without it does not satisfy."""
    return None if need.gpu is None or need.gpu.count.holds(0) else need.gpu


def name_of(hostname: str, port: int | None) -> str:
    """What a host without a name is called: `node-7-lab` for `node-7.lab`, `host-10-0-0-7` for an address."""
    text = re.sub("[^a-z0-9]+", "-", hostname.lower()).strip("-")
    if _is_address(hostname) or not re.match("[a-z]", text):
        text = f"host-{text}"
    text += f"-{port}" if port not in (None, 22) else ""
    return text if re.fullmatch(NAME, text) else text[:41].rstrip("-")


def _is_address(hostname: str) -> bool:
    try:
        ipaddress.ip_address(hostname)
    except ValueError:
        return False
    return True


def host_faults(pools: dict[str, Pool], *, known: Known) -> Iterator[tuple[str, str]]:
    """(pool, message): a server has one owner, and a revoked key is no pin."""
    for pool, first, host in _twice(pools):
        again = f"host `{host.name}` ({host.address}) is declared already, in pool `{first}`"
        yield pool, f"{again}: a host is in one pool, once"
    for each in pools.values():
        for host in each.hosts:
            ways: tuple[Host | Jump, ...] = (*host.jumps, host)
            for way in ways:
                if way.host_key and (line := known.revoked(way.host_key, way.hostname, way.port)):
                    yield each.name, f"the host_key of `{way.hostname}` is revoked by {KNOWN_HOSTS}:{line}"


def _twice(pools: dict[str, Pool]) -> tuple[tuple[str, str, Host], ...]:
    """(pool, the pool that has it already, host) of each server that is declared a second time, by name or address."""
    names: dict[str, str] = {}
    ways: dict[tuple[str, int], str] = {}
    found = []
    for pool in pools.values():
        for host in pool.hosts:
            way = (host.hostname, host.port or 22)
            first = names.get(host.name) or ways.get(way)
            if first:
                found.append((pool.name, first, host))
            names.setdefault(host.name, pool.name)
            ways.setdefault(way, pool.name)
    return tuple(found)
