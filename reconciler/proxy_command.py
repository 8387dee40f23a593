"""The user's own `ProxyCommand` as a connection: run by their shell, as OpenSSH runs it. What it leads to is pinned."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
from contextlib import suppress

NO_SUCH_COMMAND = (126, 127)
LAST_WORDS = 300
PATIENCE = 1.0


class ProxySocket(socket.socket):
    """Our end of its stdin and stdout. To close it ends the command."""

    def __init__(self, command: str) -> None:
        """Raises `OSError` where the shell does not start."""
        ours, theirs = socket.socketpair()
        super().__init__(fileno=ours.detach())
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115 - read after the socket was closed
        self._stopped = False
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - the user's own configuration says so
                [os.environ.get("SHELL") or "/bin/sh", "-c", f"exec {command}"],
                stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=self._complaints, start_new_session=True,
            )  # fmt: skip

    def ended(self) -> str:
        """How it ended by itself, in its own last words; "" where it did not. Also after it was closed."""
        code = self._code()
        if code is None:
            return ""
        self._complaints.seek(max(0, self._complaints.seek(0, os.SEEK_END) - LAST_WORDS))
        said = self._complaints.read().decode("utf-8", "replace").strip().splitlines()
        return f"its ProxyCommand ended with {code}{f': {said[-1]}' if said else ''}"

    @property
    def missing(self) -> bool:
        """The command itself is not on this machine."""
        return self._code() in NO_SUCH_COMMAND

    def _code(self) -> int | None:
        code = self._process.poll()
        return None if self._stopped else code

    def close(self) -> None:
        """It hears that the line is over, and ends; what is left of it a little later is killed."""
        with suppress(OSError):
            self.shutdown(socket.SHUT_RDWR)
        super().close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(PATIENCE)
        if self._process.poll() is None:
            self._stopped = True
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(PATIENCE)
