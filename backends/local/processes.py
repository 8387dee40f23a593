"""End every process of an instance's jobs.

A process belongs to a job when the job's claim is in its environment, when it is in the session of the
job or of its supervisor, or in the job's cgroup: a double fork with setsid loses none of the first and last.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from backends.errors import TryLater

_PATIENCE = 30.0


class _Job(NamedTuple):
    claim: bytes
    sessions: frozenset[int]
    cgroup: str


def kill_all(host: Path) -> None:
    """SIGKILL until none is left. Raises `TryLater` where some cannot be killed."""
    deadline = time.monotonic() + _PATIENCE
    pause = 0.01
    while left := set(_living(host)):
        if time.monotonic() > deadline:
            raise TryLater(f"processes do not end: {', '.join(map(str, sorted(left)))}")
        for pid in left:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(pause)
        pause = min(0.5, pause * 2)


def _living(host: Path) -> Iterator[int]:
    jobs = [_job(folder) for folder in (host / "jobs").glob("*")]
    if not jobs:
        return
    claims = tuple(job.claim for job in jobs if job.claim)
    sessions = frozenset[int]().union(*(job.sessions for job in jobs))
    for job in jobs:
        yield from (int(pid) for pid in _words(Path(job.cgroup) / "cgroup.procs") if job.cgroup)
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if _session(process) in sessions or any(claim in _environment(process) for claim in claims):
                yield int(process.name)


def _job(folder: Path) -> _Job:
    token = "".join(_words(folder / "token"))
    words = _words(folder / "pid")
    here = words[2:] == _words(Path("/proc/sys/kernel/random/boot_id"))
    # An ended job left nothing, and its numbers may be others' by now.
    led = [words[:2], _words(folder / "session")] if here and not (folder / "end").exists() else []
    sessions = frozenset(int(pair[0]) for pair in led if len(pair) == 2 and _is_same(*pair))
    cgroup = "".join(_words(folder / "cgroup")) if here else ""
    return _Job(f"DSTACK_CLAIM={token}".encode() if token else b"", sessions, cgroup)


def _words(path: Path) -> list[str]:
    try:
        return path.read_text("ascii", "replace").split()
    except OSError:
        return []


def _is_same(pid: str, born: str) -> bool:
    """Not so where the number was given to another process since. A dead leader's session keeps its number."""
    try:
        return _fields(Path("/proc") / pid)[19] == born
    except OSError:
        return True


def _fields(process: Path) -> list[str]:
    """From the state on (field 3): a name may hold spaces and parentheses."""
    return (process / "stat").read_text("utf-8", "replace").rpartition(") ")[2].split()


def _session(process: Path) -> int:
    fields = _fields(process)
    return -1 if fields[0] in "ZX" else int(fields[3])


def _environment(process: Path) -> bytes:
    try:
        return (process / "environ").read_bytes()
    except PermissionError:
        return b""
