"""`dstack` processes without the quarter of a second that Python needs to begin: forks of one that has imported it all.

Each is a process of its own, with its own id, folder, environment and descriptors, that signals end like any other;
only the imports were done before. Where those are the matter (`test_cli`, `test_speed`, the examples), and where the
environment says something to Python itself, a test starts `DSTACK` instead.

    python warm.py FD      answers on that socket: one message and four descriptors for each process
"""

from __future__ import annotations

import array
import atexit
import contextlib
import functools
import gc
import importlib
import io
import json
import os
import pkgutil
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NoReturn

ROOT = Path(__file__).parents[3]
MODULE = "reconciler.cli.main"
# Used by some command, and slow to import.
BESIDE = ("typer.main", "rich.table", "rich.console", "ruamel.yaml", "jsonschema", "fabric", "obstore.store")
FOR_PYTHON = ("PYTHON", "LANG", "LC_", "TZ", "LD_")
LIMIT = 1 << 20


def like_ours(env: Mapping[str, str]) -> bool:
    """Whether what this environment says to Python itself is what the forked one was told."""
    ours = {**os.environ, "PYTHONPATH": str(ROOT)}
    return all(env.get(name) == ours.get(name) for name in {*env, *ours} if name.startswith(FOR_PYTHON))


class Started:
    """As `subprocess.Popen` is used: `returncode` is None while it lives. `stdout`, `stderr`: None unless a pipe."""

    def __init__(self, line: socket.socket, stdout: BinaryIO | None, stderr: BinaryIO | None) -> None:
        self._line, self.stdout, self.stderr = line, stdout, stderr
        self.returncode: int | None = None
        self.pid = int(line.recv(64))

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            self._line.settimeout(max(timeout, 0.0001) if timeout is not None else None)
            try:
                told = self._line.recv(64)
            except TimeoutError:
                raise subprocess.TimeoutExpired("dstack", timeout or 0) from None
            assert told, "the process that forks them ended"
            self.returncode = os.waitstatus_to_exitcode(int(told))
            self._line.close()
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[bytes, bytes]:
        """Both pipes to their ends, whoever holds them, then the end of the process."""
        ends = time.monotonic() + (timeout if timeout is not None else 86400)
        said: dict[BinaryIO, list[bytes]] = {pipe: [] for pipe in (self.stdout, self.stderr) if pipe}
        with selectors.DefaultSelector() as ready:
            for pipe in said:
                ready.register(pipe, selectors.EVENT_READ)
            while ready.get_map():
                for key, _ in ready.select(max(0.0, ends - time.monotonic())):
                    data = os.read(key.fd, 1 << 16)
                    said[key.fileobj].append(data)  # type: ignore[index]
                    if not data:
                        ready.unregister(key.fileobj)
                if time.monotonic() > ends and ready.get_map():
                    raise subprocess.TimeoutExpired("dstack", timeout or 0)
        self.wait(max(0.0, ends - time.monotonic()))
        for pipe in said:
            pipe.close()
        out, err = (b"".join(said.get(pipe, [])) if pipe else b"" for pipe in (self.stdout, self.stderr))
        return out, err

    def send_signal(self, number: int) -> None:
        """By the one that has not yet taken its end: never to another process of the same number."""
        if self.poll() is None:
            with contextlib.suppress(OSError):
                self._line.send(str(int(number)).encode())

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


def start(
    args: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    stdin: int = subprocess.DEVNULL,
    stdout: int = subprocess.PIPE,
    stderr: int = subprocess.PIPE,
    module: str = MODULE,
) -> Started:
    """`dstack ARGS`, or the `main` of another module, begun. The streams are descriptors, `PIPE` or `DEVNULL`."""
    mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with contextlib.ExitStack() as opened:
        opened.callback(theirs.close)
        given, kept = [], []
        for wanted, mode in ((stdin, os.O_RDONLY), (stdout, os.O_WRONLY), (stderr, os.O_WRONLY)):
            reads, fd = _stream(wanted, mode)
            if fd != wanted:
                opened.callback(os.close, fd)
            given.append(fd)
            kept.append(reads)
        said = json.dumps({"module": module, "args": list(args), "cwd": str(cwd), "env": dict(env)}).encode()
        _forking().send(said, [*given, theirs.fileno()])
    return Started(mine, kept[1], kept[2])


def _stream(wanted: int, mode: int) -> tuple[BinaryIO | None, int]:
    """What we read, and the descriptor for the process."""
    if wanted == subprocess.DEVNULL:
        return None, os.open(os.devnull, mode)
    if wanted != subprocess.PIPE:
        return None, wanted
    reads, writes = os.pipe()
    return open(reads, "rb", buffering=0), writes


