"""The way to declared servers that `backends.ssh` asks for: our pinned lines, and errors in a backend's words."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from backends.base import BackendError, TryLater
from reconciler.runner import Unreachable, Untrusted
from schemas.host import Host

if TYPE_CHECKING:
    from backends.ssh import Said
    from reconciler.connect_ssh import Lines
    from reconciler.transport_ssh import SshTransport


def reach_from(root: Path, *, who: str, config: Path | None = None) -> SshReach:
    """With the keys and `~/.ssh/config` (or `config`) of whoever runs this; `root` is the project's folder."""

    def lines() -> Lines:
        from reconciler.connect_ssh import Lines
        from reconciler.resolve_ssh import Here

        return Lines(Here(root=root, home=Path.home(), config=config))

    return SshReach(lines, who=who)


class SshReach:
    """`lines` makes them when first needed: a plan does not pay for them. Thread-safe."""

    def __init__(self, lines: Callable[[], Lines], *, who: str) -> None:
        self._make = lines
        self._lock = threading.Lock()
        self._lines: Lines | None = None
        self.who = who

    @property
    def lines(self) -> Lines:
        with self._lock:
            if self._lines is None:
                self._lines = self._make()
            return self._lines

    @cached_property
    def rules(self) -> str:
        return files("reconciler").joinpath("host_rules.sh").read_text("utf-8")

    def transport(self, host: Host, *, folder: str = "") -> SshTransport:
        """Programs run in `folder`, below the login's home."""
        from reconciler.transport_ssh import SshTransport

        return SshTransport(lambda: self.lines.to(host), folder=folder)

    def ask(
        self, host: Host, program: str, *, args: Sequence[str] = (), stdin: bytes = b"", timeout: float = 45.0
    ) -> Said:
        from backends.ssh import Said

        try:
            heard = self.transport(host).hear(program, args=args, stdin=stdin, timeout=timeout)
            line = self.lines.to(host)
        except Untrusted as error:
            raise BackendError(f"quarantined: {error}") from error
        except Unreachable as error:
            raise TryLater(str(error)) from error
        answer = heard.answer
        return Said(answer.code, answer.out, answer.err, heard.noise, line.host_key, line.steps)
