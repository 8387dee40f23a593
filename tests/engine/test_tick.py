"""One tick and several: what is asked first, what is written when, and what two of us do to each other."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from dataclasses import replace as change
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from backends.base import Backend
from backends.errors import NoCapacity, TryLater
from backends.fake.backend import Fault
from reconciler.engine.ports import Ports
from reconciler.engine.request import TickAsk
from reconciler.engine.tick import tick
from reconciler.engine.until import settle, settled
from reconciler.hosts.runner import Fenced, HeldJob, JobOrder, Runner
from reconciler.report.in_progress import under_way
from reconciler.secrets.errors import SecretLacking
from reconciler.state.errors import StateRefused
from reconciler.state.record_outcomes import Failed
from reconciler.state.requests import add_run, stop_run
from schemas.desired import Desired
from schemas.instance import Instance
from schemas.offer import Offer
from schemas.plan import Launch, Permissions, Plan, Terminate
from schemas.pool import Pool
from schemas.profile import Retry
from schemas.run import Run, RunSpec
from schemas.state import Revision, State
from tests.worlds.world import PROJECT, Papers, Site, apply, apply_ask, cron, desired, offer, task, ticks

ONE = desired(runs=[task("train")])
FLOOR = desired(pools=[Pool(name="default-pool", default=True, nodes_min=1, nodes_max=2)])


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(scratch=tmp_path)


def run_named(state: State, name: str) -> Run:
    return next(run for run in state.runs if run.spec.name == name)


# ---------------------------------------------------------------- the state


def test_nothing_is_applied_yet(site: Site) -> None:
    result = cron(site)
    assert "dstack apply" in result.refused
    assert site.store.writes == 0


def test_a_missing_state_over_living_instances_is_refused(site: Site) -> None:
    apply(site, FLOOR)
    site.store.data = b""
    result = apply(site, FLOOR)
    assert "dstack state rebuild" in result.refused
    assert (site.store.data, len(site.world.machines)) == (b"", 1)


def test_a_missing_state_and_a_place_that_cannot_say_is_refused(site: Site) -> None:
    site.world.faults.append(Fault(call="instances", error=TryLater("slow down")))
    assert "cannot say" in apply(site, FLOOR).refused
    assert apply(site, FLOOR).refused == ""


def test_a_state_older_than_its_instances_is_refused(site: Site) -> None:
    apply(site, FLOOR)
    backup = site.store.data
    apply(site, ONE, permissions=Permissions(destroy_pools=("default-pool",)))
    ticks(site, 3)
    site.store.data = backup
    with pytest.raises(StateRefused, match="restored backup"):
        cron(site)
    assert site.store.data == backup


def test_a_tick_with_nothing_to_do_writes_nothing_but_a_heartbeat(site: Site) -> None:
    apply(site, FLOOR)
    ticks(site, 3)
    assert [result.written for result in ticks(site, 5, apart=60)] == [0] * 5
    site.clock.at += 600
    assert cron(site).written == 1
    assert cron(site).written == 0


def test_documents_of_another_project_are_refused(site: Site) -> None:
    apply(site, FLOOR)
    assert "of project" in apply(site, replace(FLOOR, project="other12345")).refused


def test_documents_are_judged_by_their_age(site: Site) -> None:
    newer = Revision(digest="new", commit="b" * 40, committed_at=200)
    older = Revision(digest="old", commit="a" * 40, committed_at=100)
    tick(site.ports(), TickAsk(documents=Papers(ONE), revision=newer))
    writes = site.store.writes
    result = tick(site.ports(), TickAsk(documents=Papers(FLOOR), revision=older))
    assert "--config-force" in result.refused
    assert site.store.writes == writes
    forced = tick(site.ports(), TickAsk(documents=Papers(FLOOR), revision=older, config_force=True))
    assert forced.refused == ""
    assert [one.digest for one in site.state.history] == ["new", "old"]


@pytest.mark.parametrize(
    ("state", "unattended", "refused"), [("", True, True), ("local", True, False), ("", False, False)]
)
def test_nobody_watches_and_the_memory_is_a_folder(site: Site, state: str, unattended: bool, refused: bool) -> None:
    """A place with prices: without a terminal nothing is bought from a memory that only this machine has."""
    result = tick(change(site.ports(), unattended=unattended), apply_ask(replace(FLOOR, state=state)))
    assert ("costs money" in result.refused) is refused
    assert (site.store.writes > 0, len(site.world.machines)) == (not refused, 0 if refused else 1)


# ---------------------------------------------------------------- confirmation


def test_declined_does_nothing(site: Site) -> None:
    result = apply(site, ONE, confirm=lambda plan, state: None)
    assert result.declined
    assert (site.store.writes, site.world.calls["launch"], site.world.calls["prepare"]) == (0, 0, 0)


def test_only_what_was_approved_is_done(site: Site) -> None:
    def no_launch(plan: Plan, state: State) -> Plan:
        return replace(plan, actions=tuple(one for one in plan.actions if not isinstance(one, Launch)))

    apply(site, ONE, confirm=no_launch)
    assert site.world.machines == {}
    assert run_named(site.state, "train").status == "submitted"


def test_after_a_long_prompt_it_looks_again(site: Site) -> None:
    def slow(plan: Plan, state: State) -> Plan:
        site.clock.at += 300
        return plan

    apply(site, ONE, confirm=slow)
    # Once for the missing state, once before and once after the prompt.
    assert site.world.calls["instances"] == 3
    assert len(site.world.machines) == 1


def test_a_plan_alone_writes_nothing(site: Site) -> None:
    apply(site, FLOOR)
    site.clock.at += 1000
    writes = site.store.writes
    result = cron(site, act=False)
    assert (result.written, site.store.writes) == (0, writes)


# ---------------------------------------------------------------- capacity


def test_the_next_offer_is_taken_in_the_same_tick(site: Site) -> None:
    site.world.sold_out.add("small")
    result = apply(site, FLOOR)
    assert [machine.request.instance_type for machine in site.world.living()] == ["large"]
    assert [one.instance_type for one in site.state.capacity] == ["small"]
    assert result.refused == ""


def test_failover_stops_at_one_and_a_half_times_the_price_confirmed(site: Site) -> None:
    site.world.sold_out |= {"small", "large"}
    apply(site, FLOOR, confirm=lambda plan, state: plan)
    assert site.world.living() == []
    site.clock.at += 1000
    apply(site, FLOOR)
    assert [machine.request.instance_type for machine in site.world.living()] == ["huge"]


def unpriced(name: str, *, region: str = "r1") -> Offer:
    return replace(offer(name, "1.00", region=region), price=None)


def test_what_was_confirmed_without_a_price_is_launched(site: Site) -> None:
    """And sought in another region."""
    documents = replace(FLOOR, backends=(replace(FLOOR.backends[0], regions=("r1", "r2")),))
    site.world.offers = (unpriced("p5"), unpriced("p5", region="r2"))
    site.world.sold_out.add("fake/r1 p5")
    apply(site, documents, confirm=lambda plan, state: plan)
    assert {(one.request.place, one.request.instance_type) for one in site.world.living()} == {("fake/r2", "p5")}


def test_nothing_else_is_bought_in_the_place_of_what_has_no_price(site: Site) -> None:
    site.world.offers = (unpriced("p5"), unpriced("p6"))
    site.world.sold_out.add("p5")
    result = apply(site, FLOOR, confirm=lambda plan, state: plan)
    assert site.world.living() == []
    assert [one.why for one in result.plan.unmet if "no price was confirmed" in one.why] != []


@pytest.mark.parametrize("confirm", [None, lambda plan, state: plan], ids=["cron", "asked"])
def test_what_cannot_be_prepared_is_planned_around(site: Site, confirm: Any) -> None:
    """Within what a person said yes to."""
    site.world.faults.append(Fault(call="prepare", error=NoCapacity("none in any zone")))
    result = apply(site, FLOOR, confirm=confirm)
    assert [machine.request.instance_type for machine in site.world.living()] == ["large"]
    assert result.refused == ""


def test_a_throttled_look_up_is_no_lack_of_capacity(site: Site) -> None:
    """Nothing dearer is bought for it; the place is left alone for a minute, and says why."""
    site.world.faults.append(Fault(call="prepare", error=TryLater("RequestLimitExceeded: slow down")))
    result = apply(site, FLOOR)
    assert site.world.living() == []
    assert [(one.instance_type, one.until - site.clock.now()) for one in site.state.capacity] == [("", 60)]
    (unmet,) = result.plan.unmet
    assert "with a place to ask now (RequestLimitExceeded: slow down)" in unmet.why
    ticks(site, 1, apart=61)
    assert [machine.request.instance_type for machine in site.world.living()] == ["small"]


def no_token(spec: RunSpec, desired: Desired) -> Mapping[str, str]:
    raise SecretLacking("needs HF_TOKEN, not set on ci")


def test_a_secret_that_cannot_be_had_buys_no_machine(site: Site) -> None:
    """Or one would be made, and reaped idle, again and again."""
    result = tick(change(site.ports(), resolve=no_token), apply_ask(ONE))
    assert any("HF_TOKEN" in one.why for one in result.plan.unmet)
    assert not site.world.launched


def test_a_secret_that_cannot_be_had_keeps_the_run_waiting(site: Site) -> None:
    apply(site, ONE)
    site.clock.at += 10
    result = tick(change(site.ports(), resolve=no_token), TickAsk())
    assert any("HF_TOKEN" in one.why for one in result.plan.unmet)
    assert site.state.attempts == ()
    ticks(site, 1)
    assert run_named(site.state, "train").status == "running"


# ---------------------------------------------------------------- unknown, unreachable, interrupted


def test_another_account_ends_nothing_and_buys_nothing(site: Site) -> None:
    apply(site, FLOOR)
    ticks(site, 2)
    site.world.identity, site.world.blind = "somebody", True
    for result in ticks(site, 5, apart=400):
        assert not any(isinstance(one, Launch | Terminate) for one in result.plan.actions)
    site.world.identity, site.world.blind = "account-1", False
    ticks(site, 2)
    assert len(site.world.launched) == len(site.world.living()) == 1


def test_an_empty_listing_once_ends_nothing(site: Site) -> None:
    apply(site, FLOOR)
    ticks(site, 2)
    site.world.blind = True
    ticks(site, 3)
    site.world.blind = False
    ticks(site, 1)
    assert [one.phase for one in site.state.instances] == ["ready"]
    assert len(site.world.launched) == 1


def test_a_silent_host_loses_no_run(site: Site) -> None:
    site.world.script = lambda job: (600, 0)
    apply(site, ONE)
    ticks(site, 2)
    (machine,) = site.world.living()
    machine.silent = True
    ticks(site, 20, apart=120)
    assert run_named(site.state, "train").status == "running"
    assert len(site.world.living()) == 1
    machine.silent = False
    ticks(site, 2)
    assert run_named(site.state, "train").status == "done"
    assert set(site.world.started.values()) == {1}


def test_a_destroy_says_what_it_waits_for_where_a_launch_was_killed(site: Site) -> None:
    class Killed(BaseException):
        pass

    def killed(config: Any, region: str, lineage: str) -> Backend:
        place = site.connect(config, region, lineage)

        def launch(request: object) -> Any:
            raise Killed

        place.launch = launch  # type: ignore[method-assign]
        return place

    with pytest.raises(Killed):
        tick(change(site.ports(), connect=killed), apply_ask(FLOOR))
    everything = Permissions(destroy_all=True, mass_destroy=True)
    for _ in range(4):
        tick(site.ports(), TickAsk(permissions=everything))
        (said,) = under_way(site.state).values()
        assert said.startswith("launch requested, not listed yet: treated as lost from ")
        site.clock.at += 200
    for _ in range(4):
        tick(site.ports(), TickAsk(permissions=everything))
        site.clock.at += 200
    assert under_way(site.state) == {}


def test_a_node_that_returns_ends_what_was_assumed_lost_on_it(site: Site) -> None:
    """It runs on while nobody reaches it, and is repeated on a person's word alone; then its host answers again."""
    site.world.script = lambda job: (100_000, 0)
    apply(site, desired(runs=[task("train", retry=Retry(interruption=True))]))
    ticks(site, 2)
    (machine,) = site.world.living()
    machine.silent = True
    ticks(site, 4, apart=60)
    cron(site, permissions=Permissions(assume_lost=("train",)))
    ticks(site, 3, apart=60)
    first, second = site.state.attempts
    assert (first.jobs[0].reason, second.live) == ("assumed lost by a person", True)
    machine.silent = False
    result = cron(site)
    said = f"answers again: job {first.jobs[0].id} of run train (assumed lost by a person) is ended there and removed"
    assert [note for note in result.plan.notes if said in note]
    assert machine.jobs[first.jobs[0].id].cleaned
    assert (machine.jobs[first.jobs[0].id].ends_at or 0) <= site.clock.now()
    assert not [note for result in ticks(site, 2) for note in result.plan.notes if "answers again" in note]


