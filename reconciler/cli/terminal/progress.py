"""Show what is being waited for: live at a terminal, else a line per change."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from reconciler.cli.terminal.streams import say, stderr_console
from reconciler.report.in_progress import under_way
from reconciler.state.record_outcomes import Failed, NotSent, Outcome, Throttled
from reconciler.text.format import clean
from schemas.state import State

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live

MOST = 12
SLOW = 1.0  # seconds: what is answered sooner is not shown
LONGER = 3.0  # how much longer each silence is than the one before
QUIET = 10.0  # seconds of silence after which it is said what is waited for


class Progress:
    """A context; call it with each written state. It writes to stderr alone. `console`: a terminal of one's own.

    `waits` says what the command waits for: "run train to end". After `quiet` seconds without a word that is said, with
    what is under way, and again after longer and longer silences.
    """

    def __init__(
        self, *, waits: str = "", console: Console | None = None, slow: float = SLOW, quiet: float = QUIET
    ) -> None:
        self._console, self._slow = console, slow
        self._waits, self._quiet = waits, quiet
        self._began, self._spoken, self._silence = 0.0, 0.0, quiet
        self._watcher: threading.Timer | None = None
        self._shown: dict[str, str] = {}
        self._asked: tuple[Sequence[str], int] = ((), 0)
        self._since = 0.0
        self._timer: threading.Timer | None = None
        self._troubles: set[Failed | NotSent | Throttled] = set()
        self._live: Live | None = None
        self._lock = threading.RLock()

    def __enter__(self) -> Progress:
        self._began = self._spoken = time.monotonic()
        self._silence = self._quiet
        self._watch(self._silence)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __call__(self, state: State) -> None:
        now = under_way(state)
        if self._watched():
            with self._lock:
                self._shown = now
                self._draw()
            return
        for subject, what in now.items():
            if self._shown.get(subject) != what:
                self._say(f"{subject}: {what}")
        self._shown = now

    def asking(self, names: Sequence[str], count: int) -> None:
        """Whom one waits for: the first of them, and how many they are; none at the end. Terminals show it."""
        if not self._watched():
            self._asked = (tuple(names), count)
            return
        with self._lock:
            if not count:
                self._answered()
            elif self._timer is None:
                self._since = time.monotonic()
                self._timer = threading.Timer(self._slow, self._late)
                self._timer.daemon = True
                self._timer.start()
            self._asked = (tuple(names), count)
            if self._live is not None and not count:
                self._draw()

    def trouble(self, outcomes: Sequence[Outcome]) -> None:
        """What came to nothing yet and is tried again, each once."""
        for one in outcomes:
            if not isinstance(one, Failed | NotSent | Throttled) or one in self._troubles:
                continue
            self._troubles.add(one)
            line = clean(f"{one.subject}: {one.why} (tried again)")
            with self._lock:
                if self._live is not None:
                    self._live.console.print(line, markup=False, highlight=False)
                else:
                    self._say(line)

    def told(self) -> str:
        """What is under way, as plain lines."""
        return "".join(f"{line}\n" for line in _lines(self._shown))

    def close(self) -> None:
        """Take the display away; what was said stays."""
        with self._lock:
            if self._watcher is not None:
                self._watcher.cancel()
                self._watcher = None
            self._answered()
            self._asked = ((), 0)
            self._stop()

    def _say(self, line: str) -> None:
        self._spoken, self._silence = time.monotonic(), self._quiet
        say(line)

    def _watch(self, seconds: float) -> None:
        self._watcher = threading.Timer(seconds, self._still)
        self._watcher.daemon = True
        self._watcher.start()

    def _still(self) -> None:
        """Say what is waited for, where nothing was said or shown for long enough; look again later."""
        with self._lock:
            if self._watcher is None:
                return
            left = self._spoken + self._silence - time.monotonic()
            if left <= 0:
                if self._live is None:
                    say(self._waiting())
                self._spoken = time.monotonic()
                left = self._silence = self._silence * LONGER
            self._watch(left)

    def _waiting(self) -> str:
        """`Waiting for run train to end (12s): train: stopping on gpu-0 (…)`."""
        (names, count), shown = self._asked, dict(self._shown)
        whom = self._waits or (_named(names, count) if count else "what is under way")
        line = f"Waiting for {whom} ({time.monotonic() - self._began:.0f}s)"
        details = [f"{subject}: {what}" for subject, what in shown.items()][:MOST]
        details += [f"no answer yet from {_named(names, count)}"] if count and self._waits else []
        return f"{line}: {'; '.join(details)}" if details else line

    def _watched(self) -> bool:
        return self._console is not None or sys.stderr.isatty()

    def _answered(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        with self._lock:
            if self._timer is not None:
                self._draw()

    def _draw(self) -> None:
        if not self._text():
            self._stop()
        elif self._live is None:
            from rich.live import Live

            # What it draws is read without our lock: its own thread draws, too, so that the seconds go on.
            self._live = Live(
                console=self._console or stderr_console(),
                transient=True,
                refresh_per_second=2,
                get_renderable=self._text,
                redirect_stdout=sys.stdout.isatty(),
            )
            self._live.start(refresh=True)
        else:
            self._live.refresh()

    def _stop(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _text(self) -> str:
        (names, count), shown = self._asked, self._shown
        seconds = time.monotonic() - self._since
        asked = [_asked(names, count, seconds=seconds)] if count and seconds >= self._slow else []
        return "\n".join([*asked, *([f"Under way: {len(shown)}", *_lines(shown)] if shown else [])])


def _asked(names: Sequence[str], count: int, *, seconds: float) -> str:
    return f"Waiting for {_named(names, count)}: {seconds:.0f} s"


def _named(names: Sequence[str], count: int) -> str:
    others = count - len(names)
    return f"{', '.join(clean(name) for name in names)}{f' and {others} more' if others else ''}"


def _lines(now: dict[str, str]) -> list[str]:
    shown = [f"  {clean(subject)}: {clean(what)}" for subject, what in list(now.items())[:MOST]]
    return [*shown, f"  and {len(now) - MOST} more"] if len(now) > MOST else shown
