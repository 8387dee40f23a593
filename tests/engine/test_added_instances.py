"""Requests of `pool add`: what ends one, and what is launched again for it."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from backends.errors import BackendError
from backends.fake.backend import Fault
from reconciler.engine.request import TickAsk
from reconciler.engine.tick import TickResult, tick
from reconciler.state.forget import forget
from reconciler.state.requests import WishRefused, add_instances, clear_override, remove_instance, set_override
from schemas.instance import Instance
from schemas.plan import Launch, Permissions, Terminate
from schemas.pool import Pool
from schemas.profile import Retry
from schemas.state import State, Wish
from tests.worlds.world import Site, apply, cron, desired, ticks

MINUTE = 60
POOL = Pool(name="default-pool", default=True, nodes_max=8)
DOCUMENTS = desired(pools=[POOL])
ALWAYS = Retry(no_capacity=True, interruption=True, error=True)
SOLD_OUT = {"small", "large", "huge"}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Machines that boot for half an hour: they are never ready in time."""
    site = Site(scratch=tmp_path)
    site.world.boot = 30 * MINUTE
    apply(site, DOCUMENTS)
    return site


def add(site: Site, count: int = 1, **fields: object) -> TickResult:
    wish = Wish(id="w1", pool="default-pool", count=count, at=site.clock.now(), **fields)  # type: ignore[arg-type]
    return tick(
        site.ports(), TickAsk(wish=lambda state: add_instances(state, wish), permissions=Permissions(scope=("w1",)))
    )


def remove(site: Site, name: str) -> TickResult:
    return tick(site.ports(), TickAsk(wish=lambda state: remove_instance(state, name, by="ann", now=site.clock.now())))


def alive(site: Site) -> list[Instance]:
    return [one for one in site.state.instances if one.phase not in ("terminating", "terminated")]


def bought(site: Site) -> int:
    return site.world.launched.total()


# ---------------------------------------------------------------- removed


def test_an_instance_that_was_removed_while_it_started_is_not_bought_again(site: Site) -> None:
    add(site)
    (one,) = alive(site)
    remove(site, one.name)
    ticks(site, 10)
    assert (bought(site), site.world.living(), site.state.wishes) == (1, [], ())


def test_of_several_only_the_removed_one_is_given_up(site: Site) -> None:
    site.world.boot = 2 * MINUTE
    add(site, 3, retry=ALWAYS)
    remove(site, alive(site)[1].name)
    assert [wish.count for wish in site.state.wishes] == [2]
    ticks(site, 20)
    assert (bought(site), len(alive(site)), site.state.wishes) == (3, 2, ())


def test_a_request_that_waits_is_removed_by_its_name(site: Site) -> None:
    site.world.sold_out |= SOLD_OUT
    add(site, name="mine", retry=ALWAYS)
    assert site.state.wishes
    remove(site, "mine")
    assert site.state.wishes == ()
    site.world.sold_out.clear()
    ticks(site, 5, apart=300)
    assert bought(site) == 0


def test_a_name_that_is_requested_is_taken(site: Site) -> None:
    site.world.sold_out |= SOLD_OUT
    add(site, name="mine", retry=ALWAYS)
    with pytest.raises(WishRefused, match="take another --name"):
        add_instances(site.state, Wish(id="w2", pool="default-pool", name="mine"))


def test_a_drain_of_the_instance_is_its_end_a_drain_of_the_pool_is_not(site: Site) -> None:
    add(site, 2, retry=ALWAYS)
    first = alive(site)[0]
    drained(site, first.name)
    ticks(site, 5)
    assert (bought(site), [wish.count for wish in site.state.wishes]) == (2, [1])
    drained(site, "default-pool")
    ticks(site, 3)
    assert site.world.living() == []
    site.world.boot = 0
    tick(site.ports(), TickAsk(wish=lambda state: clear_override(state, subject="default-pool", now=site.clock.now())))
    ticks(site, 3)
    assert (bought(site), len(alive(site)), site.state.wishes) == (3, 1, ())


def test_a_drained_pool_ends_a_request_without_a_retry(site: Site) -> None:
    add(site)
    drained(site, "default-pool")
    ticks(site, 3)
    tick(site.ports(), TickAsk(wish=lambda state: clear_override(state, subject="default-pool", now=site.clock.now())))
    ticks(site, 3)
    assert (bought(site), site.world.living(), site.state.wishes) == (1, [], ())


def drained(site: Site, subject: str) -> None:
    def wish(state: State) -> State:
        return set_override(state, kind="drain", subject=subject, by="ann", now=site.clock.now())

    tick(site.ports(), TickAsk(wish=wish))


def test_a_forgotten_instance_is_not_bought_again(site: Site) -> None:
    add(site, retry=ALWAYS)
    (one,) = alive(site)
    tick(site.ports(), TickAsk(wish=lambda state: forget(state, one.name, site.clock.now(), by="ann")))
    site.world.machines.clear()
    ticks(site, 3)
    assert (bought(site), site.state.wishes) == (1, ())


