"""Wait for what a command set in motion; where that is given up, say why and which command helps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from reconciler.cli.exits import Fail, Finished
from reconciler.cli.terminal.progress import Progress
from reconciler.cli.terminal.streams import say
from reconciler.engine.ports import Ports
from reconciler.engine.request import TickAsk
from reconciler.engine.tick import tick
from reconciler.engine.until import Settled, one_pass, settle, settled, unsettled
from reconciler.report.blocked import Blocked, everything_blocked, work_blocked
from reconciler.report.in_progress import under_way
from reconciler.state.record_outcomes import Failed
from schemas.plan import Permissions, Plan, Terminate
from schemas.state import State


def apply_passes(ports: Ports, ask: TickAsk, *, progress: Progress, detach: bool, limit: int | None) -> Settled:
    """One pass with `detach`, else as many as it takes. `limit` is in seconds."""
    if detach:
        return one_pass(ports, ask if limit is None else replace(ask, deadline=float(limit)))
    blocked = work_blocked(ports.now, unsettled)
    return settle(
        ports, ask, until=settled, progress=progress, trouble=progress.trouble, blocked=blocked, deadline=limit
    )


def destroy_passes(
    ports: Ports, ask: TickAsk, *, until: Callable[[State, Plan], bool], progress: Progress, limit: int | None
) -> Settled:
    """Whatever lives was agreed to, also what the first plan could not end yet."""
    return settle(
        ports,
        replace(ask, confirm=None),
        until=until,
        progress=progress,
        trouble=progress.trouble,
        blocked=everything_blocked(ports.now),
        deadline=limit,
    )


def finish_destroying(ports: Ports) -> None:
    """End what is left of a destroyed project: every end was approved then."""
    result = tick(ports, TickAsk(permissions=Permissions(destroy_all=True, mass_destroy=True)))
    for action in result.plan.actions:
        if isinstance(action, Terminate):
            say(f"note: {action.name} is left of the destroyed project: it is being terminated")


def launches_blocked(ports: Ports) -> Blocked:
    """Of a command that waits for what it launched, or ended."""
    return work_blocked(ports.now, lambda state, plan: (unsettled(state, plan)[0], ()))


def unreached(done: Settled, *, again: str, refused: int = 1) -> Exception:
    """What ends the command where `until` was not reached: `refused` where a place refuses for good, else 3.

    `again` is the command that goes on with it.
    """
    lasting = dict.fromkeys(one.why for one in done.last.outcomes if isinstance(one, Failed) and one.lasting)
    if done.last.refused or (lasting and refused == 1):
        return Fail(done.last.refused or "; ".join(lasting))
    for why in lasting:
        say(f"failed: {why}")
    say_under_way(done)
    say(done.blocked or f"Still under way; it is remembered. To go on with it: {again}")
    return Finished(3)


def say_under_way(done: Settled) -> None:
    """A line for each operation that is not complete."""
    for subject, what in (under_way(done.last.state) if done.last.state else {}).items():
        say(f"  {subject}: {what}")
