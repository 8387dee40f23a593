"""An SSH server on stdio for one local client: serves what `ssh`, `scp` or an editor asks for.
happens in a job, wherever that runs. The client starts us as its ProxyCommand and speaks to us over our stdin and
stdout; it is nobody else, so it need not log in.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import paramiko

from reconciler.hosts.enter import enter, enter_sftp
from reconciler.hosts.runner import HostError
from reconciler.hosts.session.base import Screen, Session, SessionOpener, SessionRefused
from reconciler.hosts.session.relay import splice

CHUNK = 32 * 1024


def serve_ssh(door: SessionOpener, job: str, *, key: Path, given: int, out: int) -> None:
    """Returns when the client has gone. `key` is the file of our host key; `given` and `out` are file descriptors."""
    ours, theirs = socket.socketpair()
    _in_background(_copy_in, given, theirs)
    _in_background(_copy_out, theirs, out)
    transport = paramiko.Transport(ours)
    transport.add_server_key(paramiko.Ed25519Key.from_private_key_file(str(key)))
    wishes = _Wishes(door, job)
    transport.start_server(server=wishes)
    held = []  # the library forgets channels that nobody holds
    while transport.is_active():
        channel = transport.accept(0.5)
        if channel is not None:
            held.append(channel)
            wishes.opened(channel)


class _Wishes(paramiko.ServerInterface):  # type: ignore[misc]
    """What the client asks for. Each session is a program in the job, each forward a connection from its host."""

    def __init__(self, door: SessionOpener, job: str) -> None:
        self._door, self._job = door, job
        self._screens: dict[int, Screen] = {}
        self._sessions: dict[int, Session] = {}
        self._targets: dict[int, tuple[str, int]] = {}

    def get_allowed_auths(self, username: str) -> str:
        return "none"

    def check_auth_none(self, username: str) -> int:
        return int(paramiko.common.AUTH_SUCCESSFUL)

    def check_channel_request(self, kind: str, chanid: int) -> int:
        if kind == "session":
            return int(paramiko.common.OPEN_SUCCEEDED)
        return int(paramiko.common.OPEN_FAILED_UNKNOWN_CHANNEL_TYPE)

    def check_channel_direct_tcpip_request(
        self, chanid: int, origin: tuple[str, int], destination: tuple[str, int]
    ) -> int:
        self._targets[chanid] = destination
        return int(paramiko.common.OPEN_SUCCEEDED)

    def opened(self, channel: paramiko.Channel) -> None:
        """A forward begins at once; a session when it says what it wants."""
        target = self._targets.pop(channel.get_id(), None)
        if target is not None:
            _in_background(self._forward, channel, target)

    def check_channel_pty_request(
        self,
        channel: paramiko.Channel,
        term: bytes,
        width: int,
        height: int,
        pixelwidth: int,
        pixelheight: int,
        modes: bytes,
    ) -> bool:
        kind = term.decode("ascii", "replace") if isinstance(term, bytes) else str(term)
        self._screens[channel.get_id()] = Screen(kind, width, height)
        return True

    def check_channel_window_change_request(
        self, channel: paramiko.Channel, width: int, height: int, pixelwidth: int, pixelheight: int
    ) -> bool:
        session = self._sessions.get(channel.get_id())
        if session is not None:
            session.resize(Screen(columns=width, rows=height))
        return True

    def check_channel_shell_request(self, channel: paramiko.Channel) -> bool:
        return self._begin(channel, lambda: enter(self._door, self._job, screen=self._screen(channel)))

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        line = command.decode("utf-8", "surrogateescape")
        return self._begin(channel, lambda: enter(self._door, self._job, line=line, screen=self._screen(channel)))

    def check_channel_subsystem_request(self, channel: paramiko.Channel, name: str) -> bool:
        return name == "sftp" and self._begin(channel, lambda: enter_sftp(self._door, self._job))

    def _screen(self, channel: paramiko.Channel) -> Screen | None:
        return self._screens.get(channel.get_id())

    def _begin(self, channel: paramiko.Channel, begin: Callable[[], Session]) -> bool:
        """Beside the library's thread, which must answer the client first."""
        _in_background(self._serve, channel, begin)
        return True

    def _serve(self, channel: paramiko.Channel, begin: Callable[[], Session]) -> None:
        code = 255
        try:
            session = begin()
            self._sessions[channel.get_id()] = session
            code = _bridge(channel, session)
        except HostError as error:
            with suppress(OSError):
                channel.sendall_stderr(f"dstack: {error}\r\n".encode())
        finally:
            with suppress(OSError, EOFError, paramiko.SSHException):
                channel.send_exit_status(code)
                channel.shutdown_write()
            channel.close()

    def _forward(self, channel: paramiko.Channel, target: tuple[str, int]) -> None:
        try:
            stream = self._door.dial(target[1], to=target[0])
        except (SessionRefused, HostError):
            channel.close()  # the client told its own side "connected" already; a closed one is all that can follow
            return
        splice(channel, stream)


def _bridge(channel: paramiko.Channel, session: Session) -> int:
    """Its exit code, after the client has all that it said."""
    _in_background(_feed, channel, session)
    errors = _in_background(_tell_errors, channel, session)
    try:
        while data := session.read(CHUNK):
            channel.sendall(data)
        errors.join()
        return session.wait()
    except OSError:  # the client has gone
        return 255
    finally:
        session.close()


def _feed(channel: paramiko.Channel, session: Session) -> None:
    with suppress(OSError, EOFError):
        while data := channel.recv(CHUNK):
            session.write(data)
    session.end_input()
    if channel.closed or not channel.get_transport().is_active():
        session.close()


def _tell_errors(channel: paramiko.Channel, session: Session) -> None:
    with suppress(OSError, EOFError):
        while data := session.read_errors(CHUNK):
            channel.sendall_stderr(data)


def _copy_in(source: int, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := os.read(source, CHUNK):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_RDWR)


def _copy_out(source: socket.socket, sink: int) -> None:
    with suppress(OSError):
        while data := source.recv(CHUNK):
            while data:
                data = data[os.write(sink, data) :]


def _in_background(work: Callable[..., object], *args: object) -> threading.Thread:
    thread = threading.Thread(target=work, args=args, daemon=True)
    thread.start()
    return thread
