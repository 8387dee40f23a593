"""Ports of this machine's loopback for servers of the tests. None is given twice while whoever took it lives.

A port that is free now may be taken before its server listens: by another worker, or another suite at the same time.
So each is held by a name in the kernel's own table, which is as wide as the ports are and forgets the dead.
"""

from __future__ import annotations

import random
import socket
from contextlib import closing

# Below those that the kernel gives to clients.
LOWEST, HIGHEST = 11_000, 31_000
_HELD: list[socket.socket] = []


def free_port() -> int:
    return free_ports(1)[0]


def free_ports(number: int) -> list[int]:
    start, span = random.SystemRandom().randrange(LOWEST, HIGHEST), HIGHEST - LOWEST
    ports: list[int] = []
    for offset in range(span):
        port = LOWEST + (start - LOWEST + offset) % span
        if _ours(port):
            ports.append(port)
        if len(ports) == number:
            return ports
    raise AssertionError(f"{len(ports)} of {number} ports are free")


def _ours(port: int) -> bool:
    """Held from here to the end of this process, where nobody holds it or listens there."""
    name = socket.socket(socket.AF_UNIX)
    try:
        name.bind(f"\0dstack-tests-port-{port}")
        with closing(socket.socket()) as tried:
            tried.bind(("127.0.0.1", port))
    except OSError:
        name.close()
        return False
    _HELD.append(name)
    return True
