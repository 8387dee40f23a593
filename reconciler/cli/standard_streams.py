"""Give a process the standard streams that its parent closed, before anything else opens a file.

A closed descriptor is the next one to be handed out: a file that is opened later would become the standard output of
every program that we start, and Python leaves `sys.stdout` at None. Only `os` and `sys` are imported here.
"""

from __future__ import annotations

import os
import sys


def open_closed_streams() -> None:
    """Connect each of stdin, stdout and stderr that is closed to the null device."""
    closed = [fd for fd in (0, 1, 2) if _is_closed(fd)]
    for fd in closed:
        # The lowest free descriptor is taken: in this order it is the closed one itself.
        os.set_inheritable(os.open(os.devnull, os.O_RDONLY if fd == 0 else os.O_WRONLY), True)
    if sys.stdin is None:
        sys.stdin = os.fdopen(0, encoding="utf-8")
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", encoding="utf-8")
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", encoding="utf-8")


def _is_closed(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return True
    return False
