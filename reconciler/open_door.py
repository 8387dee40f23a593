"""The door to an instance's host: this machine, or a declared server over its pinned connection."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from reconciler.door import Door
from reconciler.reach_ssh import SshReach
from reconciler.runner import Unreachable
from schemas.instance import Instance


def open_door(instance: Instance, *, reach: SshReach, environ: Mapping[str, str]) -> Door:
    """Nothing is connected yet."""
    host = instance.host
    if host is not None:
        from reconciler.door_ssh import SshDoor

        return SshDoor(lambda: reach.lines.to(host), folder=f"{host.folder}/host")
    if "/" not in instance.address:
        raise Unreachable(f"{instance.name}: hosts elsewhere are not supported yet", ours=True)
    from reconciler.door_local import LocalDoor

    return LocalDoor(Path(instance.address), environ=environ)