class _Forking:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LIMIT)
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno())],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        atexit.register(self._end)

    def send(self, said: bytes, descriptors: list[int]) -> None:
        with self._lock:
            socket.send_fds(self._line, [said], descriptors)

    def _end(self) -> None:
        self._line.close()
        self._process.wait(10)


@functools.cache
def _forking() -> _Forking:
    """One for this process, begun when first wanted, ended with it."""
    return _Forking()


# ---------------------------------------------------------------- the one that forks


def serve(line: socket.socket) -> None:
    """Until nobody is left to ask."""
    _import_all()
    ends, wakes = socket.socketpair()
    for each in (ends, wakes):
        each.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakes.fileno())
    living: dict[int, socket.socket] = {}
    with selectors.DefaultSelector() as ready:
        ready.register(line, selectors.EVENT_READ)
        ready.register(ends, selectors.EVENT_READ)
        while True:
            for key, _ in ready.select():
                if key.fileobj is ends:
                    ends.recv(4096)
                elif key.fileobj is not line:
                    _signalled(key.fileobj, ready, living)  # type: ignore[arg-type]
                elif not _forked(line, ready, living):
                    return
            _reap(ready, living)


def _import_all() -> None:
    sys.path.append(sys.path.pop(0))  # the tests' own modules shadow nothing
    for package in ("schemas", "backends", "reconciler"):
        for found in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
            importlib.import_module(found.name)
    for name in BESIDE:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()


def _forked(line: socket.socket, ready: selectors.BaseSelector, living: dict[int, socket.socket]) -> bool:
    said, ancillary, _, _ = line.recvmsg(LIMIT, socket.CMSG_LEN(4 * 4), socket.MSG_CMSG_CLOEXEC)
    if not said:
        return False
    given = array.array("i", ancillary[0][2])
    asked, whose = json.loads(said), socket.socket(fileno=given[3])
    pid = os.fork()
    if pid == 0:
        _become(asked, list(given[:3]))
    for fd in given[:3]:
        os.close(fd)
    living[pid] = whose
    whose.send(str(pid).encode())
    ready.register(whose, selectors.EVENT_READ)
    return True


def _signalled(line: socket.socket, ready: selectors.BaseSelector, living: dict[int, socket.socket]) -> None:
    said = line.recv(64)
    pid = next(one for one, its in living.items() if its is line)
    if said:
        os.kill(pid, int(said))
    else:  # whoever began it is gone, or no longer listens: it lives on, as it would
        ready.unregister(line)


def _reap(ready: selectors.BaseSelector, living: dict[int, socket.socket]) -> None:
    while living:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        line = living.pop(pid)
        with contextlib.suppress(KeyError):
            ready.unregister(line)
        with contextlib.suppress(OSError):
            line.send(str(status).encode())
        line.close()


# ---------------------------------------------------------------- the forked


def _become(asked: dict[str, object], streams: list[int]) -> NoReturn:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for fd, given in enumerate(streams):
        os.dup2(given, fd)
    os.closerange(3, 1024)
    os.chdir(str(asked["cwd"]))
    os.environ.clear()
    os.environ.update(asked["env"])  # type: ignore[call-overload]
    tempfile.tempdir = None
    time.tzset()
    sys.path.insert(0, os.getcwd())
    main = importlib.import_module(str(asked["module"]))
    sys.argv = [str(main.__file__), *asked["args"]]  # type: ignore[misc]
    sys.stdin, sys.stdout, sys.stderr = _text(0, "r"), _text(1, "w"), _text(2, "w", errors="backslashreplace")
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr  # type: ignore[misc]
    os._exit(_ended(main.main))


def _text(fd: int, mode: str, *, errors: str = "strict") -> io.TextIOWrapper:
    lines = mode == "w" and (fd == 2 or os.isatty(fd))
    made = open(fd, mode, errors=errors, closefd=False, buffering=1 if lines else -1)  # noqa: SIM115 - to the end
    assert isinstance(made, io.TextIOWrapper)
    return made


def _ended(main: Callable[[], None]) -> int:
    """Its exit code, when all is done that Python does at an exit."""
    code: object = 0
    try:
        main()
    except SystemExit as error:
        code = error.code
    except BaseException:
        traceback.print_exc()
        code = 1
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        return 120
    if isinstance(code, str):
        sys.stderr.write(f"{code}\n")
        return 1
    return int(code or 0) & 0xFF  # type: ignore[call-overload]


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
