"""The port of a transport: one program in, its answer out, in one round trip."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol


class Reply(NamedTuple):
    """`out` is empty where it was streamed into a file. `err` is for people: its end only."""

    code: int
    out: bytes
    err: str


class Transport(Protocol):
    """A way to one host's folder. Knows nothing of jobs. Thread-safe."""

    def run(
        self,
        program: str,
        *,
        args: Sequence[str] = (),
        stdin: bytes | Path = b"",
        to: Path | None = None,
        timeout: float = 60.0,
        most: int | None = None,
    ) -> Reply:
        """Run POSIX sh text in the host's folder with `args` as $1…; a Path as stdin is streamed.

        The program text and `args` may be seen in process lists: no secret goes there.
        `to` receives stdout as a stream. An answer of more than `most` bytes is none. Raises
        `reconciler.hosts.runner.Unreachable` where no answer came, or none in `timeout` seconds: the program may
        have run.
        """
