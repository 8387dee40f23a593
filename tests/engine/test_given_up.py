"""A person ends what does not answer: a machine that is dead while its backend says that it runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from reconciler.engine.request import TickAsk
from reconciler.engine.tick import tick
from reconciler.state.requests import WishRefused, remove_instance, stop_run
from schemas.plan import Permissions
from schemas.profile import Retry
from schemas.run import Run
from schemas.state import State
from tests.worlds.world import Site, apply, cron, desired, task, ticks


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(scratch=tmp_path)


def running(site: Site, *runs: str, **fields: object) -> None:
    """Each run has its machine, or its nodes, and runs there."""
    site.world.script = lambda job: (100_000, 0)
    apply(site, desired(runs=[task(name, **fields) for name in runs]))
    until(site, lambda: all(run.status == "running" for run in site.state.runs))


def until(site: Site, done: Callable[[], bool], *, at_most: int = 60, scope: tuple[str, ...] | None = None) -> int:
    """How many passes it took; each begins ten seconds after the last."""
    for number in range(at_most):
        if done():
            return number
        site.clock.at += 10
        cron(site, permissions=Permissions(scope=scope))
    raise AssertionError(f"not within {at_most} passes: {site.state.instances} {site.state.attempts}")


def dies(site: Site, *names: str) -> None:
    """It answers nobody from now on, and its backend says that it runs."""
    for machine in site.world.living():
        if not names or machine.request.names[machine.index] in names:
            machine.silent = True


def asks(site: Site, wish: Callable[[State], State], *scope: str) -> None:
    tick(site.ports(), TickAsk(wish=wish, permissions=Permissions(scope=scope)))


def stops(site: Site, name: str, *, abort: bool) -> str:
    run = run_of(site, name)
    asks(site, lambda state: stop_run(state, run.id, by="ann", now=site.clock.now(), abort=abort), run.id)
    return run.id


def run_of(site: Site, name: str) -> Run:
    return [run for run in site.state.runs if run.spec.name == name][-1]


def removes(site: Site, name: str, *, force: bool = True) -> str:
    key = next(one.id for one in site.state.instances if one.name == name)
    asks(site, lambda state: remove_instance(state, key, by="ann", now=site.clock.now(), force=force), key)
    return key


def test_an_aborted_run_ends_with_its_dead_machine(site: Site) -> None:
    running(site, "train")
    dies(site)
    run = stops(site, "train", abort=True)
    assert until(site, lambda: run_of(site, "train").status == "aborted", scope=(run,)) <= 6
    assert site.world.living() == []
    assert [one.phase for one in site.state.instances] == ["terminated"]


def test_a_stopped_run_keeps_a_machine_that_does_not_answer(site: Site) -> None:
    running(site, "train")
    dies(site)
    run = stops(site, "train", abort=False)
    for _ in range(20):
        site.clock.at += 10
        cron(site, permissions=Permissions(scope=(run,)))
    assert run_of(site, "train").status == "terminating"
    assert len(site.world.living()) == 1
    stops(site, "train", abort=True)
    assert until(site, lambda: run_of(site, "train").status == "aborted", scope=(run,)) <= 6


def test_an_aborted_run_leaves_a_machine_that_answers(site: Site) -> None:
    running(site, "train")
    run = stops(site, "train", abort=True)
    until(site, lambda: run_of(site, "train").status == "aborted", scope=(run,))
    assert [one.phase for one in site.state.instances] == ["ready"]


def test_every_dead_node_of_an_aborted_run_is_ended_and_no_other(site: Site) -> None:
    running(site, "gang", nodes=2)
    dies(site, site.state.instances[0].name)
    run = stops(site, "gang", abort=True)
    until(site, lambda: run_of(site, "gang").status == "aborted", scope=(run,))
    assert [one.phase for one in site.state.instances] == ["terminated", "ready"]


def test_a_network_of_ours_that_fails_does_not_keep_an_aborted_run(site: Site) -> None:
    """Every machine is silent at once, which counts against none of them: the person still has the last word."""
    running(site, "one", "two")
    dies(site)
    run = stops(site, "one", abort=True)
    assert until(site, lambda: run_of(site, "one").status == "aborted", scope=(run,)) <= 12
    assert run_of(site, "two").status == "running"
    assert len(site.world.living()) == 1


def test_a_removed_machine_that_does_not_answer_ends_at_once(site: Site) -> None:
    running(site, "train", retry=Retry(interruption=True, error=True, no_capacity=True))
    dies(site)
    key = removes(site, site.state.instances[0].name)
    assert until(site, lambda: site.state.instances[0].phase == "terminated", scope=(key,)) <= 3
    assert run_of(site, "train").status == "terminated"  # a person ended it: it is not tried again
    ticks(site, 3)
    assert len(site.state.attempts) == 1


def test_a_removed_machine_that_dies_while_it_is_drained_ends(site: Site) -> None:
    running(site, "train")
    for machine in site.world.living():
        machine.stubborn = True
    key = removes(site, site.state.instances[0].name)
    assert site.state.instances[0].phase == "ready"
    dies(site)
    assert until(site, lambda: site.state.instances[0].phase == "terminated", scope=(key,)) <= 3


def test_a_removed_machine_whose_job_does_not_end_ends_after_a_while_or_when_asked_again(site: Site) -> None:
    running(site, "a", "b")
    for machine in site.world.living():
        machine.stubborn = True
    first, second = (one.name for one in site.state.instances)
    key = removes(site, first)
    assert 25 <= until(site, lambda: site.state.instances[0].phase == "terminated", scope=(key,)) <= 40
    removes(site, second)
    key = removes(site, second)
    assert until(site, lambda: site.state.instances[1].phase == "terminated", scope=(key,)) <= 3


def test_a_protected_machine_stays_and_the_plan_says_why(site: Site) -> None:
    running(site, "train")
    state = site.state
    guarded = replace(state, instances=tuple(replace(one, prevent_destroy=True) for one in state.instances))
    site.store.write(guarded, site.store.read()[1])
    dies(site)
    run = stops(site, "train", abort=True)
    for _ in range(8):
        site.clock.at += 10
        result = cron(site, permissions=Permissions(scope=(run,)))
    assert len(site.world.living()) == 1
    assert any("prevent_destroy" in one.why and "--assume-lost train" in one.why for one in result.plan.unmet)
    with pytest.raises(WishRefused, match="prevent_destroy"):
        remove_instance(site.state, site.state.instances[0].id, by="ann", now=0, force=True)


def test_a_shared_machine_is_not_ended_under_the_run_of_another(site: Site) -> None:
    running(site, "mine", "yours")
    mine, yours = site.state.attempts
    there = mine.jobs[0].instance
    moved = replace(yours, jobs=tuple(replace(job, instance=there) for job in yours.jobs))
    shared = replace(site.state, attempts=(mine, moved))
    site.store.write(shared, site.store.read()[1])
    dies(site)
    run = stops(site, "mine", abort=True)
    for _ in range(10):
        site.clock.at += 10
        result = cron(site, permissions=Permissions(scope=(run,)))
    assert len(site.world.living()) == 2
    name = next(one.name for one in site.state.instances if one.id == there)
    assert f"yours is on it, too; `dstack pool remove {name} --force` ends both" in result.plan.unmet[0].why
