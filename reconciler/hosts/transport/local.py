"""Run programs on this machine: in a folder, with `sh`."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO

from reconciler.hosts.runner import HostError, Unreachable
from reconciler.hosts.transport.base import Reply

# A job inherits nothing else of ours: the credentials of whoever ticks are not the run's.
INHERITED = frozenset({
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR", "LD_LIBRARY_PATH",
    "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE",
    # Which engine runs containers, and with what settings: places, no credentials.
    "DOCKER_HOST", "CONTAINERS_CONF", "CONTAINERS_STORAGE_CONF", "CONTAINERS_REGISTRIES_CONF", "XDG_RUNTIME_DIR",
})  # fmt: skip


class LocalTransport:
    """Programs run in `folder`, which must exist, in a session of their own: no Ctrl-C halves them."""

    def __init__(self, folder: Path, *, environ: Mapping[str, str]) -> None:
        self._folder = folder
        self._environ = inherited(environ)

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
        with ExitStack() as opened:
            source = opened.enter_context(stdin.open("rb")) if isinstance(stdin, Path) else None
            sink = opened.enter_context(to.open("wb")) if to else None
            process = self._begin(program, args=args, source=source, sink=sink)
            given = None if isinstance(stdin, Path) else stdin
            answer = _finish(process, given=given, timeout=timeout)
            if most is not None and len(answer.out) > most:
                raise Unreachable("it floods the answer: more comes than any answer has")
            return answer

    def _begin(
        self, program: str, *, args: Sequence[str], source: IO[bytes] | None, sink: IO[bytes] | None
    ) -> subprocess.Popen[bytes]:
        if not self._folder.is_absolute() or not self._folder.is_dir():
            raise Unreachable(f"no folder {self._folder} on this machine")
        try:
            return subprocess.Popen(  # noqa: S603  (the text is ours, the arguments are checked names)
                ["/bin/sh", "-c", program, "sh", *args],
                cwd=self._folder,
                env=self._environ,
                stdin=source or subprocess.PIPE,
                stdout=sink or subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise HostError(f"sh did not start on this machine: {error}") from error


def inherited(environ: Mapping[str, str]) -> dict[str, str]:
    """What of our environment a program there has."""
    return {name: value for name, value in environ.items() if name in INHERITED or name[:3] == "LC_"}


def _finish(process: subprocess.Popen[bytes], *, given: bytes | None, timeout: float) -> Reply:
    with process:
        try:
            out, err = process.communicate(given, timeout=timeout)
        except BaseException as error:
            # Interrupted just after it ended, there is nobody left to kill.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                raise Unreachable(f"no answer from this machine in {timeout:g} s") from error
            raise
    return Reply(process.returncode, out or b"", err[-2000:].decode("utf-8", "replace").strip())
