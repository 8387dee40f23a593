"""Follow a job's log until it ends: the bytes as the job wrote them, each once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

# Nothing new for so long: ask the host whether the job still runs.
PATIENCE = 3


@dataclass(frozen=True, kw_only=True)
class Log:
    """Where a log is read: `read(offset)` gives what is there from `offset` on, empty where nothing is.

    `ended()` says that no more will come; it may be slow, and is asked only when nothing came.
    """

    read: Callable[[int], bytes]
    ended: Callable[[], bool]


def follow(
    log: Log,
    *,
    write: Callable[[bytes], object],
    sleep: Callable[[float], object],
    offset: int = 0,
    pause: float = 0.2,
    stop: Callable[[], bool] = lambda: False,
) -> int:
    """The offset after the last byte. Returns when the log is complete, or `stop` says so."""
    silent = 0
    while not stop():
        data = log.read(offset)
        if data:
            write(data)
            offset += len(data)
            silent = 0
            continue
        if silent >= PATIENCE and log.ended():
            return _drained(log, write=write, offset=offset)
        silent = 0 if silent >= PATIENCE else silent + 1
        sleep(pause)
    return offset


def _drained(log: Log, *, write: Callable[[bytes], object], offset: int) -> int:
    """What came between the last look and the end."""
    while data := log.read(offset):
        write(data)
        offset += len(data)
    return offset
