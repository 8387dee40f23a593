"""Say what a command waits for once it is silent for long, and end it at its deadline.

For commands that wait in one call, a copy or a look at a host, and cannot look at a clock meanwhile.
"""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType, TracebackType

from reconciler.cli.exits import Fail
from reconciler.cli.terminal.progress import LONGER, QUIET
from reconciler.cli.terminal.streams import say
from reconciler.cli.terminal.times import seconds


class _Late(BaseException):
    """Its deadline has come. Nothing that expects an error of a host or a store takes it for one."""


class BoundedWait:
    """A context around the wait, in the main thread. `waits` says for what: "gpu-0 to answer".

    After `quiet` seconds without news that is said, and again after longer and longer silences. At the deadline the
    command ends with `Fail`, exit code 3, which says `left`: what is done and what is not.
    """

    def __init__(self, waits: str, *, deadline: str = "", left: str = "", quiet: float = QUIET) -> None:
        self._waits, self._left, self._quiet = waits, left, quiet
        self._limit = seconds(deadline, flag="--deadline") if deadline else None
        self._over = threading.Event()
        self._news = self._began = time.monotonic()

    def __enter__(self) -> BoundedWait:
        self._news = self._began = time.monotonic()
        threading.Thread(target=self._watch, daemon=True).start()
        if self._limit is not None:
            self._before = signal.signal(signal.SIGALRM, self._ring)
            signal.setitimer(signal.ITIMER_REAL, max(self._limit, 0.001))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._limit is None:
            return
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._before)
        if isinstance(error, _Late):
            raise Fail(f"The deadline came while waiting for {self._waits}{self._left}", code=3) from None

    def moved(self, size: int = 0) -> None:
        """News: so many bytes more."""
        self._news = time.monotonic()

    def _ring(self, number: int, frame: FrameType | None) -> None:
        raise _Late

    def _watch(self) -> None:
        silence = self._quiet
        while not self._over.wait(max(0.01, self._news + silence - time.monotonic())):
            if time.monotonic() - self._news >= silence:
                say(f"Waiting for {self._waits} ({time.monotonic() - self._began:.0f}s). Ctrl-C stops waiting")
                self._news = time.monotonic()
                silence *= LONGER
