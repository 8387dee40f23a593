"""This process and its machine: clocks, threads, user and host name."""

from __future__ import annotations

import getpass
import os
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

NONCE_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"


@dataclass(frozen=True)
class OwnThreads:
    """`reconciler.system.concurrent.Threads` of whoever has no ports."""

    clock: Callable[[], float] = lambda: boot_clock()
    spawn: Callable[[Callable[[], None]], object] = lambda work: spawn(work)


def now() -> int:
    return int(time.time())


def boot_clock() -> float:
    """Seconds that also count while the machine sleeps, where the system tells them."""
    kind = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if kind is None else time.clock_gettime(kind)


def boot_time() -> tuple[str, int]:
    """The id of this start of the machine and the seconds since then; `("", 0)` where the system does not tell.

    Read from the kernel's files: what changes a process's clocks does not change those.
    """
    try:
        uptime = int(float(Path("/proc/uptime").read_text().split()[0]))
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip(), uptime
    except (OSError, ValueError, IndexError):
        return "", 0


def nonce() -> str:
    return "".join(secrets.choice(NONCE_LETTERS) for _ in range(8))


def spawn(work: Callable[[], None]) -> object:
    """On a daemon thread: a late answer must not hold up the end of the process."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def who() -> str:
    """`user@host`, for people to know whom to ask."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = str(os.getuid())
    return f"{user}@{os.uname().nodename.split('.')[0]}"
