"""Keep a log that goes into a file of the project (`dstack logs RUN > FILE`) out of the files of later runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from reconciler.cli.project import project_root
from reconciler.store.blobs.fetched import Fetched


@contextmanager
def kept_out_of_runs() -> Iterator[None]:
    """Remember the file that standard output leads to, however the command ends; nothing where it leads to none."""
    try:
        yield
    finally:
        with suppress(OSError, ValueError):  # a closed or full output is told by whoever writes to it
            sys.stdout.flush()
            if not sys.stdout.isatty():
                Fetched(project_root()).keep_output(sys.stdout.fileno())
