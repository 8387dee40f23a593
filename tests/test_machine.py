"""A project lived through at random: people, reconcilers and places do what they do, and the laws hold.

Every write of the state is held against the truth of the world (`tests/laws.py`), every step against what may
not happen in between; at the end the world stands still, and everything must come to rest.

To replay a failure: hypothesis prints the steps, a `@reproduce_failure(...)` line to put above
`TestMachine`, and keeps the example in `.hypothesis/`, so that the next run begins with it. A whole run is repeated
by `pytest tests/test_machine.py --hypothesis-seed=N`. `HYPOTHESIS_PROFILE=long` looks for longer.
"""

from __future__ import annotations

import os
from decimal import Decimal
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from machine import EVERYTHING, KINDS, PLACES, POOL_B, Field, Sleeper, state_of
from msgspec.structs import replace
from test_crash import Killer
from world import task

from backends.base import BackendError, NoCapacity, TryLater
from backends.fake import Fault
from reconciler.ask import TickAsk
from reconciler.plan import plan
from reconciler.rebuild import RebuildRefused
from reconciler.wish import add_instances, add_run, clear_override, remove_instance, set_override, stop_run
from reconciler.world import World
from schemas.desired import Cap
from schemas.plan import Launch, Plan
from schemas.profile import Retry
from schemas.resources import Where
from schemas.run import LIVE_JOB, RUN_ENDED, Run, RunSpec
from schemas.state import State, Wish

