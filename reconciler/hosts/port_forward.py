"""Forward a loopback port to a port of a job's host, for as long as this process runs."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass

from reconciler.hosts.runner import HostError
from reconciler.hosts.session.base import SessionOpener, SessionRefused
from reconciler.hosts.session.relay import splice

HERE = "127.0.0.1"


@dataclass(frozen=True, kw_only=True)
class Hearing:
    """Who hears of what happens, from any thread: `told` a line for people, `moved` that bytes went either way."""

    told: Callable[[str], object]
    moved: Callable[[int], object]


def forward(door: SessionOpener, remote: int, *, wanted: int, hearing: Hearing) -> int:
    """The local port: the wanted one, or another where that is taken or not ours to have."""
    server = _listen(wanted) or _listen(0)
    if server is None:
        raise OSError(0, "no port is free", HERE)
    threading.Thread(target=_serve, args=(_Forward(door, remote, hearing), server), daemon=True).start()
    return int(server.getsockname()[1])


def _listen(port: int) -> socket.socket | None:
    server = socket.socket()
    try:
        # Not shared with whoever still listens there; what only lingers from before does not keep us out.
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((HERE, port))
        server.listen(64)
    except (OSError, OverflowError):
        server.close()
        return None
    return server


def _serve(forward: _Forward, server: socket.socket) -> None:
    while True:
        try:
            client, _ = server.accept()
        except OSError:  # of one connection: who gave up before we took it
            continue
        threading.Thread(target=forward.serve, args=(client,), daemon=True).start()


class _Forward:
    """What goes wrong is said when it changes, not for every connection of a browser."""

    def __init__(self, door: SessionOpener, remote: int, hearing: Hearing) -> None:
        self._door, self._remote, self._hearing = door, remote, hearing
        self._lock = threading.Lock()
        self._said = ""

    def serve(self, client: socket.socket) -> None:
        try:
            stream = self._door.dial(self._remote)
        except (SessionRefused, HostError) as error:
            client.close()
            self._say(str(error))
            return
        self._say("")
        splice(client, stream, moved=self._hearing.moved)

    def _say(self, why: str) -> None:
        with self._lock:
            new, self._said = why != self._said, why
        if new and why:
            self._hearing.told(f"port {self._remote}: {why}")