@pytest.mark.parametrize("how", ["interrupt", "reboot"])
def test_an_interrupted_run_is_tried_again(site: Site, how: str) -> None:
    retried = desired(runs=[task("train", retry=Retry(interruption=True))])
    apply(site, retried)
    ticks(site, 1)
    getattr(site.world, how)("i-1")
    first = ticks(site, 12)[0]
    taken = [note for note in first.plan.notes if "(small, fake/r1) was interrupted: spot interruption, at 20" in note]
    assert len(taken) == (how == "interrupt"), first.plan.notes
    site.clock.at += 3600
    assert not [note for note in cron(site).plan.notes if "interrupt" in note]
    run = run_named(site.state, "train")
    assert (run.status, run.attempts) == ("done", 2)
    assert sorted(site.world.started.values()) == [1, 1]


def strayed(site: Site, **changes: object) -> None:
    """A second machine beside the one of the floor."""
    apply(site, desired(pools=[replace(FLOOR.pools[0], idle_duration=None)]))
    ticks(site, 2)
    machine = next(iter(site.world.machines.values()))
    site.world.machines["i-99"] = change(machine, external_id="i-99", request=replace(machine.request, **changes))
    ticks(site, 2)
    assert len(site.world.living()) == 2


@pytest.mark.parametrize("how", ["the-same-id-again", "no-launch-of-ours"])
def test_an_orphan_is_ended_after_its_grace(site: Site, how: str) -> None:
    strayed(site, **({} if how == "the-same-id-again" else {"ids": ("",), "launch": ""}))
    ticks(site, 3, apart=400)
    assert [one.external_id for one in site.world.living()] == ["i-1"]


