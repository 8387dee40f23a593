"""The `dstack` command at a real pseudo-terminal: what a person sees, types and interrupts. Waits with deadlines."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator

from tests.doubles.commands.command import DSTACK, Folder

PATIENCE = 240.0
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]|\x1b[=>]")


class Terminal:
    """`seen` is everything so far, with its escapes; `text` without them and with plain line ends."""

    def __init__(self, process: subprocess.Popen[bytes], master: int) -> None:
        self._process = process
        self._master = master
        self.seen = ""

    @property
    def text(self) -> str:
        return ESCAPES.sub("", self.seen).replace("\r\n", "\n")

    def wait_for(self, words: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while words not in self.text:
            assert time.monotonic() < deadline, f"never saw {words!r} in {self.text!r}"
            assert self._read() or words in self.text, f"it ended without {words!r}: {self.text!r}"

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    @property
    def pid(self) -> int:
        return self._process.pid

    def unechoed(self) -> None:
        """Returns once what is typed is not shown; fails where it never is so."""
        deadline = time.monotonic() + PATIENCE
        while termios.tcgetattr(self._master)[3] & termios.ECHO:
            assert time.monotonic() < deadline, "what is typed is shown"
            time.sleep(0.01)

    def interrupt(self) -> None:
        """Ctrl-C as the terminal gives it: to the foreground process group."""
        self.type("\x03")

    def ends(self) -> int:
        """The exit code, after everything was read."""
        deadline = time.monotonic() + PATIENCE
        while self._read():
            assert time.monotonic() < deadline, f"it never ended: {self.text!r}"
        return self._process.wait(timeout=PATIENCE)

    def _read(self) -> bool:
        """False once the other side is closed."""
        ready, _, _ = select.select([self._master], [], [], 0.2)
        if not ready and self._process.poll() is None:
            return True
        if not ready and not select.select([self._master], [], [], 0)[0]:  # it may have written before it ended
            return False
        try:
            data = os.read(self._master, 65536)
        except OSError as error:
            if error.errno == errno.EIO:
                return False
            raise
        self.seen += data.decode(errors="replace")
        return bool(data)


@contextlib.contextmanager
def at_terminal(
    folder: Folder, *args: str, columns: int = 100, env: dict[str, str] | None = None
) -> Iterator[Terminal]:
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))

    def own_terminal() -> None:
        os.setsid()
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        [*DSTACK, *args],
        cwd=folder.root,
        env={**folder.env, "TERM": "xterm", **(env or {})},
        stdin=slave,
        stdout=slave,
        stderr=slave,
        preexec_fn=own_terminal,
    )
    os.close(slave)
    try:
        yield Terminal(process, master)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait()
        os.close(master)
