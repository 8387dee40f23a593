"""Write a person's request, reconcile in its scope, and wait for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from reconciler.app.site import Site
from reconciler.cli.commands.plan.refusals import raise_refusals
from reconciler.cli.commands.plan.waiting import launches_blocked, say_under_way, unreached
from reconciler.cli.exits import Fail, Finished
from reconciler.cli.project import ports_of
from reconciler.cli.terminal.interrupts import Interrupts
from reconciler.cli.terminal.progress import Progress
from reconciler.engine.request import TickAsk
from reconciler.engine.tick import TickResult, tick
from reconciler.engine.until import Settled, settle
from reconciler.report.blocked import Blocked
from reconciler.state.requests import WishRefused
from schemas.desired import Desired
from schemas.plan import Permissions, Plan
from schemas.state import State

Until = Callable[[State, Plan], bool]


@dataclass(frozen=True, kw_only=True)
class Wished:
    """`confirm` is asked with the plan of the wish alone. `scope`: ids that its ticks may touch.

    `hasty` as of a `TickAsk`; `within` is in seconds, how long it is waited for at the most.
    `waits` says for what: "run train to end"; `blocked` what keeps it from coming.
    """

    wish: Callable[[State], State]
    scope: tuple[str, ...] = ()
    carried: Desired | None = None
    confirm: Callable[[Plan, State], Plan | None] | None = None
    prompted: bool = False
    hasty: bool = False
    within: float | None = None
    waits: str = ""
    blocked: Blocked | None = None


def fulfil(where: Site, wished: Wished, *, until: Until | None) -> TickResult:
    """The last tick. Without `until`, one tick. `Fail` where it is refused, `Done` where it was declined or left."""
    progress = Progress(waits=wished.waits)
    ports = ports_of(where, asking=progress.asking)
    with progress, Interrupts(told=progress.told) as interrupts:
        asked = TickAsk(
            wish=wished.wish,
            carried=wished.carried,
            permissions=Permissions(scope=wished.scope),
            confirm=_armed(wished, interrupts=interrupts),
            prompted=wished.prompted,
            hasty=wished.hasty,
            stop=interrupts.asked,
        )
        try:
            if until is None:
                result = tick(ports, asked)
                done = Settled(first=result, last=result, reached=True)
            else:
                done = settle(
                    ports,
                    asked,
                    until=until,
                    progress=progress,
                    trouble=progress.trouble,
                    blocked=wished.blocked or launches_blocked(ports),
                    deadline=wished.within,
                )
        except WishRefused as error:
            raise Fail(str(error)) from error
    return _checked(done, interrupted=interrupts.count > 0)


def _armed(wished: Wished, *, interrupts: Interrupts) -> Callable[[Plan, State], Plan | None] | None:
    """None where nothing is left to ask: whatever the wish leads to, in its scope, was agreed to."""
    asked = wished.confirm
    if asked is None:
        interrupts.arm()
        return None

    def confirm(plan: Plan, state: State) -> Plan | None:
        interrupts.disarm()
        allowed = asked(plan, state)
        if allowed is not None:
            interrupts.arm()
        return allowed

    return confirm


def _checked(done: Settled, *, interrupted: bool) -> TickResult:
    raise_refusals(done.first)
    if interrupted:
        say_under_way(done)
        raise Finished(130)
    if not done.reached:
        raise unreached(done, again="dstack apply")
    return done.last