def test_what_another_copy_of_the_state_may_own_is_left_alone(site: Site) -> None:
    strayed(site, ids=("stray-0",), launch="stray")
    ticks(site, 3, apart=400)
    assert [one.external_id for one in site.world.living()] == ["i-1", "i-99"]


# ---------------------------------------------------------------- wishes


def test_a_wished_run_touches_nothing_of_the_documents(site: Site) -> None:
    apply(site, ONE)
    wished = Run(id="wished1r1", spec=task("mine", hash=""), user="ann", submitted_at=site.clock.now())
    scoped = Permissions(scope=("wished1r1",))
    result = tick(site.ports(), TickAsk(wish=lambda state: add_run(state, wished), permissions=scoped))
    assert result.refused == ""
    site.clock.at += 10
    tick(site.ports(), TickAsk(permissions=scoped))
    assert run_named(site.state, "mine").status == "running"
    assert run_named(site.state, "train").status == "submitted"


def test_a_stopped_run_ends_with_its_result(site: Site) -> None:
    site.world.script = lambda job: (6000, 0)
    apply(site, ONE)
    ticks(site, 2)
    tick(site.ports(), TickAsk(wish=lambda state: stop_run(state, "train", by="ann", now=site.clock.now())))
    ticks(site, 2)
    run = run_named(site.state, "train")
    assert (run.status, run.reason) == ("terminated", "stopped by ann")
    assert site.state.attempts[0].jobs[0].log in site.blobs.data


