"""Interactive sessions on this machine: the job's folder, `sh`, and a terminal where one is asked for."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import struct
import subprocess
import termios
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from reconciler.hosts.runner import Unreachable
from reconciler.hosts.session.base import Screen, SessionRefused
from reconciler.hosts.transport.local import inherited


class LocalDoor:
    """Programs run in `folder`, with what a job may have of our environment."""

    def __init__(self, folder: Path, *, environ: Mapping[str, str]) -> None:
        self._folder = folder
        self._environ = inherited(environ)

    def run(self, program: str, *, args: Sequence[str] = (), screen: Screen | None = None) -> LocalSession:
        if not self._folder.is_dir():
            raise Unreachable(f"no folder {self._folder} on this machine")
        words = ["/bin/sh", "-c", program, "sh", *args]
        return self._with_screen(words, screen) if screen else self._with_pipes(words)

    def _with_pipes(self, words: list[str]) -> LocalSession:
        process = subprocess.Popen(  # noqa: S603  (the text is ours, the arguments are quoted by nobody)
            words,
            cwd=self._folder,
            env=self._environ,
            start_new_session=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        given, out, err = (end.fileno() for end in (process.stdin, process.stdout, process.stderr) if end is not None)
        return LocalSession(process, given=given, out=out, err=err)

    def _with_screen(self, words: list[str], screen: Screen) -> LocalSession:
        master, slave = os.openpty()
        try:
            _size(master, screen)
            process = subprocess.Popen(  # noqa: S603
                ["setsid", "-c", *words],  # noqa: S607
                cwd=self._folder,
                env={**self._environ, "TERM": screen.kind},
                stdin=slave,
                stdout=slave,
                stderr=slave,
            )
        except BaseException:
            os.close(master)
            raise
        finally:
            os.close(slave)
        return LocalSession(process, given=master, out=master, err=None)

    def dial(self, port: int, *, to: str = "localhost") -> socket.socket:
        try:
            return socket.create_connection((to, port), timeout=None)
        except OSError as error:
            raise SessionRefused(f"{to}:{port}: {error.strerror or error}") from error


class LocalSession:
    """A process of ours and the ends of its streams; with a screen, `given` and `out` are the terminal's master."""

    def __init__(self, process: subprocess.Popen[bytes], *, given: int, out: int, err: int | None) -> None:
        self._process, self._given, self._out, self._err = process, given, out, err

    def read(self, size: int) -> bytes:
        return _read(self._out, size)

    def read_errors(self, size: int) -> bytes:
        return b"" if self._err is None else _read(self._err, size)

    def write(self, data: bytes) -> None:
        with suppress(OSError):
            while data:
                data = data[os.write(self._given, data) :]

    def end_input(self) -> None:
        if self._err is None:
            self.write(b"\x04")  # a terminal's end of input
        elif self._process.stdin:
            with suppress(OSError):
                self._process.stdin.close()

    def resize(self, screen: Screen) -> None:
        if self._err is None:
            with suppress(OSError):
                _size(self._given, screen)

    def wait(self) -> int:
        code = self._process.wait()
        return 128 - code if code < 0 else code

    def close(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            if self._process.poll() is None:
                os.killpg(os.getpgid(self._process.pid), signal.SIGHUP)


def _read(end: int, size: int) -> bytes:
    try:
        return os.read(end, size)
    except OSError as error:
        if error.errno in (errno.EIO, errno.EBADF):  # a terminal that nobody has open any more
            return b""
        raise


def _size(master: int, screen: Screen) -> None:
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", screen.rows, screen.columns, 0, 0))