PEOPLE = ("ann@laptop", "bob@laptop", "cron@ci")
AGAIN = Retry(no_capacity=True, interruption=True, error=True)
who = st.sampled_from(PEOPLE)
places = st.sampled_from(PLACES)
effect = st.integers(1, 12)
times = st.sampled_from([5, 20, 20, 70, 130, 400, 700, 1300, 4000, 15_000])


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.field = Field()

    @initialize(lag=st.integers(0, 2), boot=st.sampled_from([0, 0, 30]), ending=st.sampled_from([0, 40]))
    def begin(self, lag: int, boot: int, ending: int) -> None:
        world = self.field.site.world
        world.lag, world.boot, world.ending = lag, boot, ending
        self.field.edit_pool("a", nodes_min=1)
        for name, nodes, retry in (("red", 1, AGAIN), ("green", 2, Retry())):
            self.field.edit_run(spec_of(name, version=1, nodes=nodes, pool="a", retry=retry, spot="auto", priority=50))
        self.field.apply(self.field.newest)

    # ------------------------------------------------------------ reconcilers

    @rule(who=who, seconds=times)
    def cron(self, who: str, seconds: int) -> None:
        self.field.site.clock.at += seconds
        self.field.cron(who)

    @rule(seconds=st.sampled_from([10, 20, 45, 330]), number=st.integers(2, 5))
    def time_passes(self, seconds: int, number: int) -> None:
        for _ in range(number):
            self.cron(who="cron@ci", seconds=seconds)

    @rule(who=who, ends=st.booleans())
    def apply(self, who: str, ends: bool) -> None:
        asked = {} if ends else {"permissions": replace(EVERYTHING, destroy_pools=())}
        self.field.apply(self.field.newest, who=who, **asked)

    @rule(who=who, at=effect, after=st.booleans(), applies=st.booleans())
    def killed(self, who: str, at: int, after: bool, applies: bool) -> None:
        killer = Killer(at, after=after)
        if applies:
            self.field.apply(self.field.newest, who=who, around=killer)
        elif self.field.site.store.data:
            self.field.tick(who, TickAsk(), around=killer)

    @rule(at=effect, after=st.booleans(), seconds=st.sampled_from([0, 20, 400, 4000, 30_000]), number=st.integers(1, 3))
    def asleep_between_two_effects(self, at: int, after: bool, seconds: int, number: int) -> None:
        """Ann's machine sleeps in the middle of a tick, while Bob and cron go on."""

        def nap() -> None:
            self.field.site.clock.at += seconds
            for _ in range(number):
                self.field.cron("bob@laptop")
                self.field.site.clock.at += 15

        if self.field.site.store.data:
            self.field.tick("ann@laptop", TickAsk(), around=Sleeper(at, after=after, nap=nap))

    @precondition(lambda self: self.field.applied() > 0)
    @rule(back=st.integers(1, 5), who=who)
    def an_older_checkout(self, back: int, who: str) -> None:
        field = self.field
        number = field.applied() - back
        was = state_of(field)
        if number < 0 or was is None:
            return
        result = field.apply(number, who=who)
        now = state_of(field)
        assert now is not None
        assert result.refused or field.commits[number] == field.commits[field.applied()]
        assert now.applied is not None
        assert was.applied is not None
        assert now.applied.desired == was.applied.desired, "an older checkout changed a declaration"
        assert not result.refused or now == was

    @precondition(lambda self: self.field.applied() > 0)
    @rule(back=st.integers(1, 5))
    def an_older_checkout_is_forced(self, back: int) -> None:
        self.field.apply(max(0, self.field.applied() - back), config_force=True)

    @rule(who=who, seconds=st.sampled_from([0, 0, 40, -40, 7200, -7200]))
    def a_clock_is_off(self, who: str, seconds: int) -> None:
        self.field.skew[who] = seconds

    # ------------------------------------------------------------ people

    @rule(least=st.integers(0, 2), more=st.sampled_from([0, 1, 2, None]), idle=st.sampled_from([60, 600, None]))
    def pool_edited(self, least: int, more: int | None, idle: int | None) -> None:
        self.field.edit_pool("a", nodes_min=least, nodes_max=None if more is None else least + more, idle_duration=idle)

    @rule(there=st.booleans(), protected=st.booleans())
    def second_pool(self, there: bool, protected: bool) -> None:
        pools = tuple(pool for pool in self.field.commits[-1].pools if pool.name != "b")
        second = replace(POOL_B, prevent_destroy=protected)
        self.field.edit(pools=(*pools, second) if there else pools)

    @rule(
        name=st.sampled_from(["red", "green", "blue"]),
        nodes=st.sampled_from([1, 1, 2, 3]),
        pool=st.sampled_from(["a", "a", "b"]),
        retry=st.sampled_from([Retry(), AGAIN]),
        spot=st.sampled_from(["on-demand", "spot", "auto"]),
        version=st.integers(1, 3),
        priority=st.sampled_from([10, 50]),
    )
    def run_edited(self, name: str, version: int, **fields: Any) -> None:
        self.field.edit_run(spec_of(name, version=version, **fields))

    @rule(name=st.sampled_from(["red", "green", "blue"]))
    def run_deleted(self, name: str) -> None:
        self.field.edit(runs=tuple(spec for spec in self.field.commits[-1].runs if spec.name != name))

    @rule(budget=st.sampled_from([None, Decimal("2.50"), Decimal("6.00")]), caps=st.sampled_from([(), (1,), (3,)]))
    def limits_edited(self, budget: Decimal | None, caps: tuple[int, ...]) -> None:
        self.field.edit(budget=budget, caps=tuple(Cap(instance_type="small", max=each) for each in caps))

    @rule(regions=st.sampled_from([("r1", "r2"), ("r1",), ("r2",)]))
    def regions_edited(self, regions: tuple[str, ...]) -> None:
        """A place may leave the documents while it has instances."""
        self.field.trouble = {place: kind for place, kind in self.field.trouble.items() if kind != "stranger"}
        (backend,) = self.field.commits[-1].backends
        self.field.edit(backends=(replace(backend, regions=regions),))

    @rule(nodes=st.sampled_from([1, 2]), pool=st.sampled_from(["a", "b"]))
    def run_wished(self, nodes: int, pool: str) -> None:
        field = self.field
        field.wished += 1
        spec = spec_of(f"w{field.wished}", version=1, nodes=nodes, pool=pool, retry=AGAIN, spot="auto", priority=50)
        run = Run(id=f"wish{field.wished:03d}r1", spec=replace(spec, hash=""), submitted_at=field.site.clock.now())
        self._wish(lambda state: add_run(state, run))

    @rule(number=st.integers(1, 5), abort=st.booleans())
    def run_stopped(self, number: int, abort: bool) -> None:
        now = self.field.site.clock.now()
        name = ("red", "green", "blue", "w1", "w2")[number - 1]
        self._wish(lambda state: stop_run(state, name, by="ann", now=now, abort=abort))

    @rule(count=st.integers(1, 2))
    def instances_added(self, count: int) -> None:
        field = self.field
        field.wished += 1
        wish = Wish(id=f"w{field.wished}", pool="a", count=count, at=field.site.clock.now(), idle_duration=1000)
        self._wish(lambda state: add_instances(state, wish))

    @rule(number=st.integers(0, 3), force=st.booleans())
    def instance_removed(self, number: int, force: bool) -> None:
        now = self.field.site.clock.now()
        self._wish(lambda state: remove_instance(state, f"a-{number}", by="ann", now=now, force=force))

    @rule(kind=st.sampled_from(["drain", "pause", "resume"]), stop_after=st.sampled_from([None, 300]))
    def pool_overridden(self, kind: Any, stop_after: int | None) -> None:
        now = self.field.site.clock.now()
        if kind == "resume":
            self._wish(lambda state: clear_override(state, subject="a"))
        else:
            self._wish(
                lambda state: set_override(
                    state, kind=kind, subject="a", by="ann", now=now, until=now + 3000, stop_after=stop_after
                )
            )

    def _wish(self, wish: Any) -> None:
        if self.field.applied() >= 0:
            self.field.cron("ann@laptop", wish=wish)

    # ------------------------------------------------------------ places

    @rule(kinds=st.sets(st.sampled_from(KINDS)))
    def sold_out(self, kinds: set[str]) -> None:
        self.field.site.world.sold_out = kinds

    @rule(
        call=st.sampled_from(["launch", "launch", "terminate", "instances", "instances_by_id", "identity", "prepare"]),
        error=st.sampled_from([TryLater("slow down"), NoCapacity("none now"), BackendError("no permission")]),
        times=st.integers(1, 3),
        after=st.booleans(),
    )
    def fault(self, call: str, error: BackendError, times: int, after: bool) -> None:
        """Throttled, refused for good, or done with its answer lost."""
        if after and call == "launch":
            error = TryLater("timed out")
        self.field.site.world.faults.append(Fault(call=call, error=error, times=times, after=after))

    @rule(place=places, kind=st.sampled_from(["silent", "stranger", "empty", "", "", ""]))
    def trouble(self, place: str, kind: str) -> None:
        state = state_of(self.field)
        pinned = {one.name for one in state.places if one.identity} if state else set()
        if kind != "stranger" or place in pinned:
            self.field.trouble[place] = kind

    @rule(number=st.integers(0, 3), how=st.sampled_from(["interrupt", "reboot", "silent", "speaks"]))
    def machine_hit(self, number: int, how: str) -> None:
        world = self.field.site.world
        living = world.living()
        if number >= len(living):
            return
        if how in ("interrupt", "reboot"):
            getattr(world, how)(living[number].external_id)
        else:
            living[number].silent = how == "silent"

    @rule(place=places, silent=st.booleans())
    def place_cut_off(self, place: str, silent: bool) -> None:
        for machine in self.field.site.world.living():
            if machine.request.place == place:
                machine.silent = silent

    # ------------------------------------------------------------ the state

    @rule()
    def backed_up(self) -> None:
        self.field.backups.append(self.field.site.store.data)

    @precondition(lambda self: self.field.backups)
    @rule(rebuilt=st.booleans())
    def restored(self, rebuilt: bool) -> None:
        """An older state is put back. Where the world shows it, it is refused."""
        field, backup = self.field, self.field.backups[-1]
        newest = field.site.store.data
        if not self._shows(backup):
            return
        field.site.store.data = backup
        assert field.refuses(), "a restored backup was used"
        if not rebuilt or not self._rebuilt():
            field.site.store.data = newest

    def _shows(self, backup: bytes) -> bool:
        """A host or a tag that every look sees carries a generation that the backup does not know."""
        field, site = self.field, self.field.site
        now = site.store.data
        if not backup or not now or any(field.trouble.values()) or site.world.faults or site.world.lag:
            return False
        state = state_of(field)
        assert state is not None
        site.store.data = backup
        old = state_of(field)
        site.store.data = now
        if old is None or old.lineage != state.lineage or {one.name for one in old.places} != set(PLACES):
            return False
        tags = [one.request.generation for one in site.world.living() if one.request.lineage == state.lineage]
        return max(tags, default=0) > old.generation

    @rule()
    def lost(self) -> None:
        """The state is gone. While anything lives, nothing is begun anew."""
        field = self.field
        living = [one for one in field.site.world.living() if f"fake/{one.region}" in self._asked()]
        if not living or any(field.trouble.values()) or field.site.world.lag or not field.site.store.data:
            return
        kept, field.site.store.data = field.site.store.data, b""
        result = field.apply(field.newest)
        assert result.refused
        assert not field.site.store.data
        if not self._rebuilt():
            field.site.store.data = kept

    def _asked(self) -> set[str]:
        (backend,) = self.field.commits[-1].backends
        return {f"fake/{region}" for region in backend.regions}

    def _rebuilt(self) -> bool:
        """A person rebuilds when all is in sight: every place in the documents, every host answering."""
        field, world = self.field, self.field.site.world
        if self._asked() != set(PLACES) or any(one.silent for one in world.living()) or any(field.trouble.values()):
            return False
        if any(field.site.clock.now() < one.born + world.boot for one in world.living()) or world.lag:
            return False
        try:
            field.rebuild()
        except RebuildRefused:
            return False
        field.backups.clear()
        return True

    # ------------------------------------------------------------ what holds at every moment

    @invariant()
    def no_law_is_broken(self) -> None:
        assert not self.field.broken, "\n".join(self.field.broken)

    @invariant()
    def nothing_happens_twice(self) -> None:
        world = self.field.site.world
        assert [id for id, count in world.launched.items() if count > 1] == [], "launched twice"
        assert [id for id, count in world.started.items() if count > 1] == [], "started twice"

    @invariant()
    def the_order_of_records_plans_nothing(self) -> None:
        state = state_of(self.field)
        if state is not None and state.applied is not None:
            one, other = self._planned(state), self._planned(turned(state))
            differ = set(meaning(one)) ^ set(meaning(other))
            assert not differ, f"the order decides: {sorted(differ)}"

    def _planned(self, state: State) -> Plan:
        assert state.applied is not None
        world, now = self.field.site.world, self.field.site.clock.now()
        return plan(World(desired=state.applied.desired, state=state, offers=world.offers, now=now, nonce="n0000000"))

    # ------------------------------------------------------------ the world stands still

    def teardown(self) -> None:
        result = self.field.rest()
        self.no_law_is_broken()
        self.nothing_happens_twice()
        state = state_of(self.field)
        assert state is not None
        self._everything_has_an_owner(state)
        self._every_result_is_told(state)
        self._floors_are_held(state, result.plan)
        self._nothing_waits(state, result.plan)
        again = self.field.apply(self.field.newest)
        assert (again.refused, again.plan.actions, again.outcomes) == ("", (), ())

    def _everything_has_an_owner(self, state: State) -> None:
        owned = {one.external_id for one in state.instances if one.phase == "ready" and not one.orphan}
        living = {machine.external_id for machine in self.field.site.world.living()}
        assert living == owned, f"without an owner: {living - owned}, not there: {owned - living}"
        assert not state.intents

    def _every_result_is_told(self, state: State) -> None:
        live = [job for attempt in state.attempts for job in attempt.jobs if job.status in LIVE_JOB]
        assert not live, f"never settled: {live}"
        markers = self.field.site.markers.known
        done = {
            (run.spec.name, run.spec.hash) for run in state.runs if run.status == "done" and run.origin == "declared"
        }
        assert done <= markers, "done without its marker"

    def _floors_are_held(self, state: State, made: Plan) -> None:
        for pool in self.field.commits[-1].pools:
            ready = sum(one.pool == pool.name and one.phase == "ready" for one in state.instances)
            told = any(unmet.subject == f"pool {pool.name}" for unmet in made.unmet)
            assert ready >= pool.nodes_min or told, f"pool {pool.name} has {ready} of {pool.nodes_min}"

    def _nothing_waits(self, state: State, made: Plan) -> None:
        """Whatever waits says why; and only for what it is not to have: money, nodes, a pool, an offer."""
        told = {unmet.subject.removeprefix("run "): unmet.why for unmet in made.unmet}
        for run in state.runs:
            if run.status in RUN_ENDED:
                continue
            why = told.get(run.spec.name, "")
            assert any(word in why for word in LIMITS), f"{run.spec.name} is {run.status}: {why or run.reason}"


LIMITS = ("maximum", "budget", "autoscale", "there is no pool", "held since", "with spot")


def spec_of(name: str, *, version: int, spot: Any, retry: Retry, **fields: Any) -> RunSpec:
    return task(
        name, hash=f"{name}{version}{fields['nodes']}", where=Where(spot=spot), retry=retry, idle_duration=60, **fields
    )


def turned(state: State) -> State:
    """The same memory, every collection the other way round."""
    names = ("places", "instances", "runs", "attempts", "intents", "wishes", "overrides", "capacity", "tombstones")
    return replace(state, **{name: getattr(state, name)[::-1] for name in names})


def meaning(made: Plan) -> list[str]:
    """What a plan does, without the ids that it mints."""
    found = []
    for action in made.actions:
        if isinstance(action, Launch):
            found.append(f"launch {len(action.ids)} {action.pool} {action.offer.place} {action.offer.instance_type}")
        elif getattr(action, "enrol", None) is not None:
            found.append(f"enrol {action.name}")
        else:
            found.append(repr(action))
    return found


TestMachine = Machine.TestCase
TestMachine.settings = (
    settings() if os.environ.get("HYPOTHESIS_PROFILE") == "long" else settings(max_examples=200, stateful_step_count=40)
)
