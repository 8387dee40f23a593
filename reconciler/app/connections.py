"""Connect to a project's places and hosts."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from reconciler.state.status import alive, here

if TYPE_CHECKING:
    from backends.base import Backend
    from backends.boot.spec import Boot
    from reconciler.app.site import Site
    from reconciler.hosts.ssh.declared_hosts import SshReach
    from reconciler.hosts.transport.base import Transport
    from schemas.desired import BackendConfig
    from schemas.instance import Instance


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What a backend may know of us (`backends.base.Setting`)."""

    project: str
    lineage: str
    state_address: str
    now: Callable[[], float]
    boot: Callable[[str], Boot]
    reach: object = None


def connector(
    site: Site,
    *,
    address: str,
    environ: Mapping[str, str] | None = None,
    reach: SshReach | None = None,
    now: Callable[[], float] = time.time,
) -> Callable[[BackendConfig, str, str], Backend]:
    """`connect(config, region, lineage)` of `Ports`. Without `environ` nothing can be launched: no key is made."""
    from backends.registry import connect

    def connected(config: BackendConfig, region: str, lineage: str) -> Backend:
        around = surroundings(site, lineage=lineage, address=address, environ=environ, reach=reach, now=now)
        return connect(config, region, around)

    return connected


def surroundings(
    site: Site,
    *,
    lineage: str,
    address: str,
    environ: Mapping[str, str] | None = None,
    reach: SshReach | None = None,
    now: Callable[[], float] = time.time,
) -> Surroundings:
    """What a backend may know here. Without `environ` nothing can be launched."""
    return Surroundings(
        project=site.project,
        lineage=lineage,
        state_address=address,
        now=now,
        reach=reach,
        boot=_booter(site, environ=environ),
    )


def transports(environ: Mapping[str, str], reach: SshReach) -> Callable[[Instance], Transport]:
    """The way to an instance's host. On this machine its address is a folder."""

    def transport(instance: Instance) -> Transport:
        if here(instance):
            from reconciler.hosts.transport.local import LocalTransport

            return LocalTransport(Path(instance.address), environ=environ)
        if (started := reach.by_program(instance, environ)) is not None:
            return started
        from reconciler.hosts.transport.ssh import SshTransport

        line, folder = reach.host_of(instance)
        return SshTransport(line, folder=folder)

    return transport


def _booter(site: Site, *, environ: Mapping[str, str] | None) -> Callable[[str], Boot]:
    def boot(launch: str) -> Boot:
        from backends.errors import LackingHere
        from reconciler.hosts.boot_keys import boot_of
        from reconciler.secrets.project_key import KeyRefused, project_key

        try:
            mint = environ is not None and not _has_machines(site)
            return boot_of(project_key(site.keys, environ=environ or {}, mint=mint), launch)
        except KeyRefused as error:
            raise LackingHere(f"no key for machines: {error}") from error

    return boot


def _has_machines(site: Site) -> bool:
    """Some were made already, with a key: another one would open none of them, nor would theirs open what it makes."""
    from reconciler.app.stores import store_of

    if (site.keys / "project.key").exists():
        return False
    state, _ = store_of(site).read()
    clouds = {place.name for place in state.places if place.config.traits.bought} if state else set()
    return state is not None and any(alive(one) and one.place in clouds for one in state.instances)
