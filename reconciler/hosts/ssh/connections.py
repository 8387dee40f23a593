"""Pool SSH connections: pinned keys only, each opened once and reused. Nothing is forwarded.

A key that is not the pinned one is refused, on every jump too. What fails on our side (no key,
no route, no jump) is told apart from what fails on theirs: it counts against nobody.
"""

from __future__ import annotations

import errno
import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import fabric
import paramiko

from reconciler.hosts.runner import Unreachable, Untrusted
from reconciler.hosts.ssh.ask_ssh import NoWay
from reconciler.hosts.ssh.config import Here, Hop
from reconciler.hosts.ssh.dial import dialled
from reconciler.hosts.ssh.login_keys import keyed
from reconciler.hosts.ssh.pinned import Patience, Pinned, changed, failed, refused_login, silent, speaks, text_of, words
from reconciler.hosts.ssh.proxy_command import NO_SUCH_COMMAND, Tunnel, open_tunnel, proxied
from schemas.host import Host, Jump, fingerprint

AT_ONCE = 48  # key exchanges and logins; each costs CPU here
DIALLED = 512  # that wait for a server to answer and greet: a silent one costs a thread and a socket
PER_HOST = 8  # a server allows ten sessions a connection unless told otherwise
AGAIN, LATER = 3.0, 30.0  # a failure answers for whoever asks so soon after it; each further one twice as long
KEEPALIVE = 15
# What it has to say of a failure is in the exception, which we put into words.
logging.getLogger("paramiko").addHandler(logging.NullHandler())
logging.getLogger("paramiko").propagate = False
_NO_ROUTE = frozenset({errno.ENETUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL})


class Line:
    """An open connection, and how long each step of it took (`steps`, in seconds)."""

    def __init__(self, transport: paramiko.Transport, *, steps: dict[str, float]) -> None:
        self.transport = transport
        self.steps = steps
        self.sessions = threading.BoundedSemaphore(PER_HOST)

    @property
    def host_key(self) -> str:
        """`ssh-ed25519 AAAA…`, as the server showed it."""
        shown = self.transport.get_remote_server_key()
        return f"{shown.get_name()} {shown.get_base64()}"


