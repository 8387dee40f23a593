"""Ask the ssh program what `~/.ssh/config` says of a host: `ssh -G`. No second parser of that file.

Names reach ssh only after `schemas.ssh_names` let them pass, since `Match exec` runs commands with them. An answer is
kept for a minute: what a `Match` says may change while a process follows a run for hours.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path

from reconciler.hosts.ssh.config_copy import ReadableCopy
from reconciler.text.format import clean
from schemas.ssh_names import host_name_fault, login_fault

PATIENCE = 20.0  # seconds for one answer: a `Match exec` of the user's own may ask the network
KEPT = 60.0
SYSTEM = Path("/etc/ssh/ssh_config")

Answer = Mapping[str, tuple[str, ...]]
"""Lower-case directive → its values, a line each, as `ssh -G` prints them."""


class NoWay(ValueError):
    """The user's configuration leads nowhere, or cannot be asked. The message says why."""


class SshProgram:
    """`config` is read instead of `~/.ssh/config` and the system's file, as by `ssh -F`. Thread-safe."""

    def __init__(
        self, *, home: Path, config: Path | None = None, program: str = "ssh", now: Callable[[], float] = time.monotonic
    ) -> None:
        self._home, self._program, self._now = home, program, now
        self._file = config or home / ".ssh" / "config"
        self._given = config is not None
        self._lock = threading.Lock()
        self._answers: dict[tuple[str, str, int], tuple[float, Future[Answer]]] = {}
        self._copy: ReadableCopy | None = None
        self._defaults: Answer | None = None

    def of(self, hostname: str, *, user: str = "", port: int = 0) -> Answer:
        """What holds for `ssh -l user -p port hostname`. Raises `NoWay`; empty where there is nothing to ask."""
        if fault := host_name_fault(hostname) or (user and login_fault(user)):
            raise NoWay(fault)
        asked, began = (hostname, user, port), self._now()
        with self._lock:
            at, answer = self._answers.get(asked, (0.0, None))
            mine = answer is None or began - at > KEPT
            if answer is None or mine:
                answer = Future()
                self._answers[asked] = (began, answer)
        if mine:
            try:
                answer.set_result(self._asked(*asked))
            except BaseException as error:
                answer.set_exception(error)
        return answer.result()

    @property
    def defaults(self) -> Answer:
        """What holds where no file says anything."""
        with self._lock:
            if self._defaults is None:
                self._defaults = self._run(["-F", "none", "--", "localhost"]) if shutil.which(self._program) else {}
            return self._defaults

    def _asked(self, hostname: str, user: str, port: int) -> Answer:
        if shutil.which(self._program) is None:
            if self._file.exists():
                what = f"there is no `{self._program}` on this machine to read {self._file}"
                raise NoWay(f"{what}: install the OpenSSH client, or declare the way in the YAML and remove the file")
            return {}
        login = ["-l", user] if user else []
        return self._run([*self._files(), *login, *(["-p", str(port)] if port else []), "--", hostname])

    def _files(self) -> list[str]:
        """ssh looks for the home folder in the password database; where `$HOME` is another one, ours holds."""
        if os.path.realpath(usual_home()) == os.path.realpath(self._home):
            return ["-F", str(self._file)] if self._given else []
        with self._lock:
            if self._copy is None:
                also = None if self._given else SYSTEM
                try:
                    self._copy = ReadableCopy(self._file, home=self._home, also=also, checked=not self._given)
                except (OSError, ValueError) as error:
                    raise NoWay(f"{self._file}: {error}") from error
            return ["-F", self._copy.name]

    def _run(self, words: Sequence[str]) -> Answer:
        """No shell in between."""
        process = subprocess.Popen(  # noqa: S603
            [self._program, "-T", "-G", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            out, err = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired as error:
            raise NoWay(f"`ssh -G {words[-1]}` took more than {PATIENCE:g} s: is a `Match exec` waiting?") from error
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            for pipe in (process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()
        if process.returncode:
            said = os.fsdecode(err).strip().replace(self._copy.name if self._copy else "\0", str(self._file))
            raise NoWay(f"`ssh -G {words[-1]}` failed: {clean(said)[:300] or process.returncode}")
        return _read(os.fsdecode(out))


def usual_home() -> Path:
    """The home folder that the password database names, and ssh takes."""
    return Path(pwd.getpwuid(os.getuid()).pw_dir)


def _read(text: str) -> Answer:
    found: dict[str, tuple[str, ...]] = {}
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        found[key.lower()] = (*found.get(key.lower(), ()), value)
    return found
