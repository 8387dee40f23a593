"""The port of an interactive session on a job's host: a program with open streams, and forwarded ports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class Screen(NamedTuple):
    """A terminal to have there."""

    kind: str = "xterm"
    columns: int = 80
    rows: int = 24


class Session(Protocol):
    """A program that runs. Reading blocks; `b""` is the end. With a screen there are no separate errors."""

    def read(self, size: int) -> bytes:
        """Its output. Raises `reconciler.hosts.runner.Unreachable` where it never began."""

    def read_errors(self, size: int) -> bytes:
        """What it writes to stderr."""

    def write(self, data: bytes) -> None:
        """Its input; what nobody reads any more is dropped."""

    def end_input(self) -> None: ...

    def resize(self, screen: Screen) -> None: ...

    def wait(self) -> int:
        """Its exit code, once both outputs have ended; 255 where that is not known: the connection broke."""

    def close(self) -> None:
        """Nobody is there any more; it is told by SIGHUP, or by its closed streams."""


class Stream(Protocol):
    """A connection, as sockets have it. `shutdown(1)` ends what we send."""

    def recv(self, size: int, /) -> bytes: ...

    def sendall(self, data: bytes, /) -> object: ...

    def shutdown(self, how: int, /) -> None: ...

    def close(self) -> None: ...


class SessionOpener(Protocol):
    """A way to one host, thread-safe; a connection that broke is made anew at the next call."""

    def run(self, program: str, *, args: Sequence[str] = (), screen: Screen | None = None) -> Session:
        """Begin POSIX sh text in the host's folder with `args` as $1…, which process lists show."""

    def dial(self, port: int, *, to: str = "localhost") -> Stream:
        """Connect from the host to `to`. Raises `Unreachable`; `Refused` where nobody listens."""


class SessionRefused(Exception):
    """The host was reached, and the port was not. The message is one line for people."""
