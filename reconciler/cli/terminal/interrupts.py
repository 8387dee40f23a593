"""Handle Ctrl-C: before anything began it ends at once; then once stops new effects, twice leaves."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from types import FrameType, TracebackType


class Interrupts:
    """A context in which Ctrl-C is counted. Both ways out are safe: what was begun is in the state."""

    def __init__(self, *, told: Callable[[], str]) -> None:
        """`told` gives what is still under way, for the first Ctrl-C."""
        self.count = 0
        self._armed = False
        self._told = told
        self._before: object = None

    def arm(self) -> None:
        """From here on effects are begun."""
        self._armed = True

    def disarm(self) -> None:
        """A question is asked: Ctrl-C is an answer again."""
        self._armed = False

    def asked(self) -> bool:
        """Whether no effect may be begun any more."""
        return self.count > 0

    def __enter__(self) -> Interrupts:
        self._before = signal.signal(signal.SIGINT, self._caught)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.signal(signal.SIGINT, self._before)  # type: ignore[arg-type]

    def _caught(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if not self._armed:
            raise KeyboardInterrupt
        self.count += 1
        if self.count > 1:
            _write("left; what was begun is remembered, `dstack apply` goes on with it\n")
            os._exit(130)
        _write(f"\nstopping: nothing more is begun; Ctrl-C again leaves at once\n{self._told()}")


def _write(text: str) -> None:
    """Past Python's buffers: the signal may have come in the middle of a write to them."""
    with contextlib.suppress(OSError):
        os.write(2, text.encode(errors="backslashreplace"))
