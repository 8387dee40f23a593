"""Connect through a program that speaks on its stdin and stdout: a vendor's or the user's own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress

from reconciler.hosts.runner import Unreachable
from reconciler.text.format import clean

NO_SUCH_COMMAND = (126, 127)
LAST_WORDS = 300
PATIENCE = 1.0  # seconds that it has to end by itself once the line is over


class Tunnel(socket.socket):
    """Our end of a running program. To close it ends the program and whatever it began, once; thread-safe."""

    def __init__(self, argv: Sequence[str], *, environment: Sequence[tuple[str, str]] = ()) -> None:
        """`environment` is added to ours. Raises `OSError` where it does not start."""
        ours, its = socket.socketpair()
        super().__init__(fileno=ours.detach())
        self._closing = threading.Lock()
        self._code: int | None = None
        self._said = ""
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the program
        try:
            with its:
                self._process = subprocess.Popen(  # noqa: S603 - no shell in between but the user's own
                    list(argv),
                    stdin=its.fileno(),
                    stdout=its.fileno(),
                    stderr=self._complaints,
                    env={**os.environ, **dict(environment)},
                    start_new_session=True,
                )
        except BaseException:
            self._complaints.close()
            super().close()
            raise

    def came_to(self) -> tuple[int | None, str]:
        """Its exit code, `None` where it did not end by itself, and the last line of its complaints. Closes it."""
        self.close()
        return self._code, self._said

    def close(self) -> None:
        """It hears that the line is over, and ends; what is left of it a little later is killed, its children too."""
        with self._closing:
            if self._complaints.closed:
                return
            with suppress(OSError):
                self.shutdown(socket.SHUT_RDWR)
            super().close()
            with suppress(subprocess.TimeoutExpired):
                self._code = self._process.wait(PATIENCE)
            # Its own end is not that of its group: a vendor's program leaves the one that it began behind.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(PATIENCE)
            self._said = self._last_words()
            self._complaints.close()

    def _last_words(self) -> str:
        self._complaints.seek(max(0, self._complaints.seek(0, os.SEEK_END) - LAST_WORDS))
        lines = self._complaints.read().decode("utf-8", "replace").strip().splitlines()
        return clean(lines[-1].strip()) if lines else ""


def open_tunnel(
    argv: Sequence[str], *, needs: Sequence[tuple[str, str]], environment: Sequence[tuple[str, str]] = ()
) -> Tunnel:
    """A vendor's program, no shell in between. `needs` are those that it cannot do without: `Unreachable`, ours."""
    for program, how in needs:
        if shutil.which(program) is None:
            name = program.rpartition("/")[2]
            raise Unreachable(f"not visible from here: no `{name}` on this machine: {how}", ours=True)
    try:
        return Tunnel(argv, environment=environment)
    except OSError as error:
        raise Unreachable(f"not visible from here: {argv[0]}: {error.strerror or error}", ours=True) from error


def proxied(command: str) -> Tunnel:
    """A `ProxyCommand`, run by the user's shell, as OpenSSH runs it. What it leads to is pinned. Raises `OSError`."""
    return Tunnel([os.environ.get("SHELL") or "/bin/sh", "-c", f"exec {command}"])
