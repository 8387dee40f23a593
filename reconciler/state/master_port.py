"""Choose the port on which the nodes of an attempt find their master. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Collection

PORTS = range(20000, 30000)  # below those that systems give out by themselves


def master_port(attempt: str, *, taken: Collection[int] = ()) -> int:
    """Another one for each attempt, and none of those `taken`, as long as there are others."""
    first = int(hashlib.sha256(attempt.encode()).hexdigest()[:8], 16)
    if PORTS[first % len(PORTS)] not in taken:
        return PORTS[first % len(PORTS)]
    ports = (PORTS[(first + step) % len(PORTS)] for step in range(len(PORTS)))
    return next((port for port in ports if port not in taken), PORTS[first % len(PORTS)])
