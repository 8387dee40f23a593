"""Run programs on a server over a pinned SSH connection, with their data on stdin.

The login shell may be any, and may print what it likes: the command is one quoted word that sh, csh and fish
read alike, and the answer begins behind a mark that nobody else knows.
"""

from __future__ import annotations

import re
import secrets
import shlex
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import lru_cache
from pathlib import Path
from typing import IO, NamedTuple

import paramiko

from reconciler.hosts.runner import FolderGone, Unreachable
from reconciler.hosts.ssh.connections import Line
from reconciler.hosts.transport.base import Reply

CHUNK = 64 * 1024
NOISE = 256 * 1024  # more before the mark is a flood
IN_MEMORY = 64 * 1024**2  # bytes of an answer that is kept here
ERRORS = 8 * 1024**2  # of what a program complains; the end of it is kept
IN_FILE = 256 * 1024**3  # of one that goes into a file: artifacts may be large, a disk is not endless
_SMALL = 256 * 1024  # less than a channel's window: can be sent before anything is read
# $1: the program, its awkward characters as octal escapes.
_LOADER = """'p=$1; shift; eval "$(printf %b "$p")"'"""
_AWKWARD = re.compile(r"""[^A-Za-z0-9 _+=.,:;/@%$()\[\]{}<>|&*?#^~"`-]""")


class Heard(NamedTuple):
    """An answer with the noise that came before it."""

    answer: Reply
    noise: bytes


class SshTransport:
    """`line` gives the open connection; programs run in `folder`, a sh word, below the login's home ("" is the home).

    A folder that is not there is `FolderGone`; one that cannot be entered says nothing of what is in it.
    """

    def __init__(self, line: Callable[[], Line], *, folder: str) -> None:
        self._line = line
        self._folder = folder

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
        return self.hear(program, args=args, stdin=stdin, to=to, timeout=timeout, most=most).answer

    def hear(
        self,
        program: str,
        *,
        args: Sequence[str] = (),
        stdin: bytes | Path = b"",
        to: Path | None = None,
        timeout: float = 60.0,
        most: int | None = None,
    ) -> Heard:
        """As `run`, with what the login shell said of its own. More than `most` bytes are no answer: `Unreachable`."""
        line, ends = self._line(), time.monotonic() + timeout
        mark = f"dstack-{secrets.token_hex(12)}"
        if not line.sessions.acquire(timeout=timeout):
            raise Unreachable(f"too much is under way on this host: no session came free in {timeout:g} s")
        try:
            with ExitStack() as opened:
                source = opened.enter_context(stdin.open("rb")) if isinstance(stdin, Path) else stdin
                sink = opened.enter_context(to.open("wb")) if to else None
                channel = _begun(line, command(program, mark, args=args, folder=self._folder), ends=ends)
                opened.callback(channel.close)
                _send(channel, source, ends=ends)
                most = most or (IN_FILE if to else IN_MEMORY)
                ear = _Ear(channel, mark=f"\n{mark}\n".encode(), sink=sink, most=most, ends=ends, timeout=timeout)
                return ear.hear()
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise Unreachable(f"the connection broke: {str(error).strip() or type(error).__name__}") from error
        finally:
            line.sessions.release()


def command(program: str, mark: str, *, args: Sequence[str], folder: str) -> str:
    """For any login shell. `mark`, on a line of its own, comes before the program's first byte."""
    enter = f'cd "${{HOME:-.}}" 2>/dev/null || exit 96\n{entered(folder)}' if folder else 'cd "${HOME:-.}" || exit 96\n'
    whole = (
        f"set -- {' '.join(map(shlex.quote, args))}\n"
        "unset SSH_CLIENT SSH_CONNECTION SSH_TTY SSH_AUTH_SOCK SSH_ORIGINAL_COMMAND\n"
        f"printf '\\n%s\\n' {mark}\n{enter}"
    )
    return f"exec /bin/sh -c {_LOADER} sh '{_escaped(whole)}{_constant(program)}\\0012'"


def entered(folder: str) -> str:
    """Enters `folder`, a sh word: 97 where it is proven not to be there, 96 where that cannot be told."""
    return (
        f"cd ./{folder} 2>/dev/null || {{\n"
        f'set -- ./{folder} "$@"\n'
        'if [ ! -x . ] || [ -e "$1" ] || { [ -d "${1%/*}" ] && [ ! -x "${1%/*}" ]; }; then exit 96; else exit 97; fi\n'
        "}\n"
    )


def _escaped(text: str) -> str:
    """For `printf %b`, inside single quotes of any shell: no quote, backslash, line end or `!` of its own."""
    return _AWKWARD.sub(_octal, text)


