"""Machines that are never ready are bought again later and later; what was ended otherwise is replaced at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from reconciler.engine.request import TickAsk
from reconciler.engine.tick import tick
from reconciler.state.relaunch.launch_backoff import LONGEST, after_failures
from reconciler.state.requests import WishRefused, add_instances, add_run, clear_override
from schemas.instance import Instance
from schemas.plan import Permissions
from schemas.pool import Pool
from schemas.profile import Retry
from schemas.resources import Resources
from schemas.run import Run
from schemas.state import LaunchBackoff, Wish
from tests.worlds.world import Site, apply, cron, desired, task, ticks

MINUTE, HOUR = 60, 3600
POOL = Pool(name="default-pool", default=True, nodes_min=1, nodes_max=8)
FLOOR = desired(pools=[POOL])


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Machines that boot for ever: none is ready in time."""
    site = Site(scratch=tmp_path)
    site.world.boot = 10**6
    return site


def bought(site: Site) -> int:
    return site.world.launched.total()


def living(site: Site) -> list[Instance]:
    return [one for one in site.state.instances if one.phase not in ("terminating", "terminated")]


def lived(site: Site, seconds: int, *, apart: int = MINUTE) -> list[int]:
    """The minutes from now at which a machine was bought."""
    began, found = site.clock.now(), []
    for _ in range(seconds // apart):
        before = bought(site)
        ticks(site, 1, apart=apart)
        found += [(site.clock.now() - began) // 60] * (bought(site) - before)
    return found


def unmet(site: Site) -> list[str]:
    return [one.why for one in cron(site).plan.unmet]


def never_ready(site: Site, times: int = 1) -> None:
    """So often a machine was bought and given up; nothing is bought since."""
    for _ in range(times):
        before = bought(site)
        while bought(site) == before or living(site):
            ticks(site, 1, apart=MINUTE)


# ---------------------------------------------------------------- it grows


def test_a_minimum_is_bought_again_later_and_later(site: Site) -> None:
    apply(site, FLOOR)
    times = lived(site, 6 * HOUR)
    waits = [later - earlier for earlier, later in zip([0, *times], times, strict=False)]
    assert [wait - 11 for wait in waits[:4]] == pytest.approx([5, 10, 20, 40], abs=2)
    assert len(times) <= 6


def test_the_plan_says_when_and_why(site: Site) -> None:
    apply(site, FLOOR)
    ticks(site, 10, apart=MINUTE)
    never_ready(site, 2)
    (why,) = unmet(site)
    assert why == (
        "1 of 1 node missing: next try in 20m: 3 launches were never ready; "
        "`dstack pool resume default-pool` lets the next apply try"
    )


def test_it_waits_no_longer_than_six_hours() -> None:
    known: tuple[LaunchBackoff, ...] = ()
    one = Instance(id="i", name="i", pool="p", backend="aws", place="aws/us", resources=Resources(cpus=1, memory=1))
    now, waits = 1000, []
    for index in range(12):
        known = after_failures(known, [replace(one, launch=f"l{index}")], now=now)
        waits.append(known[0].until - now)
        now = known[0].until
    assert waits[:4] == [300, 600, 1200, 2400]
    assert set(waits[8:]) == {LONGEST}
    assert (known[0].launches, known[0].tries) == (12, 12)


def test_several_that_fail_at_once_are_one_failure(site: Site) -> None:
    apply(site, desired(pools=[replace(POOL, nodes_min=2)]))
    while living(site):
        ticks(site, 1, apart=MINUTE)
        if len(living(site)) == 2:
            cron(site, permissions=Permissions(mass_destroy=True))
    (backoff,) = site.state.backoffs
    assert (backoff.tries, backoff.until - backoff.at) == (1, 300)


def test_a_machine_that_is_ready_ends_it(site: Site) -> None:
    apply(site, FLOOR)
    ticks(site, 12, apart=MINUTE)
    assert site.state.backoffs
    site.world.boot = 0
    ticks(site, 8, apart=MINUTE)
    assert (site.state.backoffs, [one.phase for one in living(site)]) == ((), ["ready"])


# ---------------------------------------------------------------- whom it holds


@pytest.mark.parametrize("retry", [Retry(), Retry(no_capacity=True, interruption=True, error=True, duration=None)])
def test_a_machine_of_a_run_is_bought_again_later_and_later(site: Site, retry: Retry) -> None:
    apply(site, desired(pools=[replace(POOL, nodes_min=0)], runs=[task("train", retry=retry)]))
    assert len(lived(site, 3 * HOUR)) <= 5
    assert [run.status for run in site.state.runs] == ["submitted"]


def test_a_run_with_a_window_fails_after_it(site: Site) -> None:
    retry = Retry(no_capacity=True, duration=600)
    apply(site, desired(pools=[replace(POOL, nodes_min=0)], runs=[task("train", retry=retry)]))
    lived(site, HOUR)
    (run,) = site.state.runs
    assert (run.status, run.reason.split(";")[0]) == (
        "failed",
        "no machine was ready for 10m: next try in 5m: 1 launch was never ready",
    )
    assert bought(site) == 1


def test_a_gang_waits_too(site: Site) -> None:
    apply(site, desired(pools=[replace(POOL, nodes_min=0)], runs=[task("train", nodes=2)]))
    for _ in range(180):
        ticks(site, 1, apart=MINUTE)
        cron(site, permissions=Permissions(mass_destroy=True))
    assert bought(site) <= 2 * 5


def test_an_added_instance_with_a_retry_waits_too(site: Site) -> None:
    apply(site, desired(pools=[replace(POOL, nodes_min=0)]))
    retry = Retry(no_capacity=True, interruption=True, error=True, duration=None)
    wish = Wish(id="w1", pool="default-pool", at=site.clock.now(), retry=retry)
    tick(site.ports(), TickAsk(wish=lambda state: add_instances(state, wish)))
    assert len(lived(site, 3 * HOUR)) <= 5
    assert site.state.wishes


def test_an_added_instance_is_given_up_when_its_time_is_over(site: Site) -> None:
    apply(site, desired(pools=[replace(POOL, nodes_min=0)]))
    retry = Retry(no_capacity=True, interruption=True, error=True, duration=3600)
    wish = Wish(id="w1", pool="default-pool", at=site.clock.now(), retry=retry)
    tick(site.ports(), TickAsk(wish=lambda state: add_instances(state, wish)))
    times = lived(site, 9 * HOUR)
    assert (max(times) <= 60, site.state.wishes, living(site)) == (True, (), [])


def test_what_is_asked_for_since_is_tried_at_once(site: Site) -> None:
    apply(site, desired(pools=[replace(POOL, nodes_min=0)], runs=[task("train")]))
    while living(site):
        ticks(site, 1, apart=MINUTE)
    before = bought(site)
    site.clock.at += 10
    mine = Run(id="mine1r1", spec=task("mine", hash=""), user="ann", submitted_at=site.clock.now())
    tick(site.ports(), TickAsk(wish=lambda state: add_run(state, mine), permissions=Permissions(scope=("mine1r1",))))
    assert bought(site) == before + 1


def test_a_runs_own_command_gives_its_machine_up(site: Site) -> None:
    apply(site, desired(pools=[replace(POOL, nodes_min=0)]))
    mine = Run(id="mine1r1", spec=task("mine", hash=""), user="ann", submitted_at=site.clock.now())
    scope = Permissions(scope=("mine1r1",))
    tick(site.ports(), TickAsk(wish=lambda state: add_run(state, mine), permissions=scope))
    for _ in range(12):
        site.clock.at += MINUTE
        cron(site, permissions=scope)
    assert (bought(site), living(site), len(site.state.backoffs)) == (1, [], 1)


# ---------------------------------------------------------------- what it is not about


@pytest.mark.parametrize("how", ["interrupt", "power_off", "stop", "by hand"])
def test_what_ended_otherwise_is_replaced_at_once(site: Site, how: str) -> None:
    apply(site, FLOOR)
    for _ in range(4):
        (machine,) = site.world.living()
        if how == "by hand":
            machine.ends_at, machine.reason = site.clock.now(), "User initiated"
        else:
            getattr(site.world, how)(machine.external_id)
        ticks(site, 2)
    assert (bought(site), site.state.backoffs) == (5, ())


# ---------------------------------------------------------------- how a person ends it


def test_resume_tries_at_once(site: Site) -> None:
    apply(site, FLOOR)
    ticks(site, 12, apart=MINUTE)
    assert living(site) == []

    tick(site.ports(), TickAsk(wish=lambda state: clear_override(state, subject="default-pool", now=site.clock.now())))
    assert site.state.backoffs == ()
    ticks(site, 1)
    assert len(living(site)) == 1
    with pytest.raises(WishRefused, match="nothing to resume"):
        clear_override(site.state, subject="default-pool", now=site.clock.now())


def test_a_changed_pool_is_tried_at_once_and_an_unchanged_one_is_not(site: Site) -> None:
    apply(site, FLOOR)
    ticks(site, 12, apart=MINUTE)
    apply(site, replace(FLOOR, runs=(task("other", pool="default-pool", nodes=99),)))
    assert living(site) == []
    apply(site, desired(pools=[replace(POOL, default_image="ubuntu:24.04")]))
    assert len(living(site)) == 1
