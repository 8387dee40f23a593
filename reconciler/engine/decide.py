"""From an observation to a written intention: plan, confirm, prepare, write, and again if the state moved.

Planning again is cheap and in memory, on the same observation; what a person approved bounds
every later plan, it never commands one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from reconciler.engine.begin import ProjectDestroyed, TickRefused, pinned, with_launched_places, with_places
from reconciler.engine.catalog import joined
from reconciler.engine.clock_guard import concluded, corrected, requested, withheld_by_the_clock, would_end
from reconciler.engine.pack_runs import RunPacker
from reconciler.engine.pass_clock import PassClock
from reconciler.engine.ports import Ports, lacking_of
from reconciler.engine.prepare import Rendered, prepare
from reconciler.engine.recover_results import Recovered, recover
from reconciler.engine.request import TickAsk
from reconciler.engine.view import Decision, OtherWorld, View
from reconciler.engine.write_state import TRIES, differs, heartbeat_due, jitter, write
from reconciler.planner.failover import failover, left_waiting
from reconciler.planner.launch_tries import OFFERS, within, without_unprepared
from reconciler.planner.plan import plan
from reconciler.planner.world import World, replaced
from reconciler.state.access_modes import with_ways
from reconciler.state.apply_config import (
    apply,
    mark_destroyed,
    takes_away,
    why_destroyed,
)
from reconciler.state.authority import GitFacts, judge
from reconciler.state.capacity_backoff import shun
from reconciler.state.errors import StateMoved, StateRefused
from reconciler.state.observe.merge import absorb, changed_hosts, never_heard_of, strangers, untagged
from reconciler.state.record_plan import intend
from reconciler.state.sending import newly_scheduled, paced
from reconciler.store.markers.folder import markers_needed
from schemas.desired import Desired
from schemas.offer import Offer
from schemas.plan import Launch, Permissions, Plan
from schemas.state import Applied, Capacity, Revision, State

STALE = 60.0  # a prompt that was open for longer: look again before doing anything


Look = Callable[[], View]
Store = Callable[[View, Plan], bool]


def decide(ports: Ports, ask: TickAsk, view: View, *, look: Look, store: Store, clock: PassClock) -> Decision:
    """Plan until what was approved is written. `look` refreshes; `store` collects results that a plan waits for."""
    table = _Table(ports=ports, ask=ask, clock=clock, nonce=ports.nonce(), packer=RunPacker(ports=ports))
    for attempt in range(TRIES):
        since = ports.clock()
        # What was read before the look still does for a first try: a tick with nothing to do reads once.
        early = view.read
        stored, token = early if early is not None else ports.store.read()
        view = dataclasses.replace(view, read=None)
        _same_world(stored, view)
        try:
            draft = table.draft(stored, view)
        except StateRefused:
            if early is None:
                raise
            continue  # it seems to be older than the world: perhaps another wrote and launched while we looked
        if not ask.act:
            return draft.decision(view)
        if store(view, draft.plan):
            continue
        if draft.plan.actions and clock.contradicted():  # before anything is dated
            draft = table.draft(stored, view)
        if ask.confirm is not None and view.approved is None:
            approved = ask.confirm(draft.plan, draft.state)
            if approved is None:
                return draft.decision(view, declined=True)
            stale = ports.clock() - since > STALE
            view = dataclasses.replace(look() if stale else view, approved=approved)
            if stale:
                continue
            since = ports.clock()
            if ask.wish is not None:  # it holds the price that was just agreed to
                draft = table.draft(stored, view)
        chosen, notes = table.chosen(draft, view)
        target = table.intended(draft, chosen, view=view)
        if target is None:
            if table.lacking and ask.wish is None:  # another plan, in which idle instances that it kept may go
                view = dataclasses.replace(view, approved=None)
            continue
        chosen, notes = without_unprepared(chosen, target.intents, notes=notes)
        draft = dataclasses.replace(draft, state=target, plan=chosen, warnings=(*draft.warnings, *notes))
        if stored is not None and not (differs(stored, target) or heartbeat_due(stored, now=ports.now())):
            return draft.decision(view, since=since)
        if clock.contradicted():
            continue
        try:
            written = write(ports, target, was=stored, token=token)
        except StateMoved:
            jitter(ports, attempt)
            continue
        decision = dataclasses.replace(draft, state=written).decision(view, since=since, written=True)
        return dataclasses.replace(decision, scheduled=newly_scheduled(written, was=stored))
    raise TickRefused(f"the state moved {TRIES} times while this was planned: others are busy, try again")


def _same_world(stored: State | None, view: View) -> None:
    if stored is None and not view.missing:
        raise TickRefused("the state is gone since this began: nothing was done")
    if stored is not None and stored.lineage != view.before.lineage:
        raise OtherWorld


@dataclass(frozen=True, kw_only=True)
class _Draft:
    """A state in memory and the plan on it. `was`: the documents applied before this tick."""

    state: State
    plan: Plan
    desired: Desired
    permissions: Permissions
    was: Applied | None
    warnings: tuple[str, ...]

    def decision(self, view: View, *, since: float = 0.0, written: bool = False, declined: bool = False) -> Decision:
        return Decision(
            state=self.state,
            plan=self.plan,
            view=view,
            permissions=self.permissions,
            since=since,
            written=written,
            declined=declined,
            warnings=self.warnings,
        )


@dataclass(kw_only=True)
class _Table:
    """What stays the same from one try to the next: the ids' nonce, what is rendered and packed, what is in the way."""

    ports: Ports
    ask: TickAsk
    clock: PassClock
    nonce: str
    rendered: dict[str, Rendered] = field(default_factory=dict)
    packer: RunPacker
    capacity: tuple[Capacity, ...] = ()
    here: tuple[Capacity, ...] = ()
    """Refusals that only say what this machine lacks: planned around, and never stored."""
    hindered: frozenset[str] = frozenset()
    tried: int = 0
    lacking: dict[str, str] = field(default_factory=dict)
    recovered: dict[str, Recovered] = field(default_factory=dict)

    def draft(self, stored: State | None, view: View) -> _Draft:
        """The state as it is, with what we saw and were asked for, and the plan on that."""
        self.clock.read(stored if stored is not None else view.before, view.observed)
        while (found := self._draft(stored, view)) is None:
            pass  # once at most: the store is asked once, and its clock then counts
        return found

    def _draft(self, stored: State | None, view: View) -> _Draft | None:
        """`None`: something would end, and the store, which was asked only then, says that our clock is wrong."""
        now, clock = self.clock.now(), self.clock
        state = stored if stored is not None else view.before
        was, permissions, warnings = state.applied, self.ask.permissions, view.observed.warnings
        if view.fresh:
            state = with_places(state, self._brought(state))
            warnings += strangers(state, view.observed.listings) + untagged(state, view.observed.listings)
            seen = absorb(
                state,
                listings=view.observed.listings,
                reports=view.observed.reports,
                now=clock.wall(),
                before=view.before,
                offers=self._offers(state, view),
                clocks=clock.reading,
            )
            seen = corrected(seen, was=state, clock=clock)
            warnings += changed_hosts(state, seen) + never_heard_of(seen)
            state, permissions, why = self._asked_for(seen, now=now)
            warnings += why
        if state.applied is None:
            raise TickRefused("nothing is applied yet: `dstack apply`")
        desired = state.applied.desired
        state, why = recover(self.ports, state, known=self.recovered, now=now)
        warnings += why
        if (kept := concluded(state, clock=clock)) is None:
            return None
        state = kept
        state = replace(state, capacity=shun(state.capacity, self.capacity)) if self.capacity else state
        made = plan(self._world(state, view, permissions=permissions, now=now, was=was))
        if would_end(made, permissions=permissions) and clock.contradicted():
            return None
        if clock.reading.apart:
            by_ours = plan(self._world(state, view, permissions=permissions, now=clock.wall(), was=was))
            made = withheld_by_the_clock(
                made, by_ours=by_ours, reading=clock.reading, state=state, permissions=permissions
            )
        return _Draft(state=state, plan=made, desired=desired, permissions=permissions, was=was, warnings=warnings)

    def _offers(self, state: State, view: View) -> Sequence[Offer]:
        """What the backends of the configuration offer, made when first looked at."""
        brought = self._brought(state) or (state.applied.desired if state.applied else None)
        return joined(view.observed.offers, self.ports.catalog(brought) if brought else ())

    def _brought(self, state: State) -> Desired | None:
        """The documents whose places are asked besides the state's."""
        if self.ask.documents is not None:
            return self.ask.documents.desired
        return self.ask.carried if state.applied is None or not state.applied.revision.digest else None

    def _asked_for(self, state: State, *, now: int) -> tuple[State, Permissions, tuple[str, ...]]:
        """With the documents and the wish."""
        ask, permissions = self.ask, self.ask.permissions
        state, warnings = self._revived(state, now=now)
        if ask.documents is not None:
            desired = ask.documents.desired
            mine = ask.revision or Revision(digest=ask.documents.digest)
            if desired.project != state.project:
                raise TickRefused(f"the state is of project {state.project}, these documents of {desired.project}")
            facts = GitFacts(failed=ask.git_failed) if ask.git_failed else None
            if facts is None and state.applied is not None:
                facts = self.ports.facts(mine, state.applied)
            verdict = judge(
                mine,
                applied=state.applied,
                history=state.history,
                facts=facts or GitFacts(),
                authority=desired.authority,
                config_force=ask.config_force,
            )
            verdict = verdict if ask.act else verdict.planned
            if not verdict.accept:
                raise TickRefused(verdict.why)
            may_end = verdict.may_end and (not verdict.ask_end or ask.prompted)
            named = permissions.destroy_pools if verdict.may_end else ()
            permissions = replace(permissions, may_end=permissions.may_end and may_end, destroy_pools=named)
            needless = verdict.ask_end and not takes_away(state.applied, desired)
            warnings += () if needless or (may_end and not verdict.once_merged) else (verdict.why,)
            if verdict.keep_revision and state.applied is not None:
                mine = state.applied.revision
            state = with_ways(apply(state, desired=desired, revision=mine, by=self.ports.who, now=now))
        if ask.wish is not None:
            state = with_places(requested(ask.wish(state), was=state, clock=self.clock), ask.carried)
        return state, permissions, warnings

    def _revived(self, state: State, *, now: int) -> tuple[State, tuple[str, ...]]:
        """A destroyed project stays so, unless a person said otherwise. What a scope covers only ends there."""
        if self.ask.permissions.destroy_all:
            return mark_destroyed(state, by=self.ports.who, now=now), ()
        why = why_destroyed(state)
        if not why or self.ask.permissions.scope is not None:
            return state, ()
        if self.ask.revive:
            return replace(state, destroyed=None), ()
        if self.ask.act:
            raise ProjectDestroyed(why)
        return state, (why,)

    def _world(self, state: State, view: View, *, permissions: Permissions, now: int, was: Applied | None) -> World:
        assert state.applied is not None  # noqa: S101 - checked by the only caller
        desired = state.applied.desired
        lacking, assumed = lacking_of(self.ports, state, desired, acts=self.ask.act)
        return World(
            desired=desired,
            priced=not self.ask.act,
            state=replace(state, capacity=shun(state.capacity, self.here)) if self.here else state,
            offers=self._offers(state, view),
            now=now,
            nonce=self.nonce,
            permissions=permissions,
            lacking=lacking | self.lacking,
            assumed=assumed,
            done=markers_needed(self.ports.markers, state, desired),
            goes_on=self.ask.goes_on,
            before=replaced(was, desired),
            lapses=not self.clock.reading.apart,
        )

    def chosen(self, draft: _Draft, view: View) -> tuple[Plan, tuple[str, ...]]:
        """What of the plan was approved and is done now, and what is said of the rest."""
        chosen, asked = draft.plan, view.approved is not None and self.ask.approved_starts
        if view.approved is not None:
            chosen = failover(chosen, view.approved, refused=view.refused, hindered=self.hindered, starts=asked)
        waiting = left_waiting(draft.plan, chosen)
        chosen, notes = within(chosen, sent=view.sent)
        chosen, late = paced(draft.state, chosen, now=self.ports.now())
        return chosen, (*notes, *late, *waiting)

    def intended(self, draft: _Draft, chosen: Plan, *, view: View) -> State | None:
        """The state with the plan's marks; `None` where something is in the way: plan around it."""
        launches = [one for one in chosen.actions if isinstance(one, Launch)]
        state = with_launched_places(draft.state, draft.desired, launches)
        prepared = prepare(
            self.ports,
            chosen,
            state,
            desired=draft.desired,
            connections=view.connections,
            ready=self.rendered,
        )
        if prepared.hindered:
            self.capacity += prepared.capacity
            self.here += prepared.here
            self.hindered |= prepared.pools
            self.lacking |= prepared.lacking
            self.tried += bool(prepared.capacity or prepared.here)
            if prepared.lacking or self.tried < OFFERS:
                return None
            state = replace(state, capacity=shun(state.capacity, self.capacity))
        state = pinned(state, prepared.identities)
        target = intend(state, chosen, now=self.ports.now(), requests=prepared.requests)
        return self.packer.with_files(target, self.ask.documents, was=draft.was)
