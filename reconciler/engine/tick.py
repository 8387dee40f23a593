"""One pass of the reconciler: observe, plan, confirm, write, execute, record.

May be killed at any point, by anything: what was begun is in the state before it is begun.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from reconciler.engine.begin import Begin, ProjectDestroyed, TickRefused, begin
from reconciler.engine.decide import decide
from reconciler.engine.execute import execute, not_sent
from reconciler.engine.expire_blobs import due
from reconciler.engine.observe import observe
from reconciler.engine.pass_clock import PassClock
from reconciler.engine.ports import Connections, Ports
from reconciler.engine.request import TickAsk, needs_asked
from reconciler.engine.store_results import awaited_results, store_results
from reconciler.engine.view import Decision, OtherWorld, View
from reconciler.engine.write_state import land
from reconciler.planner.launch_tries import OFFERS, TRIED, once_each, requests
from reconciler.planner.local_state_guard import alone
from reconciler.state.host_backoff import put_off
from reconciler.state.pending_effects import Effect, effects
from reconciler.state.record_outcomes import (
    Ahead,
    Armed,
    LaunchRefused,
    Outcome,
    Removed,
    ResultCollected,
    StartFailed,
)
from reconciler.store.format_upgrade import older
from schemas.plan import Permissions, Plan
from schemas.state import State

AGAIN = 5  # two first applies at once: the later one begins again on the other's state
WAVES = 4  # effects that only follow from other effects' folds
SOONEST = 0.5
TIMES = 10.0  # a write of results waits for ten times what the last one took
AGAIN_AFTER = (LaunchRefused, ResultCollected, StartFailed)  # what these leave behind can be planned on at once


@dataclass(frozen=True, kw_only=True)
class TickResult:
    """`state` is as last written, or as observed where nothing needed writing; `None` where there is none.

    `plan` is what was done, of all rounds; `approved` what a person approved, before any place refused some of it.
    `refused` is why nothing was done (exit 1); `destroyed`: as a person destroyed the project.
    `permissions` are those asked for, less what the documents' age does not allow.
    `declined` that `confirm` said no. `ahead`: another reconciler was ahead, the rest is its.
    """

    state: State | None
    plan: Plan
    approved: Plan
    outcomes: tuple[Outcome, ...] = ()
    refused: str = ""
    destroyed: bool = False
    declined: bool = False
    ahead: bool = False
    written: int = 0
    permissions: Permissions = field(default_factory=Permissions)
    warnings: tuple[str, ...] = ()


def tick(ports: Ports, ask: TickAsk) -> TickResult:
    """Observe, plan, do, remember. Raises `StateRefused` for a state that must not be touched."""
    desired = ask.documents.desired if ask.documents else ask.carried
    if ports.unattended and ask.act and desired is not None and (why := alone(desired)):
        return _refusal(why)
    for _ in range(AGAIN):
        try:
            begun = begin(ports, desired=desired)
            if why := _unfit(begun.state, ask):
                return _refusal(why)
            clock, ends = PassClock(ports, trusted=ask.trust_clock), ports.clock() + ask.deadline
            return _Tick(ports=clock.ports(), ask=ask, begun=begun, clock=clock, ends=ends).run()
        except TickRefused as error:
            return _refusal(str(error), destroyed=isinstance(error, ProjectDestroyed))
        except OtherWorld:
            continue
    return _refusal("another state of this project appeared, again and again, while this was planned: try again")


def _unfit(state: State, ask: TickAsk) -> str:
    """Why this program may not tick here; "" if it may. The documents at hand rule, else the applied ones."""
    desired = ask.documents.desired if ask.documents else state.applied.desired if state.applied else ask.carried
    if desired is not None and desired.requires:
        from reconciler.config.version_pin import unmet_requirement

        if why := unmet_requirement(desired.requires):
            return why
    return older(state.version) if ask.act else ""


def _refusal(why: str, *, destroyed: bool = False) -> TickResult:
    empty = Plan(version=1, project="", generation=0)
    return TickResult(state=None, plan=empty, approved=empty, refused=why, destroyed=destroyed)


@dataclass(kw_only=True)
class _Tick:
    ports: Ports
    ask: TickAsk
    begun: Begin
    clock: PassClock
    ends: float
    plans: list[Plan] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    written: int = 0
    asked_for_results: set[str] = field(default_factory=set)

    def run(self) -> TickResult:
        view = self._look()
        for _ in range(OFFERS):
            decision = decide(self.ports, self.ask, view, look=self._look, store=self._store, clock=self.clock)
            self.plans.append(decision.plan)
            self.written += decision.written
            if decision.declined or not self.ask.act:
                return self._result(decision, state=decision.state)
            self._tell(decision.state)
            decision.view.connections.confirm_ended(decision.state)
            state, outcomes = self._act(decision, view.connections)
            if self._over() or not any(isinstance(outcome, AGAIN_AFTER) for outcome in outcomes):
                return self._result(decision, state=state)
            refused, sent = _refused_by_pool(state, outcomes), sum(map(requests, self.plans))
            view = dataclasses.replace(decision.view, fresh=False, refused=refused, sent=sent)
            self.ask = dataclasses.replace(self.ask, documents=None, wish=None, permissions=decision.permissions)
        tried = any(isinstance(outcome, LaunchRefused) for outcome in outcomes)
        return self._result(decision, state=state, notes=(TRIED,) if tried else ())

    def _look(self) -> View:
        connections = Connections(self.ports, self.begun.state.lineage)
        observed = observe(
            self.clock.observing(),
            self.begun.state,
            connections,
            but=self._left_out(),
            needs=needs_asked(self.ask, self.begun.state),
            renew=self.ask.act,
            hasty=self.ask.hasty,
        )
        read = (self.begun.stored, self.begun.token) if not self.plans else None
        return View(
            before=self.begun.state,
            missing=self.begun.missing,
            connections=connections,
            observed=observed,
            read=read,
        )

    def _store(self, view: View, plan: Plan) -> bool:
        """Results that the plan waits for are stored, each is tried once; then it is made anew."""
        found = awaited_results(plan) - self.asked_for_results
        if not found or self.ask.hasty or self._over():
            return False
        self.asked_for_results |= found
        outcomes, written = store_results(self.ports, view, found, clock=self.clock, stop=self._over, tell=self._tell)
        self.outcomes += outcomes
        self.written += written
        return bool(outcomes)

    def _left_out(self) -> frozenset[str]:
        """Failing hosts that are not due; who sits there and waits may have mended one just now.

        In haste also every place that the scope has nothing in.
        """
        scope = self.ask.permissions.scope
        if self.ask.hasty and scope is not None:
            concerned = {one.place for one in self.begun.state.instances if one.id in scope}
            return frozenset(place.name for place in self.begun.state.places if place.name not in concerned)
        every = not self.ports.unattended if self.ask.retry_hosts is None else self.ask.retry_hosts
        return frozenset() if every else put_off(self.begun.state, now=self.ports.now(), who=self.ports.who)

    def _act(self, decision: Decision, connections: Connections) -> tuple[State, list[Outcome]]:
        """The effects of a written state, and those that only their folds show, each once."""
        state, since = decision.state, decision.since
        begun: set[Effect] = set()
        outcomes: list[Outcome] = []
        for _ in range(WAVES):
            found = effects(state, now=self.ports.now(), sent_here=decision.scheduled)
            todo = [effect for effect in found if effect not in begun]
            if not todo:
                break
            if self._over():
                state = self._fold(state, [one for effect in todo if (one := not_sent(effect))])
                break
            begun.update(todo)
            state, came = self._wave(state, todo, connections, since=since)
            outcomes, since = outcomes + came, self.ports.clock()
        self.outcomes += outcomes
        return state, outcomes

    def _wave(
        self, state: State, todo: list[Effect], connections: Connections, *, since: float
    ) -> tuple[State, list[Outcome]]:
        """Results are written while others are still under way, but not so often that writing is the work."""
        clock = self.ports.clock
        came: list[Outcome] = []
        waiting: list[Outcome] = []
        cost, last = 0.0, clock()
        for outcome in execute(
            self.ports, state, todo, connections=connections, since=since, stop=self._over, hasty=self.ask.hasty
        ):
            came.append(outcome)
            waiting.append(outcome)
            if clock() - last >= max(SOONEST, TIMES * cost):
                began = clock()
                state = self._fold(state, waiting)
                waiting, last = [], clock()
                cost = last - began
        return self._fold(state, waiting), came

    def _fold(self, state: State, outcomes: list[Outcome]) -> State:
        if not outcomes:
            return state
        now = self.ports.now()
        state, written = land(self.ports, lambda latest: self.clock.folded(latest, outcomes, now=now))
        self.written += written
        self._tell(state)
        return state

    def _over(self) -> bool:
        return self.ask.stop() or self.ports.clock() >= self.ends or self._ahead()

    def _ahead(self) -> bool:
        return any(isinstance(outcome, Ahead) for outcome in self.outcomes)

    def _tell(self, state: State) -> None:
        if self.ask.tell is not None:
            self.ask.tell(state)

    def _result(self, decision: Decision, *, state: State, notes: tuple[str, ...] = ()) -> TickResult:
        first, last = self.plans[0], self.plans[-1]
        told: Sequence[str] = ()
        if self.written and self.ports.tidy is not None and due(self.begun.stored, state):
            apart = self.clock.reading.why
            told = (f"old blobs were not removed: {apart}",) if apart else self.ports.tidy(state)
        actions = once_each(self.plans)
        plan = replace(last, actions=actions, hourly_before=first.hourly_before, generation=first.generation)
        return TickResult(
            state=state,
            plan=plan,
            approved=decision.view.approved or first,
            outcomes=tuple(self.outcomes),
            declined=decision.declined,
            ahead=self._ahead(),
            written=self.written,
            permissions=decision.permissions,
            warnings=(
                *decision.warnings,
                *notes,
                *_armed(self.outcomes),
                *_kept(self.outcomes),
                *told,
                *decision.view.connections.notes(),
            ),
        )


def _armed(outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    """By the end of the tick nothing else shows it, and whoever runs jobs there ought to be asked."""
    return tuple(
        f"{one.name}: its {one.why}: a job may have done that; it is armed again"
        for one in outcomes
        if isinstance(one, Armed)
    )


def _kept(outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    return tuple(
        f"{key} was not removed: {why}" for one in outcomes if isinstance(one, Removed) for key, why in one.kept
    )


def _refused_by_pool(state: State, outcomes: Sequence[Outcome]) -> dict[str, int]:
    """pool -> how many machines were refused: so many may be sought elsewhere."""
    refused = {one.intent: one.ids for one in outcomes if isinstance(one, LaunchRefused)}
    found: dict[str, int] = {}
    for instance in state.instances:
        ids = refused.get(instance.launch)
        if ids is not None and (not ids or instance.id in ids):
            found[instance.pool] = found.get(instance.pool, 0) + 1
    return found