# ---------------------------------------------------------------- files


def test_an_apply_packs_a_runs_files_once(site: Site) -> None:
    apply(site, ONE)
    (digest,) = site.blobs.data
    assert run_named(site.state, "train").bundle == digest
    assert site.state.applied is not None
    assert site.state.applied.bundles == (("train", digest),)
    never: Callable[..., Path] = lambda root, files, secrets: pytest.fail("packed again")  # noqa: E731
    tick(change(site.ports(), bundle=never), apply_ask(ONE))


# ---------------------------------------------------------------- two of us


def test_the_one_who_comes_second_plans_again(site: Site) -> None:
    apply(site, FLOOR)
    two = desired(pools=FLOOR.pools, runs=[task("train"), task("other")])
    site.store.before_write = lambda: cron_by("bob@ci", site, documents=two)
    apply(site, two)
    ticks(site, 8)
    assert {run.spec.name: run.status for run in site.state.runs} == {"train": "done", "other": "done"}
    assert set(site.world.launched.values()) == {1}
    assert set(site.world.started.values()) == {1}
    assert len(site.world.started) == 2
    assert len(site.world.machines) == 2


def cron_by(who: str, site: Site, *, documents: Desired) -> None:
    assert tick(site.ports(who=who), apply_ask(documents)).refused == ""


@pytest.mark.parametrize("after", range(1, 8))
def test_two_reconcilers_interleaved_at_each_write(site: Site, after: int) -> None:
    """Ann's every write up to `after` comes just after a whole tick of Bob's."""
    apply(site, ONE)
    for _ in range(after):
        site.clock.at += 15
        site.store.before_write = lambda: other_tick(site)
        cron(site)
    ticks(site, 8)
    assert run_named(site.state, "train").status == "done"
    assert set(site.world.launched.values()) == {1}
    assert list(site.world.started.values()) == [1]


