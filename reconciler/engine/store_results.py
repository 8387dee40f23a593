"""Store results that pending runs wait for, before the plan is made: what frees itself is then at hand.

Whatever was observed is written first, without the configuration and the request of this pass: those wait for their
approval. A result that cannot be collected now stays on its host, and the plan goes on without it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from reconciler.engine.clock_guard import corrected
from reconciler.engine.execute import execute
from reconciler.engine.pass_clock import PassClock
from reconciler.engine.ports import Ports
from reconciler.engine.view import View
from reconciler.engine.write_state import differs, land, write
from reconciler.state.errors import StateMoved
from reconciler.state.observe.merge import absorb
from reconciler.state.pending_effects import Collect, effects
from reconciler.state.record_outcomes import Outcome
from schemas.plan import Plan
from schemas.state import State


def awaited_results(plan: Plan) -> frozenset[str]:
    """Ids of the instances that runs of the plan wait for, until the results of their ended jobs are stored."""
    return frozenset(id for wait in plan.waits for id in wait.results)


def store_results(
    ports: Ports,
    view: View,
    instances: Collection[str],
    *,
    clock: PassClock,
    stop: Callable[[], bool],
    tell: Callable[[State], None],
) -> tuple[list[Outcome], int]:
    """The outcomes, and how many writes there were. Raises `StateRefused`."""
    stored, token = ports.store.read()
    if stored is None or stored.lineage != view.before.lineage:
        return [], 0
    now, since = clock.now(), ports.clock()
    seen = absorb(
        stored,
        listings=view.observed.listings,
        reports=view.observed.reports,
        now=clock.wall(),
        before=view.before,
        clocks=clock.reading,
    )
    seen = corrected(seen, was=stored, clock=clock)
    state = clock.folded(seen, (), now=now)
    written = 0
    if differs(stored, state):
        try:
            state, written = write(ports, state, was=stored, token=token), 1
        except StateMoved:  # another one is at work: what it left is planned on
            return [], 0
    todo = [one for one in effects(state, now=now) if isinstance(one, Collect) and one.instance in instances]
    if not todo:
        return [], written
    tell(state)
    outcomes = list(execute(ports, state, todo, connections=view.connections, since=since, stop=stop))
    at = clock.now()
    state, landed = land(ports, lambda latest: clock.folded(latest, outcomes, now=at))
    tell(state)
    return outcomes, written + landed