def test_destroy_ends_requests_that_wait(site: Site) -> None:
    site.world.sold_out |= SOLD_OUT
    add(site, retry=ALWAYS)
    apply(site, DOCUMENTS, permissions=Permissions(destroy_all=True))
    site.world.sold_out.clear()
    ticks(site, 5, apart=300)
    assert (bought(site), site.state.wishes) == (0, ())


# ---------------------------------------------------------------- failed


def test_what_is_never_ready_is_ended_and_not_bought_again(site: Site) -> None:
    add(site)
    results = ticks(site, 70)
    ends = [action for result in results for action in result.plan.actions if isinstance(action, Terminate)]
    assert [end.why for end in ends] == [
        "not ready 10m after it was made, and not launched again: it was added without --retry, "
        "or the time for that is over"
    ]
    ticks(site, 30, apart=600)
    assert (bought(site), site.world.living(), site.state.wishes) == (1, [], ())


def test_the_command_itself_ends_what_it_launched(site: Site) -> None:
    add(site)
    scope = Permissions(scope=("w1",))
    cron(site, permissions=scope)
    site.clock.at += 11 * MINUTE
    (end,) = cron(site, permissions=scope).plan.actions
    assert isinstance(end, Terminate)


@pytest.mark.parametrize("retry", [Retry(), Retry(no_capacity=True)])
@pytest.mark.parametrize("how", ["interrupt", "power_off", "by hand", "stop"])
def test_what_ends_before_it_is_ready_is_not_bought_again(site: Site, how: str, retry: Retry) -> None:
    add(site, retry=retry)
    (machine,) = site.world.living()
    end(site, machine.external_id, how)
    ticks(site, 10, apart=60)
    assert (bought(site), site.world.living(), site.state.wishes) == (1, [], ())


@pytest.mark.parametrize("how", ["interrupt", "power_off", "by hand"])
def test_with_a_retry_it_is_bought_again_within_its_time(site: Site, how: str) -> None:
    add(site, retry=replace(ALWAYS, duration=3600))
    end(site, site.world.living()[0].external_id, how)
    ticks(site, 10)
    assert (bought(site), len(alive(site))) == (2, 1)
    site.clock.at += 3600
    end(site, site.world.living()[0].external_id, how)
    ticks(site, 10)
    assert (bought(site), alive(site), site.state.wishes) == (2, [], ())


def end(site: Site, external_id: str, how: str) -> None:
    if how == "by hand":
        machine = site.world.machines[external_id]
        machine.ends_at, machine.reason = site.clock.now(), "User initiated"
    else:
        getattr(site.world, how)(external_id)


def test_a_retry_of_interruptions_alone_repeats_nothing_else(site: Site) -> None:
    add(site, retry=Retry(interruption=True))
    end(site, site.world.living()[0].external_id, "interrupt")
    ticks(site, 5)
    assert bought(site) == 2
    end(site, site.world.living()[0].external_id, "by hand")
    ticks(site, 5)
    assert (bought(site), site.state.wishes) == (2, ())


def test_a_refusal_tries_the_next_offer_and_ends_the_request_where_there_is_none(site: Site) -> None:
    site.world.sold_out |= {"small"}
    result = add(site, 2)
    launched = [action for action in result.plan.actions if isinstance(action, Launch)]
    assert [one.offer.instance_type for one in launched] == ["small", "large"]
    assert bought(site) == 2


@pytest.mark.parametrize("late", [False, True])
def test_what_is_sold_out_everywhere_is_not_bought_later(site: Site, late: bool) -> None:
    (site.world.late if late else site.world.sold_out).update(SOLD_OUT)
    add(site)
    ticks(site, 30, apart=10)
    assert site.state.wishes == ()
    site.world.late.clear()
    site.world.sold_out.clear()
    before = bought(site)
    ticks(site, 10, apart=600)
    assert (bought(site), site.world.living()) == (before, [])


def test_what_is_refused_for_good_is_not_asked_for_again(site: Site) -> None:
    site.world.faults.append(Fault(call="launch", error=BackendError("no default VPC"), times=9))
    add(site)
    ticks(site, 10, apart=600)
    assert (site.world.calls["launch"], site.state.wishes) == (1, ())


def test_one_of_several_that_fails_is_not_bought_again(site: Site) -> None:
    site.world.boot = 5 * MINUTE
    add(site, 3)
    end(site, site.world.living()[0].external_id, "by hand")
    ticks(site, 60)
    assert (bought(site), len(alive(site)), site.state.wishes) == (3, 2, ())


def test_a_removal_of_one_that_was_ready_ends_nothing_of_the_others(site: Site) -> None:
    site.world.boot = 0
    add(site, 2, retry=ALWAYS)
    ticks(site, 2)
    assert site.state.wishes == ()
    remove(site, alive(site)[0].name)
    ticks(site, 5)
    assert (bought(site), len(alive(site))) == (2, 1)


def test_a_place_that_is_gone_brings_nothing_back(site: Site) -> None:
    add(site)
    tick(site.ports(), TickAsk(wish=lambda state: forget(state, "fake/r1", site.clock.now(), by="ann")))
    ticks(site, 10, apart=60)
    assert (bought(site), site.state.wishes) == (1, ())
