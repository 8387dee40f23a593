"""`dstack apply`: once, or with `--watch` again and again, until interrupted or until no run waits or runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from reconciler.cli.commands.plan.apply import ApplyFlags, apply_once
from reconciler.cli.errors import explain_error
from reconciler.cli.exits import Fail, Finished
from reconciler.cli.terminal.streams import say
from reconciler.cli.terminal.times import seconds
from reconciler.engine.tick import TickResult
from schemas.base import Seconds
from schemas.run import RUN_ENDED
from schemas.state import State

EVERY: Seconds = 60
"""Seconds between two passes where the command line names none."""

Once = Callable[[bool], tuple[int, State | None]]
"""One pass (whether it is the first) → its exit code and the state that it left."""


def run_apply(flags: ApplyFlags) -> int:
    """The exit code: 0, 3 where something is still under way at the deadline, 130 after Ctrl-C."""
    if not (flags.watch or flags.until_done):
        return _measured(flags, [])
    if flags.file is not None:
        raise Fail(f"{flags.file}: a saved plan is applied once; --watch applies the configuration again and again")
    every = seconds(flags.every, flag="--watch") if flags.every else EVERY

    def once(first: bool) -> tuple[int, State | None]:
        results: list[TickResult] = []
        code = _measured(flags if first else replace(flags, quiet=True), results)
        return code, results[-1].state if results else None

    return apply_again(once, every=every, until_done=flags.until_done)


def _measured(flags: ApplyFlags, results: list[TickResult]) -> int:
    if flags.metrics is None:
        return apply_once(flags, results)
    from reconciler.cli.commands.plan.metrics import measured

    def applied(told: list[TickResult]) -> int:
        try:
            return apply_once(flags, told)
        finally:
            results.extend(told)

    return measured(flags.metrics, applied)


def apply_again(once: Once, *, every: Seconds, until_done: bool, sleep: Callable[[float], None] = time.sleep) -> int:
    """130 once interrupted; with `until_done` 0, or 1 where a run failed meanwhile.

    The first pass fails as any apply does. What a later one fails with is said, and tried again in the next: a
    configuration that somebody is editing, a network that is down.
    """
    active: set[str] = set()
    first = True
    try:
        while True:
            code, state = _pass(once, first=first)
            if code == 130:
                return 130
            if until_done and state is not None:
                active |= {one.id for one in state.runs if one.status not in RUN_ENDED}
                if not any(one.status not in RUN_ENDED for one in state.runs):
                    failed = sorted(one.spec.name for one in state.runs if one.id in active and one.status == "failed")
                    say("Done: no run waits or runs." if not failed else f"Failed: {', '.join(failed)}.")
                    return 1 if failed else 0
            first = False
            sleep(every)
    except KeyboardInterrupt:
        say("\nStopped watching. Runs and instances go on; `dstack apply` reconciles again.")
        return 130


def _pass(once: Once, *, first: bool) -> tuple[int, State | None]:
    try:
        return once(first)
    except Finished as done:
        return done.code, None
    except Fail as error:
        if first:
            raise
        say(f"error: {error}")
        return error.code, None
    except Exception as error:
        if first or not (known := explain_error(error)):
            raise
        say(f"error: {known}")
        return 1, None
