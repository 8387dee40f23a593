"""Open sessions on the host of a run, as whoever runs the command reaches it."""

from __future__ import annotations

import os

from reconciler.app.site import Site
from reconciler.hosts.session.base import SessionOpener
from reconciler.hosts.session.open import open_door
from reconciler.hosts.ssh.declared_hosts import SshReach, reach_from
from reconciler.system.process import who
from schemas.instance import Instance


def reach_of(where: Site) -> SshReach:
    """The connections of the project, for all that one command asks of its hosts."""
    return reach_from(where.root, who=who(), environ=os.environ)


def door_to(host: Instance, *, where: Site, reach: SshReach | None = None) -> SessionOpener:
    """No connection is made before the first session. `reach`: whose connections are shared."""
    return open_door(host, reach=reach or reach_of(where), environ=os.environ)
