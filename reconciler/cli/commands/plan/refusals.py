"""End a command whose pass did nothing: refused, or declined at the prompt."""

from __future__ import annotations

from reconciler.cli.exits import Fail, Finished
from reconciler.cli.terminal.streams import say
from reconciler.engine.tick import TickResult


def raise_refusals(result: TickResult) -> None:
    """`Fail` with why it was refused, `Done` where it was declined; returns where it was neither."""
    if result.refused:
        raise Fail(result.refused)
    if result.declined:
        say("nothing was done")
        raise Finished(1)