def other_tick(site: Site) -> None:
    assert tick(site.ports(who="bob@ci"), TickAsk()).refused == ""


def test_what_another_launches_while_we_look_is_no_restored_backup(site: Site) -> None:
    """We had read the state, Bob launched, then our listing came: its generation was above the one that we had read."""
    apply(site, desired(runs=()))
    ports = site.ports()

    def connect(*args: Any) -> Backend:
        if not site.world.machines:
            cron_by("bob@ci", site, documents=ONE)
        return ports.connect(*args)

    result = tick(change(ports, connect=connect), TickAsk())
    assert result.refused == ""
    assert [one.orphan for one in site.state.instances] == [""]
    assert list(site.world.launched.values()) == [1]


@pytest.mark.parametrize("seconds", [30, 300])
def test_what_another_launches_while_we_are_asked_is_no_restored_backup(site: Site, seconds: int) -> None:
    def slow(plan: Plan, state: State) -> Plan:
        site.clock.at += seconds
        cron_by("bob@ci", site, documents=more)
        return plan

    more = desired(pools=[replace(FLOOR.pools[0], nodes_min=2)])
    apply(site, FLOOR)
    assert apply(site, more, confirm=slow).refused == ""
    assert list(site.world.launched.values()) == [1, 1]


def test_two_first_applies_agree_on_one_state(site: Site) -> None:
    site.store.before_write = lambda: cron_by("bob@ci", site, documents=FLOOR)
    assert apply(site, FLOOR).refused == ""
    assert len(site.world.machines) == 1
    assert {one.by for one in site.state.ticks} >= {"bob@ci"}


def test_a_host_that_saw_a_newer_generation_stops_us(site: Site) -> None:
    apply(site, ONE)
    site.clock.at += 10
    ports = site.ports()

    def fence() -> None:
        site.world.machines["i-1"].fence = 10_000

    site.store.before_write = fence
    result = tick(ports, TickAsk())
    assert result.ahead
    assert site.world.started == {}


@dataclass
class Claiming:
    """The runner of a world in which one host says that it was told of a later generation, and cannot prove it."""

    inner: Runner
    liar: str
    generation: int

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def start(self, instance: Instance, order: JobOrder) -> HeldJob | None:
        if instance.id == self.liar:
            raise Fenced("the host has been told of a newer generation", claimed=self.generation)
        return self.inner.start(instance, order)


@pytest.mark.parametrize(("ahead", "stops"), [(10**9, False), (0, True)])
def test_a_claim_that_nobody_can_prove_stops_its_host_alone(site: Site, ahead: int, stops: bool) -> None:
    """Where the state has come as far by now, somebody may well have told it; else a job wrote that."""
    apply(site, desired(runs=[task("one"), task("two")]))
    site.clock.at += 10
    ports = site.ports()
    liar = site.state.instances[0].id
    ports = change(ports, runner=Claiming(ports.runner, liar, site.state.generation + 1 + ahead))
    result = tick(ports, TickAsk())
    assert result.ahead == stops
    if not stops:
        assert len(site.world.started) == 1
        (failed,) = [one for one in result.outcomes if isinstance(one, Failed)]
        assert "this project never had one: a job there may have written that" in failed.why


def test_an_effect_is_not_begun_after_the_machine_slept(site: Site) -> None:
    apply(site, ONE)
    site.clock.at += 10
    writes = site.store.writes

    def clock() -> float:
        return site.clock.at + (10_000 if site.store.writes > writes else 0)

    result = tick(change(site.ports(), clock=clock), TickAsk(deadline=1e9))
    assert site.world.started == {}
    assert [one.why for one in result.outcomes if isinstance(one, Failed)]
    ticks(site, 1)
    assert list(site.world.started.values()) == [1]


def test_stop_begins_nothing_more(site: Site) -> None:
    result = apply(site, FLOOR, stop=lambda: True)
    assert site.world.machines == {}
    assert result.written == 1
    ticks(site, 2)
    assert len(site.world.living()) == 1


# ---------------------------------------------------------------- threads and waiting


def on_threads(ports: Ports) -> Ports:
    def spawn(work: Callable[[], None]) -> None:
        threading.Thread(target=work, daemon=True).start()

    return change(ports, spawn=spawn)


