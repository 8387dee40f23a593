"""Interactive sessions and ports over pinned SSH connections, also behind jumps."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress

import paramiko

from reconciler.hosts.runner import Unreachable
from reconciler.hosts.session.base import Screen, SessionRefused
from reconciler.hosts.ssh.connections import Line
from reconciler.hosts.transport.ssh import NOISE, command, end_input

DIAL = 15.0  # seconds for a session or a port to open
_BROKEN = (paramiko.SSHException, EOFError, OSError)


class SshDoor:
    """`line` and `folder` as for `SshTransport`."""

    def __init__(self, line: Callable[[], Line], *, folder: str) -> None:
        self._line = line
        self._folder = folder

    def run(self, program: str, *, args: Sequence[str] = (), screen: Screen | None = None) -> SshSession:
        line, mark = self._line(), f"dstack-{secrets.token_hex(12)}"
        try:
            channel = line.transport.open_session(timeout=DIAL)
            if screen is not None:
                channel.get_pty(screen.kind, screen.columns, screen.rows)
            channel.exec_command(command(program, mark, args=args, folder=self._folder).encode())
        except _BROKEN as error:
            raise Unreachable(f"the connection broke: {str(error).strip() or type(error).__name__}") from error
        return SshSession(channel, mark=mark.encode())

    def dial(self, port: int, *, to: str = "localhost") -> paramiko.Channel:
        line = self._line()
        try:
            return line.transport.open_channel("direct-tcpip", (to, port), ("127.0.0.1", 0), timeout=DIAL)
        except paramiko.ChannelException as error:
            if error.code == paramiko.common.OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED:
                raise SessionRefused("its sshd allows no forwarding (AllowTcpForwarding)") from error
            raise SessionRefused(f"nothing listens on port {port} there") from error
        except _BROKEN as error:
            raise Unreachable(f"the connection broke: {str(error).strip() or type(error).__name__}") from error


class SshSession:
    """Whatever the login shell said before the program began is dropped."""

    def __init__(self, channel: paramiko.Channel, *, mark: bytes) -> None:
        self._channel = channel
        self._mark: bytes | None = mark
        self._early = b""

    def read(self, size: int) -> bytes:
        while self._mark is not None:
            self._look_for(self._mark)
        if self._early:
            data, self._early = self._early[:size], self._early[size:]
            return data
        return self._received(size)

    def _look_for(self, mark: bytes) -> None:
        """With a screen its line ends with CR LF."""
        data = self._received(32768)
        if not data:
            said = self._early.decode("utf-8", "replace").strip()[-200:]
            raise Unreachable(f"its login shell ran nothing{f': {said}' if said else ''}")
        self._early += data
        _, found, after = self._early.partition(mark)
        line, ended, rest = after.partition(b"\n")
        if found and ended and not line.strip():
            self._mark, self._early = None, rest
        elif len(self._early) > NOISE:
            raise Unreachable("its login shell floods the answer: a non-interactive shell must print nothing")

    def _received(self, size: int) -> bytes:
        try:
            return bytes(self._channel.recv(size))
        except _BROKEN as error:
            raise Unreachable(f"the connection broke: {error}") from error

    def read_errors(self, size: int) -> bytes:
        try:
            return bytes(self._channel.recv_stderr(size))
        except _BROKEN:
            return b""

    def write(self, data: bytes) -> None:
        with suppress(*_BROKEN):
            self._channel.sendall(data)

    def end_input(self) -> None:
        with suppress(*_BROKEN):
            end_input(self._channel)

    def resize(self, screen: Screen) -> None:
        with suppress(*_BROKEN):
            self._channel.resize_pty(screen.columns, screen.rows)

    def wait(self) -> int:
        code = int(self._channel.recv_exit_status())
        return 255 if code == -1 else code

    def close(self) -> None:
        self._channel.close()
