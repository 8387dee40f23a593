"""A connection through a program of a cloud's vendor: it speaks to us over its stdin and stdout, as `ssh` has it do."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress

from reconciler.runner import Unreachable

NEEDS = {
    "aws": "install the AWS CLI, version 2",
    "session-manager-plugin": "install AWS's Session Manager plugin",
}


class Tunnel:
    """A running program. `socket` is our end; whoever closes it ends the program."""

    def __init__(self, argv: Sequence[str]) -> None:
        ours, its = socket.socketpair()
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  # as long as the program
        with its:
            self._process = subprocess.Popen(  # noqa: S603
                list(argv), stdin=its.fileno(), stdout=its.fileno(), stderr=self._said, start_new_session=True
            )
        self.socket = ours

    def said(self) -> str:
        """The last line of what it complained of, for people."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=1)
        self._said.seek(0)
        lines = self._said.read()[-2000:].decode("utf-8", "replace").split("\n")
        return next((ascii(line.strip())[1:-1][:300] for line in reversed(lines) if line.strip()), "")

    def close(self) -> None:
        self.socket.close()
        if self._process.poll() is None:
            self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=2)
        self._said.close()


def open_tunnel(argv: Sequence[str], *, needs: Sequence[str]) -> Tunnel:
    """Begin `argv`, no shell in between. `needs` are programs that it cannot do without: `Unreachable`, ours."""
    for program in needs:
        if shutil.which(program) is None:
            name = program.rpartition("/")[2]
            how = NEEDS.get(name, f"install {name}")
            raise Unreachable(f"not visible from here: no `{name}` on this machine: {how}", ours=True)
    try:
        return Tunnel(argv)
    except OSError as error:
        raise Unreachable(f"not visible from here: {argv[0]}: {error.strerror or error}", ours=True) from error