@lru_cache(maxsize=32)
def _constant(program: str) -> str:
    """Escaped: the same few programs go to every host."""
    return _escaped(program)


def _octal(found: re.Match[str]) -> str:
    return "".join(f"\\0{byte:03o}" for byte in found[0].encode("utf-8", "surrogateescape"))


def _begun(line: Line, text: str, *, ends: float) -> paramiko.Channel:
    channel = line.transport.open_session(timeout=_left(ends, most=15.0))
    channel.settimeout(_left(ends, most=15.0))
    channel.exec_command(text.encode())
    return channel


def _left(ends: float, *, most: float) -> float:
    return max(0.05, min(most, ends - time.monotonic()))


def _send(channel: paramiko.Channel, source: bytes | IO[bytes], *, ends: float) -> None:
    """What is large goes beside the reading: a program that answers meanwhile would wait for us, and we for it."""
    if isinstance(source, bytes) and len(source) <= _SMALL:
        _pour(channel, source, ends=ends)
    else:
        threading.Thread(target=_pour, args=(channel, source), kwargs={"ends": ends}, daemon=True).start()


def _pour(channel: paramiko.Channel, source: bytes | IO[bytes], *, ends: float) -> None:
    """A program may end without reading all of it, and a line may break: its exit, or none, says what came of it."""
    with suppress(OSError, EOFError, paramiko.SSHException):
        if isinstance(source, bytes):
            channel.sendall(source)
        else:
            while (block := source.read(CHUNK)) and time.monotonic() < ends:
                channel.sendall(block)
        end_input(channel)


def end_input(channel: paramiko.Channel) -> None:
    """Say that no more comes.

    The library's own way lets its thread answer the end of a quick program between making this message and sending it:
    it would then speak of a channel that is no more, for which sshd ends the whole connection, and all that runs on it.
    """
    with channel.lock:
        message = channel._send_eof()
        if message is not None:
            channel.transport._send_user_message(message)


class _Ear:
    """Reads one answer: noise up to the mark, then data, to the end."""

    def __init__(
        self, channel: paramiko.Channel, *, mark: bytes, sink: IO[bytes] | None, most: int, ends: float, timeout: float
    ) -> None:
        self._channel, self._mark, self._sink, self._ends, self._timeout = channel, mark, sink, ends, timeout
        self._most, self._errors_most = most, ERRORS
        self._noise: bytes | None = None
        self._early = b""
        self._out: list[bytes] = []
        self._err = b""

    def hear(self) -> Heard:
        while True:
            self._channel.settimeout(_left(self._ends, most=1.0))
            try:
                data = self._channel.recv(CHUNK)
            except TimeoutError:
                data = None
            self._hear_errors()
            if data:
                self._take(data)
            elif data is not None:
                break
            if time.monotonic() > self._ends:
                raise Unreachable(f"no answer in {self._timeout:g} s")
        return self._settled()

    def _hear_errors(self) -> None:
        """What is there by now. Its sender may be the quicker one: neither its time nor its size is without end."""
        while self._channel.recv_stderr_ready() and time.monotonic() < self._ends:
            data = self._channel.recv_stderr(CHUNK)
            self._err = (self._err + data)[-4000:]
            self._errors_most -= len(data)
            if self._errors_most < 0:
                raise Unreachable("it floods the answer: its errors have no end")

    def _take(self, data: bytes) -> None:
        if self._noise is None:
            self._early += data
            before, found, data = self._early.partition(self._mark)
            if not found:
                if len(self._early) > NOISE:
                    raise Unreachable("its login shell floods the answer: a non-interactive shell must print nothing")
                return
            self._noise, self._early = before, b""
        self._most -= len(data)
        if self._most < 0:
            raise Unreachable("it floods the answer: more comes than any answer has")
        if self._sink is None:
            self._out.append(data)
        else:
            self._sink.write(data)

    def _settled(self) -> Heard:
        if not self._channel.status_event.wait(_left(self._ends, most=15.0)):
            raise Unreachable("the connection broke before the program's end was told")
        self._hear_errors()
        code, err = self._channel.exit_status, self._err[-2000:].decode("utf-8", "replace").strip()
        if code == -1:
            raise Unreachable("the connection broke, or the program was killed")
        if self._noise is None:
            said = (self._early.decode("utf-8", "replace").strip() or err)[-200:]
            raise Unreachable(f"its login shell ran nothing: it ended with {code}{f': {said}' if said else ''}")
        if code == 97:
            raise FolderGone("our folder there is gone")
        if code == 96:
            raise Unreachable("our folder there cannot be entered")
        return Heard(Reply(code, b"".join(self._out), err), self._noise)
