"""A project lived through at random: people, reconcilers and places do what they do, and the laws hold.

Every write of the state is held against the truth of the world (`tests/contracts/laws.py`), every step against what may
not happen in between; at the end the world stands still, and everything must come to rest.

`make test` lives through the same 200 projects every time; `make chaos` through others, by a seed that it prints.
The same seed is the same run: `make chaos SEED=N`, or this file alone with `HYPOTHESIS_PROFILE=long
pytest tests/engine/test_machine.py --hypothesis-seed=N`. Hypothesis prints the steps of the shortest failure that
it finds. The backends of each project are of one of the fake's types (`FAKES`): requests with a token, by name or sent
once, one account or regions, paced, machines that are containers; some refuse late, some list late.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule
from msgspec.structs import replace

from backends.errors import BackendError, CallFailed, NoCapacity, TryLater
from backends.fake.backend import Fault
from reconciler.engine.request import TickAsk
from reconciler.planner.plan import plan
from reconciler.planner.world import World
from reconciler.state.rebuild import RebuildRefused
from schemas.backend_types import FAKES
from schemas.plan import Launch, Plan
from schemas.profile import Retry
from schemas.run import RUN_ENDED, Attempt
from schemas.state import State
from tests.chaos.killer import Killer, Sleeper
from tests.chaos.machine import EVERYTHING, FOR_EVER, KINDS, PLACES, Field, jump, state_of
from tests.chaos.people import AGAIN, People, in_blocks, spec_of, who
from tests.worlds.world import START

places = st.sampled_from(PLACES)
DAY = 86400
WRONG = (40 * DAY, -40 * DAY, 40 * 365 * DAY, -START)
"""Seconds by which a clock is ahead."""
SHAPES = tuple(kind.name for kind in FAKES)
effect = st.integers(1, 12)
times = st.sampled_from([5, 20, 20, 70, 130, 400, 700, 1300, 4000, 15_000])


class Machine(People):
    def __init__(self) -> None:
        super().__init__()
        self.field = Field()

    @initialize(
        lag=st.integers(0, 2),
        boot=st.sampled_from([0, 0, 30]),
        ending=st.sampled_from([0, 40]),
        shown=st.sampled_from([None, None, 0, 600]),
        blocks=st.sampled_from([1, 1, 0, 2]),
        kind=st.sampled_from(SHAPES),
        delay=st.sampled_from([0, 0, 600]),
        late=st.sampled_from(["", "", "small"]),
        dated=st.booleans(),
    )
    def begin(
        self,
        lag: int,
        boot: int,
        ending: int,
        shown: int | None,
        blocks: int,
        kind: str,
        delay: int,
        late: str,
        dated: bool,
    ) -> None:
        world = self.field.site.world
        self.field.dated = dated
        self.field.shape(kind)
        world.delay = delay if world.kind.launch == "once" else 0
        world.late |= {late} - {""}
        world.lag, world.boot, world.ending, world.shown = lag, boot, ending, shown
        self.field.edit_pool("a", nodes_min=1, **in_blocks(blocks))
        for name, nodes, retry in (("red", 1, AGAIN), ("blue", 1, AGAIN), ("green", 2, Retry())):
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

    @rule(
        at=effect,
        after=st.booleans(),
        checkout=st.sampled_from([None, None, 0, 1, 3]),
        seconds=st.sampled_from([0, 20, 400, 4000, 30_000]),
        meanwhile=st.lists(st.sampled_from(["cron", "cron", "apply", "older"]), min_size=1, max_size=3),
    )
    def asleep_between_two_effects(
        self, at: int, after: bool, checkout: int | None, seconds: int, meanwhile: list[str]
    ) -> None:
        """Ann's machine sleeps in the middle of a tick or an apply, while Bob, whose checkout is another, goes on."""
        field = self.field
        sleeper = Sleeper(at, after=after, meanwhile=self._others(meanwhile, seconds=seconds))
        if checkout is not None:
            field.apply(max(0, field.newest - checkout), around=sleeper)
        elif field.site.store.data:
            field.tick("ann@laptop", TickAsk(), around=sleeper)

    @rule(
        checkout=st.integers(0, 3),
        seconds=st.sampled_from([5, 400, 30_000]),
        meanwhile=st.lists(st.sampled_from(["cron", "apply", "older"]), min_size=1, max_size=3),
    )
    def asleep_at_the_prompt(self, checkout: int, seconds: int, meanwhile: list[str]) -> None:
        """Ann says yes to a plan that she was shown hours ago."""
        nap = self._others(meanwhile, seconds=seconds)

        def confirm(shown: Plan, state: State) -> Plan:
            nap()
            return shown

        self.field.apply(max(0, self.field.newest - checkout), confirm=confirm)

    def _others(self, meanwhile: list[str], *, seconds: int) -> Callable[[], None]:
        field = self.field

        def nap() -> None:
            field.site.clock.at += seconds
            for what in meanwhile:
                if what == "apply":
                    field.apply(field.newest, who="bob@laptop")
                elif what == "older":
                    field.apply(max(0, field.newest - 2), who="bob@laptop")
                else:
                    field.cron("bob@laptop")
                field.site.clock.at += 15

        return nap

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

    @precondition(lambda self: self.field.dated)
    @rule(who=who, seconds=st.sampled_from(WRONG))
    def a_clock_is_far_off(self, who: str, seconds: int) -> None:
        """By a month and more, by decades, or in 1970. Places tell the time."""
        self.field.skew[who] = seconds

    @rule(number=st.integers(0, 3), seconds=st.sampled_from([0, 0, *WRONG]))
    def the_clock_of_a_host_is_off(self, number: int, seconds: int) -> None:
        """Jobs can set it, and it says nothing of others."""
        living = self.field.site.world.living()
        if number < len(living) and (self.field.dated or len(living) > 1):
            living[number].ahead = seconds

    # ------------------------------------------------------------ places

    @rule(lag=st.integers(0, 2))
    def lagging(self, lag: int) -> None:
        self.field.site.world.lag = lag

    @rule(kinds=st.sets(st.sampled_from(KINDS)))
    def sold_out(self, kinds: set[str]) -> None:
        self.field.site.world.sold_out = kinds

    @rule(
        call=st.sampled_from(["launch", "launch", "terminate", "instances", "instances_by_id", "identity", "prepare"]),
        error=st.sampled_from([TryLater("slow down"), NoCapacity("none now"), BackendError("no permission")]),
        times=st.integers(1, 3),
        after=st.booleans(),
    )
    def fault(self, call: str, error: CallFailed, times: int, after: bool) -> None:
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

    @rule(number=st.integers(0, 1), broken=st.sampled_from([0, 1, 1, 2]))
    def a_gpu_breaks(self, number: int, broken: int) -> None:
        """Of a host that has some; or it is mended."""
        having = [machine for machine in self.field.site.world.living() if machine.gpus]
        if number < len(having):
            having[number].broken = broken

    @rule(place=places, silent=st.booleans())
    def place_cut_off(self, place: str, silent: bool) -> None:
        for machine in self.field.site.world.living():
            if machine.request.place == place:
                machine.silent = silent

    @rule(gate=st.sampled_from(["gate-0", "gate-1"]), silent=st.booleans())
    def jump_cut_off(self, gate: str, silent: bool) -> None:
        """The hosts behind one jump, in every place, are lost together, and come back together."""
        for machine in self.field.site.world.living():
            if jump(machine.external_id) == gate:
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
        if not backup or not now or any(field.trouble.values()) or site.world.faults or field.listings_are_late():
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
        if not living or any(field.trouble.values()) or field.listings_are_late() or not field.site.store.data:
            return
        kept, field.site.store.data = field.site.store.data, b""
        result = field.apply(field.newest)
        assert result.refused
        assert not field.site.store.data
        if not self._rebuilt():
            field.site.store.data = kept

    def _asked(self) -> set[str]:
        return {f"fake/{region}" for backend in self.field.commits[-1].backends for region in backend.regions}

    def _rebuilt(self) -> bool:
        """A person rebuilds when all is in sight: every place in the documents, every host answering."""
        field, world = self.field, self.field.site.world
        if self._asked() != set(PLACES) or any(one.silent for one in world.living()) or any(field.trouble.values()):
            return False
        if any(field.site.clock.now() < one.born + world.boot for one in world.living()) or field.listings_are_late():
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
            one, other = self._planned(state), self._planned(reversed_records(state), turned=True)
            differ = set(meaning(one)) ^ set(meaning(other))
            assert not differ, f"the order decides: {sorted(differ)}"

    def _planned(self, state: State, *, turned: bool = False) -> Plan:
        assert state.applied is not None
        world, now = self.field.site.world, self.field.site.clock.now()
        offers = tuple(world.offers)[:: -1 if turned else 1]
        return plan(World(desired=state.applied.desired, state=state, offers=offers, now=now, nonce="n0000000"))

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
        """Whatever ran on a machine has ended for us too, with its log or a reason; only services go on."""
        live = [each for each in state.attempts if each.live and not self._lasts(each)]
        assert not live, f"never settled: {live}"
        watch, world = self.field.watch, self.field.site.world
        begun = {id: job for machine in world.machines.values() for id, job in machine.jobs.items()}
        for id, truth in begun.items():
            if truth.started_at is None or id in watch.unknown:
                continue
            told = watch.told.get(id)
            assert told is not None, f"{id} was started, and nobody ever knew it"
            assert told.status not in ("assigned", "ended"), f"{id} is {told.status}"
            assert told.status != "done" or truth.exit_code == 0, f"{id} is done, with {truth.exit_code}"
            assert told.status in ("running", "done") or told.reason, f"{id} is {told.status} without a reason"
        markers = self.field.site.markers.known
        done = {
            (run.spec.name, run.spec.hash)
            for run in state.runs
            if run.status == "done" and run.origin == "declared" and run.spec.type == "task"
        }
        assert done <= markers, "done without its marker"

    def _lasts(self, attempt: Attempt) -> bool:
        """It is a service's, and truly goes on."""
        machines = self.field.site.world.living()
        truths = [machine.jobs.get(job.id) for job in attempt.jobs for machine in machines]
        return all(truth.ends_at == (truth.started_at or 0) + FOR_EVER for truth in truths if truth) and any(truths)

    def _floors_are_held(self, state: State, made: Plan) -> None:
        for pool in self.field.commits[-1].pools:
            ready = sum(one.pool == pool.name and one.phase == "ready" for one in state.instances)
            told = [unmet.why for unmet in made.unmet if unmet.subject == f"pool {pool.name}"]
            excused = any(word in why for word in self._limits() for why in told)
            assert ready >= pool.nodes_min or excused, f"pool {pool.name} has {ready} of {pool.nodes_min}: {told}"

    def _nothing_waits(self, state: State, made: Plan) -> None:
        """Whatever waits says why; and only for what it is not to have: money, nodes, a pool, an offer."""
        told = {unmet.subject.removeprefix("run "): unmet.why for unmet in made.unmet}
        serving = Counter(each.run for each in state.attempts if each.live and self._lasts(each))
        for run in state.runs:
            # A rebuild does not know what a removed run was: it is a task that never ends.
            whole = serving[run.id] >= (run.spec.replicas if run.spec.type == "service" else 1)
            if run.status in RUN_ENDED or whole:
                continue
            why = told.get(run.spec.name, "")
            assert any(word in why for word in self._limits()), f"{run.spec.name} is {run.status}: {why or run.reason}"

    def _limits(self) -> tuple[str, ...]:
        gangs = () if self.field.site.kind.gang != "none" else ("nodes of one run",)
        sellers = () if self.field.commits[-1].backends else ("there are no offers",)
        return (*LIMITS, *gangs, *sellers)


LIMITS = ("maximum", "budget", "autoscale", "there is no pool", "held since", "with spot")


def reversed_records(state: State) -> State:
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
LONG = os.environ.get("HYPOTHESIS_PROFILE") in ("long", "first")
TestMachine.settings = settings() if LONG else settings(max_examples=200, stateful_step_count=40)
