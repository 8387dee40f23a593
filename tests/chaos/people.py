"""What people do in the stateful machine: they edit documents, wish, stop, allow, give up, destroy."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from msgspec.structs import replace

from reconciler.state.requests import add_instances, add_run, clear_override, remove_instance, set_override, stop_run
from schemas.desired import Cap
from schemas.plan import Permissions
from schemas.pool import Pool
from schemas.profile import Retry
from schemas.resources import GpuNeed, Need, Span, Where
from schemas.run import Run, RunSpec
from schemas.state import Wish
from tests.chaos.machine import EVERYTHING, POOL_B, Field, state_of
from tests.worlds.world import task

PEOPLE = ("ann@laptop", "bob@laptop", "cron@ci")
AGAIN = Retry(no_capacity=True, interruption=True, error=True)
RUNS = ("red", "green", "blue", "web")
who = st.sampled_from(PEOPLE)


class People(RuleBasedStateMachine):
    field: Field

    # ------------------------------------------------------------ they edit

    @rule(
        least=st.integers(0, 2),
        more=st.sampled_from([0, 1, 2, None]),
        idle=st.sampled_from([60, 600, None]),
        blocks=st.sampled_from([1, 1, 0, 2]),
    )
    def pool_edited(self, least: int, more: int | None, idle: int | None, blocks: int) -> None:
        most = None if more is None else least + more
        self.field.edit_pool("a", nodes_min=least, nodes_max=most, idle_duration=idle, **in_blocks(blocks))

    @rule(there=st.booleans(), protected=st.booleans(), blocks=st.sampled_from([1, 0, 2, 4]))
    def second_pool(self, there: bool, protected: bool, blocks: int) -> None:
        pools = tuple(pool for pool in self.field.commits[-1].pools if pool.name == "a")
        second = replace(POOL_B, prevent_destroy=protected, **in_blocks(blocks))
        self.field.edit(pools=(*pools, second) if there else pools)

    @rule(
        name=st.sampled_from(["red", "green", "blue"]),
        nodes=st.sampled_from([1, 1, 2, 3]),
        pool=st.sampled_from(["a", "a", "b"]),
        retry=st.sampled_from([Retry(), AGAIN]),
        spot=st.sampled_from(["on-demand", "spot", "auto"]),
        version=st.integers(1, 3),
        priority=st.sampled_from([10, 50]),
        gpus=st.sampled_from([0, 0, 1, 2]),
    )
    def run_edited(self, name: str, version: int, **fields: Any) -> None:
        self.field.edit_run(spec_of(name, version=version, **fields))

    @rule(
        replicas=st.integers(1, 3),
        version=st.integers(1, 3),
        pool=st.sampled_from(["a", "b"]),
        spot=st.sampled_from(["on-demand", "auto"]),
    )
    def service_edited(self, replicas: int, version: int, pool: str, spot: str) -> None:
        spec = spec_of("web", version=version, nodes=1, pool=pool, spot=spot, retry=Retry(), priority=50)
        self.field.edit_run(replace(spec, type="service", replicas=replicas, port=8000, max_duration=None))

    @rule(name=st.sampled_from(RUNS), back=st.booleans())
    def run_renamed(self, name: str, back: bool) -> None:
        self.field.rename_run(*((f"{name}-2", name) if back else (name, f"{name}-2")))

    @rule(back=st.booleans())
    def pool_renamed(self, back: bool) -> None:
        self.field.rename_pool(*(("c", "b") if back else ("b", "c")))

    @rule(name=st.sampled_from(RUNS))
    def run_deleted(self, name: str) -> None:
        self.field.edit(runs=tuple(spec for spec in self.field.commits[-1].runs if spec.name != name))

    @rule(budget=st.sampled_from([None, Decimal("2.50"), Decimal("6.00")]), caps=st.sampled_from([(), (1,), (3,)]))
    def limits_edited(self, budget: Decimal | None, caps: tuple[int, ...]) -> None:
        self.field.edit(budget=budget, caps=tuple(Cap(instance_type="small", max=each) for each in caps))

    @rule(regions=st.sampled_from([("r1", "r2"), ("r1", "r2"), ("r1",), ("r2",), ()]))
    def regions_edited(self, regions: tuple[str, ...]) -> None:
        """A place, or all of them, may leave the documents while it has instances."""
        self.field.trouble = {place: kind for place, kind in self.field.trouble.items() if kind != "stranger"}
        backends = (replace(self.field.commits[0].backends[0], regions=regions),) if regions else ()
        self.field.edit(backends=backends)

    @precondition(lambda self: self.field.applied() >= 0)
    @rule(who=who, everything=st.booleans())
    def a_file_is_absent(self, who: str, everything: bool) -> None:
        """A checkout without some of its files is applied by a script: it ends nothing. Then they are put back."""
        field, whole = self.field, self.field.commits[-1]
        bare = (Pool(name="default-pool", default=True),)
        field.edit(pools=bare, runs=() if everything else whole.runs)
        was = state_of(field)
        field.apply(field.newest, who=who, permissions=Permissions(), prompted=False)
        field.commits.append(whole)
        now = state_of(field)
        assert was is not None
        assert now is not None
        asked = {run.id for run in was.runs if run.stop_reason}
        stopped = [run for run in now.runs if run.stop_reason and run.id not in asked]
        assert not [run for run in stopped if "was removed from the configuration" in run.stop_reason and everything], (
            stopped
        )

    @rule(nodes=st.sampled_from([1, 1, 2]), pool=st.sampled_from(["a", "b"]), gpus=st.sampled_from([0, 1]))
    def run_wished(self, gpus: int, **fields: Any) -> None:
        field = self.field
        field.wished += 1
        spec = spec_of(f"w{field.wished}", version=1, retry=AGAIN, spot="auto", priority=50, gpus=gpus, **fields)
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
            self._wish(lambda state: clear_override(state, subject="a", now=now))
        else:
            self._wish(
                lambda state: set_override(
                    state, kind=kind, subject="a", by="ann", now=now, until=now + 3000, stop_after=stop_after
                )
            )

    @rule(name=st.sampled_from([*RUNS, "w1", "red-2"]), who=who)
    def assumed_lost(self, name: str, who: str) -> None:
        """A person says that an attempt out of sight is over; it may well go on."""
        self.field.cron(who, permissions=Permissions(assume_lost=(name,)))

    @rule(name=st.sampled_from(RUNS), who=who)
    def replaced(self, name: str, who: str) -> None:
        self.field.apply(self.field.newest, who=who, permissions=replace(EVERYTHING, replace=(name,)))

    @rule(number=st.integers(0, 3))
    def forgotten(self, number: int) -> None:
        """A machine that a person does not believe to come back; it may."""
        silent = [one for one in self.field.site.world.living() if one.silent]
        if number < len(silent) and self.field.applied() >= 0:
            self.field.forget(silent[number].id)

    @rule(ticks=st.integers(1, 4), seconds=st.sampled_from([5, 40]))
    def destroyed(self, ticks: int, seconds: int) -> None:
        everything = Permissions(destroy_all=True, mass_destroy=True)
        for _ in range(ticks):
            self.field.cron("ann@laptop", permissions=everything, prompted=True)
            self.field.site.clock.at += seconds

    def _wish(self, wish: Any) -> None:
        if self.field.applied() >= 0:
            self.field.cron("ann@laptop", wish=wish)


def in_blocks(blocks: int) -> dict[str, Any]:
    """A pool's keys; 0 is one for each GPU: then its machines have two."""
    return {"blocks": blocks, "need": Need() if blocks else Need(gpu=GpuNeed(count=Span(min=2)))}


def spec_of(name: str, *, version: int, spot: Any, retry: Retry, gpus: int = 0, **fields: Any) -> RunSpec:
    """One CPU at least is asked for, so that it may be a block's; so many GPUs, or none."""
    need = Need(cpu=Span(min=1), gpu=GpuNeed(count=Span(min=gpus)) if gpus else None)
    return task(
        name,
        hash=f"{name}{version}{fields['nodes']}{gpus or ''}",
        where=Where(spot=spot),
        need=need,
        retry=retry,
        idle_duration=60,
        **fields,
    )
