"""Open a socket to a server: by the address family, from the address or interface, that the user's ssh_config names."""

from __future__ import annotations

import socket
from contextlib import suppress

from reconciler.hosts.ssh.config import Hop


def dialled(hop: Hop, *, timeout: float) -> socket.socket:
    """Its addresses in turn, each for `timeout` seconds. Raises `OSError`, `socket.gaierror`, `UnicodeError`."""
    failure: OSError | None = None
    for family, kind, protocol, _, address in _addresses(hop.hostname, hop.port, hop.own.family):
        try:
            return _connected(hop, family, kind, protocol, address, timeout=timeout)
        except OSError as error:
            failure = error
    raise failure or OSError(f"no address for {hop.hostname}")


def _connected(
    hop: Hop, family: int, kind: int, protocol: int, address: tuple[object, ...], *, timeout: float
) -> socket.socket:
    sock = socket.socket(family, kind, protocol)
    try:
        sock.settimeout(timeout)
        if hop.own.interface:
            if not hasattr(socket, "SO_BINDTODEVICE"):
                raise OSError("BindInterface of the ssh_config is not supported on this system")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, hop.own.interface.encode() + b"\0")
        if hop.own.bind:
            sock.bind(_addresses(hop.own.bind, 0, family)[0][4])
        sock.connect(address)
    except BaseException:
        with suppress(OSError):
            sock.close()
        raise
    return sock


def _addresses(name: str, port: int, family: int) -> list[tuple[int, int, int, str, tuple[object, ...]]]:
    return socket.getaddrinfo(name, port, family, socket.SOCK_STREAM)  # type: ignore[return-value]
