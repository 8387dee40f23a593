"""Store a declared SSH host as the configuration of a place. Pure."""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from schemas.backend_types import SSH
from schemas.desired import BackendConfig
from schemas.host import Host
from schemas.instance import Instance


def config_of(host: Host) -> BackendConfig:
    """What `backends.ssh.backend` connects by, and a place remembers: also once the host is not configured any more."""
    return BackendConfig(name=SSH.name, type=SSH.name, options={"host": msgspec.to_builtins(host)})


def host_of(config: BackendConfig) -> Host | None:
    """The declared server that a place is; `None` for any other place."""
    return msgspec.convert(config.options["host"], Host) if config.is_server and "host" in config.options else None


def as_server(instance: Instance, config: BackendConfig) -> Instance:
    """An instance in that place: a declared server stays, however idle or old."""
    host = host_of(config)
    if host is None:
        return instance
    return replace(
        instance,
        name=host.name,
        origin="declared",
        blocks=host.blocks,
        host=host,
        idle_duration=None,
        idle_source="declared host",
        max_lifetime=None,
    )
