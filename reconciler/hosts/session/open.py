"""Open a session on an instance's host: on this machine, or over its pinned connection."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from reconciler.hosts.runner import Unreachable
from reconciler.hosts.session.base import SessionOpener
from reconciler.hosts.ssh.declared_hosts import SshReach
from reconciler.state.status import here
from schemas.instance import Instance


def open_door(instance: Instance, *, reach: SshReach, environ: Mapping[str, str]) -> SessionOpener:
    """Nothing is connected yet."""
    if here(instance):
        from reconciler.hosts.session.local import LocalDoor

        return LocalDoor(Path(instance.address), environ=environ)
    if reach.program(instance) is not None:
        raise Unreachable(
            f"{instance.name} has no SSH server: `connect: {instance.way.name}` runs jobs only", ours=True
        )
    from reconciler.hosts.session.ssh import SshDoor

    line, folder = reach.host_of(instance)
    return SshDoor(line, folder=folder)