@dataclass(kw_only=True)
class _Slot:
    """One server by one way. Whoever holds `lock` connects; the others wait for what comes of it."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    line: Line | None = None
    failure: Unreachable | None = None
    failed_at: float = 0.0
    failures: int = 0


class Lines:
    """Every open connection of this process. Thread-safe. `at_once` logins may be under way."""

    def __init__(self, here: Here, *, patience: Patience | None = None, at_once: int = AT_ONCE) -> None:
        self._here = here
        self._patience = patience or Patience()
        self._slots: dict[tuple[Hop, ...], _Slot] = {}
        self._lock = threading.Lock()
        self._dialling = threading.BoundedSemaphore(DIALLED)
        self._logging_in = threading.BoundedSemaphore(at_once)
        # Without files: neither the user's fabric settings nor their ssh_config decide what is trusted or forwarded.
        self._config = fabric.Config(lazy=True, ssh_config=paramiko.SSHConfig())

    def to(self, host: Host) -> Line:
        """Raises `Unreachable`, or `Untrusted` for a key that is not the pinned one."""
        try:
            hops = self._here.hops(host)
        except NoWay as error:
            raise Unreachable(f"not visible from here: {error}", ours=True) from error
        return self.through(hops)

    def jump(self, jump: Jump) -> tuple[Hop, ...]:
        """Raises `Unreachable` where this user's configuration leads nowhere."""
        try:
            return self._here.jump(jump)
        except NoWay as error:
            raise Unreachable(f"not visible from here: {error}", ours=True) from error

    def trusted(self, way: Host | Jump) -> tuple[str, ...]:
        """Keys of it in this user's own known_hosts files."""
        return self._here.trusted(way)

    def revoked(self, way: Host, key: str) -> str:
        """Where that key of it is revoked; "" where it is not."""
        return self._here.revoked(self._here.hops(way)[-1], key)

    def authority(self, way: Host) -> str:
        """Where a certificate authority is trusted for it; ""."""
        return self._here.by_authority(self._here.hops(way)[-1])

    def unsupported(self, host: Host) -> tuple[str, ...]:
        """Directives of this user's configuration that hold on the way there and are not supported."""
        return tuple(dict.fromkeys(name for hop in self._here.hops(host) for name in hop.own.unsupported))

    def close(self) -> None:
        for slot in self._slots.values():
            if slot.line is not None:
                # It says goodbye on its way there, which may be a jump's line that is closed already.
                with suppress(OSError, EOFError, paramiko.SSHException):
                    slot.line.transport.close()

    def through(self, hops: tuple[Hop, ...]) -> Line:
        """As `to`, by a way that is known already."""
        with self._lock:
            slot = self._slots.setdefault(hops, _Slot())
        with slot.lock:
            if slot.line is not None and slot.line.transport.is_active():
                return slot.line
            wait = min(LATER, AGAIN * 2.0 ** (slot.failures - 1))
            if slot.failure is not None and time.monotonic() - slot.failed_at < wait:
                raise slot.failure
            try:
                slot.line, slot.failure, slot.failures = self._open(hops), None, 0
            except Unreachable as error:
                slot.line, slot.failure, slot.failed_at = None, error, time.monotonic()
                slot.failures += 1
                raise
            return slot.line

    def _open(self, hops: tuple[Hop, ...]) -> Line:
        """The way to the last jump first; what fails there is our side, not the host's."""
        *before, hop = hops
        if hop.fault:
            raise Unreachable(f"not visible from here: {hop.who}{hop.fault}", ours=True)
        if hop.key and (where := self._here.revoked(hop, hop.key)):
            raise Untrusted(f"{hop.who}host key {fingerprint(hop.key)} is revoked ({where}): it is not used")
        outer = None
        if before:
            try:
                outer = self.through(tuple(before))
            except Untrusted:
                raise
            except Unreachable as error:
                if error.ours:
                    raise
                raise Unreachable(f"not visible from here: {error}", ours=True) from error
        if not hop.login and not keyed(hop):
            raise Unreachable(f"not visible from here: no key {hop.identities[0]} on this machine", ours=True)
        return self._dialled(hop, outer)

    def _dialled(self, hop: Hop, outer: Line | None) -> Line:
        """Whoever is silent keeps nobody else from logging in: that turn is taken when the greeting is there."""
        with self._turn(self._dialling, "connections"):
            began = time.monotonic()
            sock = self._way(hop, outer)
            try:
                self._greeted(hop, sock)
            except BaseException:
                sock.close()
                raise
            steps = {"reachable": time.monotonic() - began}
        try:
            with self._turn(self._logging_in, "logins"):
                return self._logged_in(hop, sock, steps=steps)
        except BaseException:
            sock.close()
            raise

    @contextmanager
    def _turn(self, places: threading.BoundedSemaphore, what: str) -> Iterator[None]:
        if not places.acquire(timeout=self._patience.turn):
            why = f"too many {what} are under way on this machine: no turn came in {self._patience.turn:g} s"
            raise Unreachable(f"not visible from here: {why}", ours=True)
        try:
            yield
        finally:
            places.release()

    def _greeted(self, hop: Hop, sock: socket.socket | paramiko.Channel) -> None:
        """Returns once it says something, or hangs up: what that is, the library reads."""
        if not speaks(sock, ends=time.monotonic() + self._patience.banner):
            raise Unreachable(silent(hop, self._patience))

    def _way(self, hop: Hop, outer: Line | None) -> socket.socket | paramiko.Channel:
        if hop.tunnel:
            return self._tunnelled(hop)
        if outer:
            return self._through(outer, hop)
        return _proxied(hop) if hop.proxy else self._straight(hop)

    def _tunnelled(self, hop: Hop) -> socket.socket:
        """Its program's own words are better than what comes of a connection that says nothing."""
        tunnel = open_tunnel(hop.tunnel, needs=hop.needs, environment=hop.environment)
        if speaks(tunnel, ends=time.monotonic() + self._patience.tunnel):
            with suppress(OSError):
                if tunnel.recv(1, socket.MSG_PEEK):
                    return tunnel
        _, said = tunnel.came_to()
        why = said or "it says nothing"
        raise Unreachable(f"not visible from here: {' '.join(hop.tunnel[:2])}: {why}", ours=True)

    def _straight(self, hop: Hop) -> socket.socket:
        patience = hop.own.timeout or self._patience.dial
        try:
            sock = dialled(hop, timeout=patience)
        except TimeoutError as error:
            why = f"{hop.who}{hop.at} does not answer within {patience:g} s"
            raise Unreachable(why) from error
        except (socket.gaierror, UnicodeError) as error:
            said = error.strerror if isinstance(error, socket.gaierror) else "no such name can be"
            raise Unreachable(f"not visible from here: no address for {hop.hostname} ({said})", ours=True) from error
        except OSError as error:
            ours = error.errno in _NO_ROUTE
            why = f"{'not visible from here: ' if ours else ''}{hop.who}{hop.at}: {error.strerror or error}"
            raise Unreachable(why, ours=ours) from error
        with suppress(OSError, AttributeError):  # Linux: a cut line is noticed while somebody waits on it
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(self._patience.silence * 1000))
        return sock

    def _through(self, outer: Line, hop: Hop) -> socket.socket | paramiko.Channel:
        try:
            return outer.transport.open_channel(
                "direct-tcpip", (hop.hostname, hop.port), ("", 0), timeout=self._patience.dial
            )
        except (paramiko.SSHException, EOFError, OSError) as error:
            if not outer.transport.is_active():
                raise Unreachable("not visible from here: the jump hung up", ours=True) from error
            raise Unreachable(f"{hop.who}{hop.at} does not answer its jump: {words(error)}") from error

    def _logged_in(self, hop: Hop, sock: socket.socket | paramiko.Channel, *, steps: dict[str, float]) -> Line:
        began = time.monotonic()
        authority = "" if hop.key else self._here.by_authority(hop)
        connection = Pinned(hop, sock, config=self._config, patience=self._patience, authority=authority)
        try:
            connection.open()
        except paramiko.BadHostKeyException as error:
            raise Untrusted(changed(hop, error.key), shown=text_of(error.key)) from error
        except paramiko.PasswordRequiredException as error:
            why = f"not visible from here: {hop.who}the key is locked: `ssh-add` it"
            raise Unreachable(why, ours=True) from error
        except paramiko.AuthenticationException as error:
            raise refused_login(hop, error) from error
        except (paramiko.SSHException, EOFError, OSError) as error:
            if hop.proxy and isinstance(sock, Tunnel) and (ended := _proxy_ended(hop, sock)):
                raise ended from error
            raise failed(hop, error, patience=self._patience) from error
        transport = connection.transport
        transport.set_keepalive(KEEPALIVE)
        return Line(transport, steps={**steps, "login": time.monotonic() - began})


def _proxied(hop: Hop) -> Tunnel:
    try:
        return proxied(hop.proxy)
    except OSError as error:
        raise Unreachable(f"not visible from here: {hop.who}its ProxyCommand: {error}", ours=True) from error


def _proxy_ended(hop: Hop, tunnel: Tunnel) -> Unreachable | None:
    """In its own last words; `None` where it went on."""
    code, said = tunnel.came_to()
    if code is None:
        return None
    ours = code in NO_SUCH_COMMAND
    why = f"its ProxyCommand ended with {code}{f': {said}' if said else ''}"
    return Unreachable(f"{'not visible from here: ' if ours else ''}{hop.who}{why}", ours=ours)
