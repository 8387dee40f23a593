"""What is under way, shown while `apply` waits: live on a terminal, else a line where something changes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from reconciler.cli.terminal import say, stderr_console
from reconciler.explain_progress import under_way
from reconciler.fold import Failed, Outcome
from reconciler.render_words import clean
from schemas.state import State

if TYPE_CHECKING:
    from rich.live import Live

MOST = 12


class Progress:
    """A context; call it with each written state. It writes to stderr alone."""

    def __init__(self) -> None:
        self._shown: dict[str, str] = {}
        self._troubles: set[Failed] = set()
        self._live: Live | None = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __call__(self, state: State) -> None:
        now = under_way(state)
        if sys.stderr.isatty():
            self._draw(now)
        else:
            for subject, what in now.items():
                if self._shown.get(subject) != what:
                    say(f"{subject}: {what}")
        self._shown = now

    def trouble(self, outcomes: Sequence[Outcome]) -> None:
        """What came to nothing yet and is tried again, each once."""
        for one in outcomes:
            if not isinstance(one, Failed) or one in self._troubles:
                continue
            self._troubles.add(one)
            line = clean(f"{one.subject}: {one.why} (tried again)")
            if self._live is not None:
                self._live.console.print(line, markup=False, highlight=False)
            else:
                say(line)

    def told(self) -> str:
        """What is under way, as plain lines."""
        return "".join(f"{line}\n" for line in _lines(self._shown))

    def close(self) -> None:
        """Take the display away; what was said stays."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _draw(self, now: dict[str, str]) -> None:
        if self._live is None:
            if not now:
                return
            from rich.live import Live

            self._live = Live(console=stderr_console(), transient=True, auto_refresh=False)
            self._live.start()
        self._live.update(_text(now), refresh=True)


def _text(now: dict[str, str]) -> str:
    return "\n".join([f"Under way: {len(now)}", *_lines(now)]) if now else ""


def _lines(now: dict[str, str]) -> list[str]:
    shown = [f"  {clean(subject)}: {clean(what)}" for subject, what in list(now.items())[:MOST]]
    return [*shown, f"  and {len(now) - MOST} more"] if len(now) > MOST else shown
