"""What frees itself in a pass is at hand in that pass: nothing is launched beside it."""

from __future__ import annotations

from dataclasses import replace as change
from pathlib import Path
from typing import Any

import pytest

from reconciler.engine.tick import TickResult, tick
from reconciler.engine.until import settle, settled
from reconciler.hosts.runner import CollectedFiles, HostError
from schemas.instance import Instance
from schemas.plan import Assign, Launch, Plan, Resume
from schemas.pool import Pool
from schemas.run import RunSpec
from schemas.state import State
from tests.worlds.world import FakeRunner, Site, apply, apply_ask, cron, desired, task, ticks

FIRST = desired(runs=[task("first")])


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A site on which `first` has just ended, and nobody has looked since."""
    site = Site(scratch=tmp_path)
    site.world.script = lambda job: (30, 0)
    apply(site, FIRST)
    ticks(site, 2)
    assert [one.status for one in site.state.runs] == ["running"]
    site.clock.at += 60
    return site


def statuses(site: Site) -> dict[str, str]:
    return {run.spec.name: run.status for run in site.state.runs}


def launched(result: TickResult) -> list[str]:
    return [id for one in result.plan.actions if isinstance(one, Launch) for id in one.ids]


def next_to(*specs: RunSpec, **fields: Any) -> Any:
    return desired(runs=[task("first"), *specs], **fields)


def test_the_instance_of_an_ended_job_is_used_at_once(site: Site) -> None:
    result = apply(site, next_to(task("second")))
    assert launched(result) == []
    assert len(site.world.machines) == 1
    assert statuses(site) == {"first": "done", "second": "running"}


def test_the_plan_that_is_approved_says_so(site: Site) -> None:
    shown: list[Plan] = []

    def confirm(plan: Plan, state: State) -> Plan:
        shown.append(plan)
        return plan

    apply(site, next_to(task("second")), confirm=confirm)
    assert [one.name for one in shown[0].actions if isinstance(one, Assign)] == ["second"]
    assert not any(isinstance(one, Launch) for one in shown[0].actions)


def test_a_declined_plan_keeps_the_result_and_applies_nothing(site: Site) -> None:
    result = apply(site, next_to(task("second")), confirm=lambda plan, state: None)
    assert result.declined
    assert statuses(site) == {"first": "done"}
    assert site.state.applied is not None
    assert site.state.applied.desired.runs == FIRST.runs


def test_a_plan_alone_collects_nothing_and_says_what_is_waited_for(site: Site) -> None:
    writes = site.store.writes
    result = apply(site, next_to(task("second")), act=False)
    assert site.store.writes == writes
    assert launched(result) == []
    (wait,) = result.plan.waits
    assert (wait.run, len(wait.results)) == ("second", 1)


@pytest.mark.parametrize("pools", [(), (Pool(name="default-pool", default=True, nodes_max=1),)], ids=["open", "full"])
def test_of_two_that_wait_one_gets_it(site: Site, pools: Any) -> None:
    result = apply(site, next_to(task("second"), task("third"), pools=pools))
    assert len(launched(result)) == (0 if pools else 1)
    assert statuses(site)["second"] == "running"
    assert statuses(site)["third"] == "submitted"


def test_a_multi_node_run_gets_it_beside_an_idle_one(site: Site) -> None:
    floor = (Pool(name="default-pool", default=True, nodes_min=2),)
    apply(site, next_to(pools=floor))
    ticks(site, 3)
    result = apply(site, next_to(task("second", max_duration=7200), pools=floor))
    assert launched(result) == []
    site.clock.at += 60
    result = apply(site, next_to(task("second", max_duration=7200), task("all", nodes=2), pools=floor))
    assert launched(result) == []
    assert [len(one.instances) for one in result.plan.actions if isinstance(one, Assign)] == [2]


def test_a_wished_run_gets_it(site: Site) -> None:
    from reconciler.engine.request import TickAsk
    from reconciler.state.requests import add_run
    from schemas.plan import Permissions
    from schemas.run import Run

    mine = Run(id="mine1r1", spec=task("mine", hash=""), user="ann", submitted_at=site.clock.now())
    scoped = Permissions(scope=("mine1r1",))
    result = tick(site.ports(), TickAsk(wish=lambda state: add_run(state, mine), permissions=scoped))
    assert launched(result) == []
    assert statuses(site)["mine"] == "running"


def test_a_launch_is_counted_once(site: Site) -> None:
    """One of another pool is launched while the result comes home: the plan made then resumes that launch."""
    pools = (Pool(name="default-pool", default=True), Pool(name="more"))
    result = apply(site, next_to(task("other", pool="more"), pools=pools))
    kinds = [type(one) for one in result.plan.actions if isinstance(one, Launch | Resume)]
    assert kinds == [Launch]


def test_settle_keeps_to_it(site: Site) -> None:
    ask = apply_ask(site.shaped(next_to(task("second"))), confirm=lambda plan, state: plan)
    settle(site.ports(), ask, until=settled, progress=lambda state: None, deadline=600)
    assert len(site.world.machines) == 1
    assert statuses(site)["second"] == "running"


class Failing(FakeRunner):
    def collect(self, instance: Instance, job: str, *, artifacts: tuple[str, ...]) -> CollectedFiles:
        raise HostError("its disk is full")


def test_a_result_that_cannot_be_collected_keeps_nobody_waiting(site: Site) -> None:
    broken = change(site.ports(), runner=Failing(site.world, site.scratch))
    result = tick(broken, apply_ask(site.shaped(next_to(task("second")))))
    assert len(launched(result)) == 1
    (job,) = (job for attempt in site.state.attempts for job in attempt.jobs if job.status == "ended")
    assert job.uncollected_since == site.clock.now()
    cron(site)
    assert statuses(site)["first"] == "done"


# ---------------------------------------------------------------- what was not approved


FULL = (Pool(name="default-pool", default=True, nodes_max=1),)
LONG = desired(runs=[task("long")], pools=FULL)


def settled_at_last(site: Site, documents: Any, **changes: Any) -> TickResult:
    """What an apply comes to that goes on until the first run has ended."""
    ask = apply_ask(site.shaped(documents), **{"confirm": lambda plan, state: plan, **changes})

    def until(state: State, plan: Plan) -> bool:
        return statuses(site).get("long") == "done" and site.clock.at > ends

    ends = site.clock.at + 120
    return settle(site.ports(), ask, until=until, progress=lambda state: None, deadline=600).last


@pytest.mark.parametrize(("bounded", "status"), [(True, "submitted"), (False, "running")], ids=["asked", "-y"])
def test_a_run_listed_as_pending_is_not_started_unasked(tmp_path: Path, bounded: bool, status: str) -> None:
    site = Site(scratch=tmp_path)
    site.world.script = lambda job: (30 if job.startswith(first(site)) else 6000, 0)
    apply(site, LONG)
    ticks(site, 2)
    last = settled_at_last(site, desired(runs=[task("long"), task("next")], pools=FULL), approved_starts=bounded)
    assert statuses(site) == {"long": "done", "next": status}
    told = [one for one in last.warnings if "run next can start now" in one]
    assert bool(told) is bounded
    assert cron(site).refused == ""
    assert statuses(site)["next"] == "running"


def first(site: Site) -> str:
    return next(run.id for run in site.state.runs if run.spec.name == "long")


def test_a_run_that_the_plan_launches_for_is_started(tmp_path: Path) -> None:
    site = Site(scratch=tmp_path)
    site.world.script = lambda job: (6000, 0)
    ask = apply_ask(site.shaped(FIRST), confirm=lambda plan, state: plan, approved_starts=True)
    settle(site.ports(), ask, until=settled, progress=lambda state: None, deadline=600)
    assert statuses(site) == {"first": "running"}
