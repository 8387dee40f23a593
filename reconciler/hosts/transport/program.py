"""Run programs on a host through a command that starts them there, such as `kubectl exec` or `srun`.

There is no SSH server on such a host. The command gets the program as its last arguments, `sh -c TEXT sh ARGS`, with
the data on its stdin. Its own exit code proves nothing, since it is the same where the command itself failed: a mark
on stdout tells where the answer begins, and another on stderr, with the program's exit code, that it is complete.
"""

from __future__ import annotations

import os
import secrets
import selectors
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO

from reconciler.hosts.runner import FolderGone, Unreachable
from reconciler.hosts.transport.base import Reply
from reconciler.hosts.transport.ssh import CHUNK, ERRORS, IN_FILE, IN_MEMORY, NOISE
from schemas.access import Access

_TAIL = 4000
_OUTER = """\
mark=$1 folder=$2 program=$3
shift 3
printf '\\n%s\\n' "$mark"
outer=${folder%/*}
cd "${HOME:-.}" || folder=/nowhere/else
if [ -z "$folder" ] || cd "./$folder" 2> /dev/null; then sh -c "$program" sh "$@"; code=$?
elif [ ! -x . ] || [ -e "./$folder" ] || { [ -d "./$outer" ] && [ ! -x "./$outer" ]; }; then code=96
else code=97; fi
printf '\\n%s %s\\n' "$mark" "$code" >&2
"""


class ProgramTransport:
    """`access` names the command each time; programs run in `folder`, below the login's home ("": where it starts)."""

    def __init__(self, access: Callable[[], Access], *, folder: str, environ: Mapping[str, str]) -> None:
        self._access, self._folder, self._environ = access, folder, environ

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
        mark = f"dstack-{secrets.token_hex(12)}"
        with ExitStack() as opened:
            source = opened.enter_context(stdin.open("rb")) if isinstance(stdin, Path) else stdin
            sink = opened.enter_context(to.open("wb")) if to else None
            process = self._begun(("sh", "-c", _OUTER, "sh", mark, self._folder, program, *args))
            opened.callback(_ended, process)
            threading.Thread(target=_pour, args=(process.stdin, source), daemon=True).start()
            most = most or (IN_FILE if to else IN_MEMORY)
            ear = _Ear(process, mark=mark, sink=sink, most=most, ends=time.monotonic() + timeout, timeout=timeout)
            return ear.hear()

    def _begun(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        access = self._access()
        for name, how in access.needs:
            if shutil.which(name, path=self._environ.get("PATH")) is None:
                raise Unreachable(f"not visible from here: no `{name}` on this machine: {how}", ours=True)
        try:
            return subprocess.Popen(  # noqa: S603 - no shell in between; the argv is the backend's
                [*access.argv, *command],
                env={**self._environ, **dict(access.environment)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            why = f"{access.argv[0]}: {error.strerror or error}"
            raise Unreachable(f"not visible from here: {why}", ours=True) from error


def _ended(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of the command, its children too: its answer is there, or nobody waits for it any more."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


def _pour(pipe: IO[bytes] | None, source: bytes | IO[bytes]) -> None:
    """A program may end without reading all of it; its exit code says what came of that."""
    if pipe is None:
        return
    with suppress(OSError, ValueError):
        if isinstance(source, bytes):
            pipe.write(source)
        else:
            shutil.copyfileobj(source, pipe, CHUNK)
    with suppress(OSError, ValueError):
        pipe.close()


class _Ear:
    """Reads one answer: what the command says before the mark, the program's output, and its exit code."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        *,
        mark: str,
        sink: IO[bytes] | None,
        most: int,
        ends: float,
        timeout: float,
    ) -> None:
        self._process, self._mark, self._sink = process, mark.encode(), sink
        self._most, self._ends, self._timeout = most, ends, timeout
        self._early: bytes | None = b""
        self._out: list[bytes] = []
        self._err = b""
        self._errors_most = ERRORS

    def hear(self) -> Reply:
        with selectors.DefaultSelector() as waiting:
            for pipe, take in ((self._process.stdout, self._take), (self._process.stderr, self._take_error)):
                if pipe is not None:
                    waiting.register(pipe, selectors.EVENT_READ, take)
            while waiting.get_map():
                ready = waiting.select(max(0.0, self._ends - time.monotonic()))
                if not ready or time.monotonic() > self._ends:
                    raise Unreachable(f"no answer in {self._timeout:g} s")
                for key, _ in ready:
                    data = os.read(key.fd, CHUNK)
                    if data:
                        key.data(data)
                    else:
                        waiting.unregister(key.fileobj)
        return self._settled()

    def _take(self, data: bytes) -> None:
        if self._early is not None:
            self._early += data
            _, found, data = self._early.partition(b"\n" + self._mark + b"\n")
            if not found:
                if len(self._early) > NOISE:
                    raise Unreachable("the command floods the answer before the program begins")
                return
            self._early = None
        self._most -= len(data)
        if self._most < 0:
            raise Unreachable("it floods the answer: more comes than any answer has")
        if self._sink is None:
            self._out.append(data)
        else:
            self._sink.write(data)

    def _take_error(self, data: bytes) -> None:
        self._err = (self._err + data)[-_TAIL:]
        self._errors_most -= len(data)
        if self._errors_most < 0:
            raise Unreachable("it floods the answer: its errors have no end")

    def _settled(self) -> Reply:
        said, found, after = self._err.rpartition(b"\n" + self._mark + b" ")
        code, _, _ = after.partition(b"\n")
        if self._early is not None or not found or not code.isdigit():
            words = self._err.decode("utf-8", "replace").strip().splitlines()
            broke = "the command ran nothing" if self._early is not None else "the connection broke"
            raise Unreachable(f"{broke}: {words[-1] if words else 'it gave no reason'}")
        if int(code) == 97:
            raise FolderGone("our folder there is gone")
        if int(code) == 96:
            raise Unreachable("our folder there cannot be entered")
        return Reply(int(code), b"".join(self._out), said[-2000:].decode("utf-8", "replace").strip())
