"""Copy bytes between two sockets until both sides have closed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress

from reconciler.hosts.session.base import Stream

CHUNK = 64 * 1024


def splice(one: Stream, other: Stream, *, moved: Callable[[int], object] = lambda size: None) -> None:
    """Returns when both ways have ended, and both are closed. `moved` hears how many bytes went either way."""
    back = threading.Thread(target=_pour, args=(other, one, moved), daemon=True)
    back.start()
    try:
        _pour(one, other, moved)
        back.join()
    finally:
        for end in (one, other):
            with suppress(OSError, EOFError):
                end.close()


def _pour(source: Stream, sink: Stream, moved: Callable[[int], object]) -> None:
    """Until the source ends or breaks; the sink is told that no more comes."""
    try:
        while data := source.recv(CHUNK):
            sink.sendall(data)
            moved(len(data))
    except (OSError, EOFError):
        # Half of a broken pair is of no use: the other way ends with it.
        for end in (source, sink):
            with suppress(OSError, EOFError):
                end.shutdown(2)
        return
    with suppress(OSError, EOFError):
        sink.shutdown(1)
