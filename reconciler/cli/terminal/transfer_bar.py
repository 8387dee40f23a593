"""Show a progress bar for large transfers, at a terminal only."""

from __future__ import annotations

import sys
import threading
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Transfer:
    """`told` is a `blobs_bucket.Told`: thread-safe, and free until the first part of a large blob."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._progress: Progress | None = None
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Transfer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._end()

    def _end(self) -> None:
        """The bars go; the next large one makes new ones."""
        if self._progress is not None:
            self._progress.stop()
        self._progress, self._tasks = None, {}

    def told(self, what: str, done: int, size: int) -> None:
        if not sys.stderr.isatty():
            return
        with self._lock:
            shown = self._shown()
            if what not in self._tasks:
                self._tasks[what] = shown.add_task(what, total=size)
            shown.update(self._tasks[what], completed=done, visible=done < size)
            if shown.finished:
                self._end()

    def say(self, line: str) -> None:
        if not sys.stderr.isatty():
            return
        with self._lock:
            self._shown().console.print(line, style="dim")

    def _shown(self) -> Progress:
        if self._progress is None:
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

            columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
            self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
            self._progress.start()
        return self._progress
