"""Show a table again whenever it changes, until Ctrl-C."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from reconciler.cli.terminal.streams import stdout_console

if TYPE_CHECKING:
    from rich.console import RenderableType

EVERY = 1.0


def watch(table: Callable[[], RenderableType]) -> int:
    """Ctrl-C ends it: that is how one leaves, so it is no failure."""
    from rich.live import Live

    try:
        with Live(table(), console=stdout_console(), auto_refresh=False, screen=False) as live:
            while True:
                time.sleep(EVERY)
                live.update(table(), refresh=True)
    except KeyboardInterrupt:
        return 0
