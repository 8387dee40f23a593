"""How launches are sent, by what each type promises: once, late refusals, pace, batches, stopped machines."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from msgspec.structs import replace

from backends.errors import TryLater
from backends.fake.backend import Fault
from reconciler.engine.job_spec import order_of
from reconciler.engine.request import TickAsk
from reconciler.engine.tick import tick
from reconciler.state.observe.listings import KEPT_STOPPED
from reconciler.state.record_outcomes import LaunchRefused, Throttled
from reconciler.state.requests import stop_run
from schemas.backend_types import TYPES
from schemas.instance import Instance
from schemas.plan import Launch
from schemas.pool import Pool
from schemas.profile import Retry
from schemas.resources import Need
from schemas.run import Container
from tests.chaos.killer import Killed, Killer
from tests.worlds.world import Site, apply, apply_ask, cron, desired, offer, task, ticks

POOL = Pool(name="default-pool", default=True, nodes_min=1, nodes_max=4, idle_duration=60)
ONE = desired(pools=[POOL])
MINUTE = 60
Make = Callable[..., Site]


@pytest.fixture
def a_site(tmp_path: Path) -> Make:
    def make(kind: str = "fake", **world: object) -> Site:
        site = Site(scratch=tmp_path, kind=TYPES[kind])
        for name, value in world.items():
            setattr(site.world, name, value)
        return site

    return make


def alive(site: Site) -> list[Instance]:
    return [one for one in site.state.instances if one.phase != "terminated"]


# ---------------------------------------------------------------- sent once


def test_what_is_sent_once_is_never_sent_again_while_listings_lag(a_site: Make) -> None:
    site = a_site("fake-once", delay=10 * MINUTE)
    apply(site, ONE)
    ticks(site, 60, apart=20)
    assert site.world.calls["launch"] == 1
    assert [one.phase for one in alive(site)] == ["ready"]
    assert site.state.intents == ()


def test_a_lost_answer_is_waited_for(a_site: Make) -> None:
    site = a_site("fake-once", delay=2 * MINUTE)
    site.world.faults.append(Fault(call="launch", error=TryLater("timed out"), after=True))
    apply(site, ONE)
    ticks(site, 10, apart=20)
    assert dict(site.world.launched) == {alive(site)[0].id: 1}


def test_a_request_that_made_nothing_is_given_up_after_two_good_listings(a_site: Make) -> None:
    """The first at least `settle` after it was sent, the second `settle_apart` later."""
    site = a_site("fake-once")
    kind = site.kind
    site.world.faults.append(Fault(call="launch", error=TryLater("timed out")))
    apply(site, ONE)
    (first,) = alive(site)
    sent_at = site.state.intents[0].send_at
    assert sent_at is not None
    given_up = 0
    while not given_up:
        ticks(site, 1, apart=20)
        given_up = site.clock.now() if first.id not in [one.id for one in alive(site)] else 0
        assert site.world.calls["launch"] == (2 if given_up else 1)
    assert given_up >= sent_at + kind.settle + kind.settle_apart
    assert [stone.id for stone in site.state.tombstones] == [first.id]
    assert [one.phase for one in alive(site)] == ["pending"]  # its successor, of another launch


def test_bad_listings_prove_nothing(a_site: Make) -> None:
    site = a_site("fake-once", delay=40 * MINUTE)
    apply(site, ONE)
    site.world.faults.append(Fault(call="instances", error=TryLater("slow down"), times=1000))
    ticks(site, 120, apart=20)
    assert site.world.calls["launch"] == 1
    assert [one.phase for one in alive(site)] == ["pending"]


def test_one_that_comes_after_it_was_given_up_is_nobodys(a_site: Make) -> None:
    site = a_site("fake-once", delay=30 * MINUTE)
    apply(site, ONE)
    (first,) = alive(site)
    ticks(site, 70, apart=20)
    assert first.id in {stone.id for stone in site.state.tombstones}
    ticks(site, 22, apart=20)
    assert [one.orphan != "" for one in site.state.instances if one.id == first.id] == [True]


@pytest.mark.parametrize("after", [False, True])
def test_killed_between_the_write_and_the_answer_it_may_have_been_sent(a_site: Make, after: bool) -> None:
    """Nobody sends it again: it is found, or given up and planned anew."""
    site = a_site("fake-once")
    killer = Killer(4, after=after)  # prepare, write, record, launch
    with pytest.raises(Killed):
        tick(killer.wrap(site.ports()), apply_ask(site.shaped(ONE)))
    assert killer.told[-1] == "launch"
    assert [intent.send_at for intent in site.state.intents] == [site.clock.now()]
    ticks(site, 3, apart=20)
    assert sum(site.world.launched.values()) == int(after)
    ticks(site, 60, apart=20)
    assert [one.phase for one in alive(site)] == ["ready"]
    assert set(site.world.launched.values()) == {1}
    assert len(site.world.living()) == 1


def test_a_request_that_was_certainly_not_sent_is_planned_anew_at_once(a_site: Make) -> None:
    """Stopped right after the write: whoever wrote the intent knows that it sent nothing."""
    site = a_site("fake-once")
    tick(site.ports(), apply_ask(site.shaped(ONE), stop=lambda: site.store.writes > 0))
    assert site.world.calls["launch"] == 0
    assert site.state.intents == ()
    ticks(site, 2)
    assert [one.phase for one in alive(site)] == ["ready"]
    assert site.world.calls["launch"] == 1


def test_of_two_machines_with_one_mark_one_is_ours_and_the_other_is_ended(a_site: Make) -> None:
    site = a_site("fake-once", twins=1)
    apply(site, ONE)
    cron(site)
    assert len(site.world.living()) == 2
    assert sorted(bool(one.orphan) for one in alive(site)) == [False, True]
    ticks(site, 40, apart=20)
    assert len(site.world.living()) == 1
    assert site.world.calls["launch"] == 1
    assert [(one.orphan, one.phase) for one in alive(site)] == [("", "ready")]


# ---------------------------------------------------------------- refused late, in part, not at all


def test_a_late_refusal_is_remembered_and_the_next_offer_taken_within_two_ticks(a_site: Make) -> None:
    site = a_site("fake", late={"small"})
    apply(site, ONE)
    (first,) = alive(site)
    assert [intent.id for intent in site.state.intents] == [first.launch], "a promise closes no launch"
    cron(site)
    assert [intent.id for intent in site.state.intents] == [first.launch]
    site.clock.at += site.world.late_after
    ticks(site, 2)
    assert [one.instance_type for one in alive(site)] == ["large"]
    (memory,) = site.state.capacity
    assert (memory.instance_type, memory.until - site.clock.now() > 100) == ("small", True)
    failed = next(one for one in site.state.instances if one.id == first.id)
    assert (failed.phase, failed.reason) == ("terminated", "no small in fake/r1 now")
    ticks(site, 6)
    assert sum(machine.request.instance_type == "small" for machine in site.world.machines.values()) == 1


def test_an_end_of_what_was_refused_late_brings_nothing_back(a_site: Make) -> None:
    site = a_site("fake", late={"small"}, ending=40, lag=2)
    apply(site, ONE)
    (machine,) = site.world.machines.values()
    site.clock.at += site.world.late_after
    backend = site.world.place("fake/r1", region="r1", project=machine.request.project)
    backend.terminate([machine.external_id])
    assert site.world.over(machine)


@pytest.mark.parametrize("kind", ["fake", "fake-account", "fake-once", "fake-single", "fake-container"])
def test_a_late_refusal_in_every_shape(a_site: Make, kind: str) -> None:
    site = a_site(kind, late={"small"})
    apply(site, ONE)
    site.clock.at += site.world.late_after
    ticks(site, 2)
    assert [one.instance_type for one in alive(site)] == ["large"]


def test_of_a_batch_only_the_refused_are_freed(a_site: Make) -> None:
    site = a_site("fake-account", room={"small": 1})
    result = apply(site, desired(pools=[replace(POOL, nodes_min=2)]))
    (refused,) = [one for one in result.outcomes if isinstance(one, LaunchRefused)]
    assert len(refused.ids) == 1
    ticks(site, 2)
    assert sorted(one.instance_type for one in alive(site)) == ["large", "small"]
    assert set(site.world.launched.values()) == {1}


def test_throttling_is_no_refusal(a_site: Make) -> None:
    site = a_site("fake")
    site.world.faults.append(Fault(call="launch", error=TryLater("slow down")))
    apply(site, ONE)
    assert site.state.capacity == ()
    assert [one.phase for one in alive(site)] == ["pending"]
    ticks(site, 2)
    assert [one.instance_type for one in alive(site)] == ["small"]


def test_nothing_is_sent_before_the_time_that_a_vendor_asks_for(a_site: Make) -> None:
    site = a_site("fake")
    site.world.faults.append(Fault(call="launch", error=TryLater("slow down", retry_after=90)))
    result = apply(site, ONE)
    assert any(isinstance(one, Throttled) for one in result.outcomes)
    ticks(site, 8, apart=10)
    assert site.world.calls["launch"] == 1
    ticks(site, 3, apart=10)
    assert site.world.calls["launch"] == 2
    assert [one.phase for one in alive(site)] == ["ready"]


# ---------------------------------------------------------------- pace


def test_requests_of_one_account_keep_their_interval_across_processes(a_site: Make) -> None:
    site = a_site("fake-paced")
    runs = [task("a"), task("b")]
    apply(site, desired(pools=[replace(POOL, nodes_min=0)], runs=runs))
    apply(site, desired(pools=[replace(POOL, nodes_min=1, nodes_max=6)], runs=[*runs, task("c", nodes=2)]))
    ticks(site, 12, apart=5)
    born = sorted({(machine.born, machine.request.launch) for machine in site.world.machines.values()})
    assert len(born) >= 2
    between = [later - sooner for (sooner, _), (later, _) in pairwise(born)]
    assert min(between) >= site.kind.launch_interval
    assert set(site.world.launched.values()) == {1}


def test_a_request_that_is_due_later_is_left_for_the_next_apply_with_a_note(a_site: Make) -> None:
    site = a_site("fake-paced")
    site.world.faults.append(Fault(call="launch", error=TryLater("slow down", retry_after=300)))
    apply(site, ONE)
    more = desired(pools=[POOL, Pool(name="other", nodes_min=1, nodes_max=2)])
    result = apply(site, more)
    assert "1 launch waits: fake takes no more requests now. The next apply sends them." in result.warnings
    assert not any(isinstance(one, Launch) for one in result.plan.actions)
    ticks(site, 35, apart=10)
    assert sorted(one.pool for one in alive(site)) == ["default-pool", "other"]


# ---------------------------------------------------------------- stopped, lost


def test_a_stopped_machine_is_ended_at_once_and_its_attempt_is_over(a_site: Make) -> None:
    site = a_site("fake", script=lambda job: (3600, 0))
    apply(site, desired(runs=[task("train", retry=Retry(interruption=True, error=True))]))
    ticks(site, 3)
    (machine,) = site.world.living()
    site.world.stop(machine.external_id)
    ticks(site, 1)
    assert site.world.over(machine)
    ticks(site, 2)
    first, *later = site.state.attempts
    assert [job.status for job in first.jobs] == ["lost"]
    assert later, "tried again: its end is proven"
    stopped = next(one for one in site.state.instances if one.external_id == machine.external_id)
    assert stopped.reason == "its backend stopped it"


def test_a_stopped_machine_with_prevent_destroy_is_kept_and_works_again_once_it_runs(a_site: Make) -> None:
    site = a_site("fake")
    kept = desired(pools=[Pool(name="a", default=True, nodes_min=1, prevent_destroy=True)])
    apply(site, kept)
    ticks(site, 3)
    (machine,) = site.world.living()
    site.world.stop(machine.external_id)
    ticks(site, 20, apart=60)
    (one,) = [each for each in site.state.instances if each.phase != "terminated"]
    assert (one.external_id, one.phase, one.stopped) == (machine.external_id, "ready", True)
    assert one.unfit == KEPT_STOPPED
    machine.stopped = machine.silent = False
    site.world.reboot(machine.external_id)
    ticks(site, 2)
    (one,) = [each for each in site.state.instances if each.external_id == machine.external_id]
    assert (one.phase, one.stopped, one.unfit) == ("ready", False, "")


def test_a_lost_host_that_was_busy_is_neither_ended_nor_replaced(a_site: Make) -> None:
    site = a_site("fake", script=lambda job: (36000, 0))
    apply(site, desired(runs=[task("train", retry=Retry(interruption=True))]))
    ticks(site, 3)
    (machine,) = site.world.living()
    site.world.lose_host(machine.external_id)
    ticks(site, 100, apart=60)
    assert site.world.living() == [machine]
    assert len(site.state.attempts) == 1


# ---------------------------------------------------------------- batches, gangs, what a request holds


def test_launches_are_cut_to_a_batch(a_site: Make) -> None:
    site = a_site("fake-single")
    apply(site, desired(pools=[replace(POOL, nodes_min=3)], runs=[task("pair", nodes=2)]))
    ticks(site, 4)
    assert {len(machine.request.ids) for machine in site.world.machines.values()} == {1}
    assert "pair" in {run.spec.name for run in site.state.runs if run.status in ("provisioning", "running", "done")}


def test_where_there_are_no_gangs_a_run_of_several_nodes_does_not_fit(a_site: Make) -> None:
    site = a_site("fake-container")
    result = apply(site, desired(runs=[task("pair", nodes=2)]))
    (unmet,) = result.plan.unmet
    assert "0 with 2 nodes of one run" in unmet.why
    assert site.world.machines == {}


@pytest.mark.parametrize("blocks", [1, 2])
def test_where_there_are_no_gangs_idle_instances_are_not_their_nodes(a_site: Make, blocks: int) -> None:
    site = a_site("fake-container")
    pool = replace(POOL, nodes_min=2, blocks=blocks)
    apply(site, desired(pools=[pool]))
    ticks(site, 2)
    assert [one.phase for one in alive(site)] == ["ready", "ready"]
    result = apply(site, desired(pools=[pool], runs=[task("pair", nodes=2), task("one")]))
    (unmet,) = result.plan.unmet
    assert (unmet.subject, unmet.why[:15]) == ("run pair", "0 of 2 nodes at")
    assert [len(attempt.jobs) for attempt in site.state.attempts] == [1]


def test_a_deadline_goes_with_the_request_where_the_backend_keeps_it(a_site: Make) -> None:
    limited = desired(pools=[replace(POOL, max_lifetime=7200)])
    for kind, deadline in (("fake-once", 7200), ("fake", 0)):
        site = a_site(kind)
        apply(site, limited)
        (machine,) = site.world.machines.values()
        assert machine.request.deadline == (site.clock.now() + deadline if deadline else 0)


def test_the_vendors_id_of_an_offer_goes_with_the_request(tmp_path: Path) -> None:
    site = Site(scratch=tmp_path, offers=(replace(offer("small", "1.00"), handle="offer-17"),))
    apply(site, ONE)
    assert [machine.request.handle for machine in site.world.machines.values()] == ["offer-17"]


def test_a_run_that_is_stopped_before_its_machine_is_seen_sends_nothing_more(a_site: Make) -> None:
    site = a_site("fake-once", delay=10 * MINUTE)
    apply(site, desired(runs=[task("train")]))
    tick(site.ports(), TickAsk(wish=lambda state: stop_run(state, "train", by="ann", now=site.clock.now())))
    ticks(site, 80, apart=20)
    assert site.world.calls["launch"] == 1
    assert site.world.living() == []


def test_an_instance_that_is_a_container_is_made_of_its_runs_image(a_site: Make) -> None:
    """A job of the image is then a process there: nothing is pulled, and the host reports no engine."""
    site = a_site("fake-container")
    train = task("train", need=Need(container=True, image="run:1"), container=Container(image="run:1"))
    apply(site, desired(pools=[replace(POOL, default_image="pool:1")], runs=[train]))
    ticks(site, 4)
    (one,) = site.world.machines.values()
    (instance,) = alive(site)
    assert (one.request.image, instance.image, instance.resources.runtime) == ("run:1", "run:1", "image")
    (attempt,) = site.state.attempts
    (run,) = site.state.runs
    order = order_of(
        site.ports(), site.state, run=run, attempt=attempt, job=attempt.jobs[0], instances={instance.id: instance}
    )
    assert (run.status, order.box) == ("running", None)