def test_on_threads(site: Site) -> None:
    many = desired(runs=[task(f"run-{number}") for number in range(8)])
    tick(on_threads(site.ports()), apply_ask(many))
    for _ in range(8):
        site.clock.at += 20
        tick(on_threads(site.ports()), TickAsk())
    assert {run.status for run in site.state.runs} == {"done"}
    assert set(site.world.started.values()) == {1}


def test_settle_waits_until_all_is_seen(site: Site) -> None:
    heard: list[State] = []
    found = settle(site.ports(), apply_ask(ONE), until=settled, progress=heard.append, deadline=600)
    assert found.reached
    assert run_named(site.state, "train").status == "running"
    assert heard
    assert found.first.plan.project == PROJECT


def test_settle_gives_up_at_its_deadline(site: Site) -> None:
    site.world.boot = 10_000
    found = settle(site.ports(), apply_ask(ONE), until=settled, progress=lambda state: None, deadline=60)
    assert not found.reached
    assert any("provisioning" in one.phase for one in site.state.instances)


def test_settle_does_no_more_than_was_approved(site: Site) -> None:
    site.world.script = lambda job: (1, 0)

    def enrol_only(plan: Plan, state: State) -> Plan:
        return replace(plan, actions=tuple(one for one in plan.actions if not isinstance(one, Launch)))

    def waits(state: State, plan: Plan) -> bool:
        return False

    ask = apply_ask(ONE, confirm=enrol_only)
    settle(site.ports(), ask, until=waits, progress=lambda state: None, deadline=30)
    assert site.world.machines == {}


def test_settle_buys_no_second_machine_for_one_approved(site: Site) -> None:
    """The machine came and went: what replaces it was never approved."""
    site.world.script = lambda job: (6000, 0)
    interrupted: list[str] = []

    def until(state: State, plan: Plan) -> bool:
        if not interrupted and any(run.status == "running" for run in state.runs):
            interrupted.append("i-1")
            site.world.interrupt("i-1")
        return False

    again = desired(runs=[task("train", retry=Retry(interruption=True))])
    ask = apply_ask(again, confirm=lambda plan, state: plan)
    settle(site.ports(), ask, until=until, progress=lambda state: None, deadline=60)
    assert run_named(site.state, "train").status == "submitted"
    assert len(site.world.machines) == 1
    ticks(site, 2)
    assert len(site.world.machines) == 2


def test_settle_tries_again_what_was_approved_and_refused(site: Site) -> None:
    site.world.sold_out |= {"small", "large", "huge"}

    def until(state: State, plan: Plan) -> bool:
        site.world.sold_out.clear()
        return False

    settle(site.ports(), apply_ask(FLOOR, confirm=lambda plan, state: plan), until=until,
           progress=lambda state: None, deadline=400)  # fmt: skip
    assert [machine.request.instance_type for machine in site.world.machines.values()] == ["small"]


def test_documents_age_and_who_ticks_is_remembered(site: Site) -> None:
    apply(site, FLOOR)
    for _ in range(3):
        site.clock.at += 900
        cron(site)
    (mine,) = site.state.ticks
    assert (mine.by, mine.every) == ("ann@laptop", 900)


def test_a_destroyed_project_is_not_created_again_by_whoever_ticks(site: Site) -> None:
    apply(site, FLOOR)
    everything = Permissions(destroy_all=True, mass_destroy=True)
    for _ in range(3):
        cron(site, permissions=everything)
        site.clock.at += 30
    assert site.world.living() == []
    assert site.state.destroyed is not None
    for refused in (apply(site, FLOOR, revive=False), apply(site, FLOOR, revive=False, prompted=False), cron(site)):
        assert refused.destroyed
        assert "`dstack apply --revive`" in refused.refused
    looked = apply(site, FLOOR, revive=False, act=False)
    assert (looked.refused, any("was destroyed by" in why for why in looked.warnings)) == ("", True)
    assert site.world.living() == []
    assert not apply(site, FLOOR, revive=True).refused
    assert site.state.destroyed is None
    assert len(site.world.living()) == 1
    assert not cron(site).refused


def test_a_destroy_while_an_apply_is_planned_wins(site: Site) -> None:
    apply(site, FLOOR)

    def confirm(plan: Plan, state: State) -> Plan:
        cron(site, permissions=Permissions(destroy_all=True, mass_destroy=True))
        return plan

    late = apply(site, desired(runs=[task("train")]), revive=False, confirm=confirm)
    assert late.destroyed
    assert [run.spec.name for run in site.state.runs] == []
