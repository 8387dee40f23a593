"""Repeat passes until a condition holds: what `apply` and `run` wait with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import msgspec

from reconciler.engine.ports import Ports
from reconciler.engine.request import TickAsk
from reconciler.engine.tick import TickResult, tick
from reconciler.planner.approve import approve, cut
from reconciler.report.blocked import Blocked
from reconciler.state.record_outcomes import Failed, Outcome
from schemas.instance import Instance
from schemas.plan import Launch, Plan, Stop, Terminate
from schemas.run import RUN_ENDED, Attempt, Run
from schemas.state import State

LONGEST = 2.0
PATIENCE = 300
"""Seconds that a new version of a service has to become ready while somebody waits for it."""
ENOUGH = 2  # ticks in a row in which all that was tried was refused for good
BLOCKED_TICKS = 3  # passes in a row in which nothing can come of waiting …
BLOCKED_FOR = 20.0  # … and for how many seconds, before it is given up


@dataclass(frozen=True, kw_only=True)
class Settled:
    """`first` is the tick that planned and asked; `last` the newest."""

    first: TickResult
    last: TickResult
    reached: bool
    """Whether `until` was so in time."""
    blocked: str = ""
    """Why it was given up: what keeps it from being so, and which command helps."""


def settle(
    ports: Ports,
    ask: TickAsk,
    *,
    until: Callable[[State, Plan], bool],
    progress: Callable[[State], object],
    trouble: Callable[[Sequence[Outcome]], object] = lambda outcomes: None,
    blocked: Blocked = lambda state, plan, outcomes: "",
    deadline: float | None = None,
    pause: float = 0.25,
) -> Settled:
    """Tick as asked, then on, doing only what the first tick's approval covers, until `until(state, plan)`.

    `plan` is what the first tick was approved to do; `deadline` is in seconds from now. `trouble` hears what came of
    each tick's effects before the next one begins. `ask.stop` ends it after the tick that is under way, and so does a
    place that refuses all that is left to do. `blocked` tells what keeps `until` from being so, as long as nothing that
    is waited for can happen by itself: after some passes it is given up for that.
    """
    ask = replace(ask, goes_on=ask.goes_on or "stops")
    first = tick(ports, replace(ask, tell=progress))
    if first.refused or first.declined or first.state is None:
        return Settled(first=first, last=first, reached=False)
    ends = None if deadline is None else ports.clock() + deadline
    covered = _Covered(first.approved, starts=ask.approved_starts)
    covered.note(first.plan)
    later = _later(ask, first, covered=covered, tell=progress)
    last, plan, wait, refused = first, first.plan, pause, 0
    stuck = _Stuck(ports)
    while last.state is not None and not until(last.state, plan):
        refused = refused + 1 if _refused(last) else 0
        if why := stuck.for_good(blocked(last.state, plan, last.outcomes)):
            return Settled(first=first, last=last, reached=False, blocked=why)
        if ask.stop() or refused == ENOUGH or (ends is not None and ports.clock() >= ends):
            return Settled(first=first, last=last, reached=False)
        trouble(last.outcomes)
        ports.sleep(wait)
        wait = min(LONGEST, wait * 1.3)
        last = tick(ports, later)
        covered.note(last.plan)
        plan = msgspec.structs.replace(plan, actions=(*plan.actions, *last.plan.actions), unmet=last.plan.unmet)
    return Settled(first=first, last=last, reached=not last.refused)


def one_pass(ports: Ports, ask: TickAsk) -> Settled:
    """A single tick; and another where it attached a host while runs wait, so that these need no later apply."""
    first = tick(ports, ask)
    if first.refused or first.declined or first.state is None or not _attached_for_runs(first, first.state):
        return Settled(first=first, last=first, reached=True)
    covered = _Covered(first.approved, starts=ask.approved_starts)
    covered.note(first.plan)
    last = tick(ports, _later(ask, first, covered=covered, tell=ask.tell))
    return Settled(first=first, last=last, reached=True)


def _attached_for_runs(result: TickResult, state: State) -> bool:
    attached = any(isinstance(one, Launch) and one.host is not None for one in result.plan.actions)
    return attached and any(run.status == "submitted" for run in state.runs)


class _Stuck:
    """For how long nothing could come of waiting."""

    def __init__(self, ports: Ports) -> None:
        self._clock, self._times, self._since = ports.clock, 0, 0.0

    def for_good(self, why: str) -> str:
        """`why`, once that was so for long enough."""
        if not why:
            self._times = 0
            return ""
        self._times += 1
        if self._times == 1:
            self._since = self._clock()
        return why if self._times >= BLOCKED_TICKS and self._clock() >= self._since + BLOCKED_FOR else ""


def _refused(result: TickResult) -> bool:
    """Whatever it tried, its place refuses for good: nobody need wait for that."""
    return bool(result.outcomes) and all(isinstance(one, Failed) and one.lasting for one in result.outcomes)


def _later(ask: TickAsk, first: TickResult, *, covered: _Covered, tell: Callable[[State], object] | None) -> TickAsk:
    """The same ask, after its documents and its wish were written: within what was approved."""
    # Who said yes to a destroy said yes to every end: an instance that was busy then ends in a later tick.
    everything = ask.confirm is None or first.permissions.destroy_all
    return replace(
        ask,
        documents=None,
        revision=None,
        wish=None,
        confirm=None if everything else covered.confirm,
        permissions=first.permissions,
        retry_hosts=False,
        tell=tell,
    )


class _Covered:
    """What is left of an approval: no machine more, by pool, than were approved and did not come about yet."""

    def __init__(self, approved: Plan, *, starts: bool) -> None:
        self._approved, self._starts = approved, starts
        self._launched: set[str] = set()

    def note(self, done: Plan) -> None:
        self._launched |= {id for action in done.actions if isinstance(action, Launch) for id in action.ids}

    def confirm(self, fresh: Plan, state: State) -> Plan:
        made = [one for one in state.instances if one.id in self._launched and _came(one)]
        used = Counter(one.pool for one in made)
        actions = []
        for action in self._approved.actions:
            if isinstance(action, Launch):
                gone = min(len(action.ids), used[action.pool])
                used[action.pool] -= gone
                action = cut(action, range(gone, len(action.ids)))
            if not isinstance(action, Launch) or action.ids:
                actions.append(action)
        # What this command launched and never became ready ends as any apply would end it.
        actions += (
            one for one in fresh.actions
            if isinstance(one, Terminate) and one.inferred and one.instance in self._launched
        )  # fmt: skip
        approved = msgspec.structs.replace(self._approved, actions=tuple(actions))
        return approve(fresh, approved, starts=self._starts)


def _came(instance: Instance) -> bool:
    """It was seen, or may still be."""
    return bool(instance.external_id) or instance.phase != "terminated"


def settled(state: State, plan: Plan) -> bool:
    """Every effect is seen, each run that was started is running or ended, results found are stored.

    A service that is being replaced is waited for while that makes progress.
    """
    if any(unsettled(state, plan)):
        return False
    return not any(_replacing(state, run) for run in state.runs if run.superseded_by and run.status not in RUN_ENDED)


def launches_settled(state: State, plan: Plan) -> bool:
    """Every instance that was launched is there or refused; what else is under way is not waited for."""
    return not unsettled(state, plan)[0]


def settled_for(run: str) -> Callable[[State, Plan], bool]:
    """As `settled`, of one run and what was launched."""

    def until(state: State, plan: Plan) -> bool:
        instances, attempts = unsettled(state, plan)
        return not instances and not any(one.run == run for one in attempts)

    return until


def unsettled(state: State, plan: Plan) -> tuple[list[Instance], list[Attempt]]:
    """The instances and attempts of which `settled` waits for something."""
    launched = {id for action in plan.actions if isinstance(action, Launch) for id in action.ids}
    ended = {action.instance for action in plan.actions if isinstance(action, Terminate)}
    stopped = {action.attempt for action in plan.actions if isinstance(action, Stop)}
    # A server that does not answer may never do: what it should do is remembered, and nobody sits and waits for it.
    silent = {place.name for place in state.places if place.error and place.config.is_server}
    under_way = [
        one
        for one in state.instances
        if one.place not in silent
        and (
            (one.id in launched and one.phase in ("pending", "provisioning"))
            or (one.id in ended and one.phase != "terminated" and not one.ending)
        )
    ]
    return under_way, [attempt for attempt in state.attempts if _unsettled(attempt, stopped)]


def _replacing(state: State, old: Run) -> bool:
    """A replica of its new version may be ready soon: one runs, and neither ends again and again nor takes long."""
    newer = {
        run.id
        for run in state.runs
        if run.spec.hash == old.superseded_by and run.spec.type == "service" and run.status not in RUN_ENDED
    }
    now = max((place.observed_at or 0 for place in state.places), default=0)
    jobs = [job for each in state.attempts if each.run in newer and each.live for job in each.jobs]
    fresh = [job for job in jobs if job.started_at is not None and now < job.started_at + PATIENCE]
    return bool(fresh) and not any(job.failing for job in jobs)


def _unsettled(attempt: Attempt, stopped: set[str]) -> bool:
    if attempt.live and attempt.id in stopped:
        return True
    return any(job.status == "ended" or (job.status == "assigned" and attempt.live) for job in attempt.jobs)
