"""What `make chaos` found in the stateful machine, as the shortest life that shows it: seeds 1121, 2045."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import pytest

from backends.errors import NoCapacity, TryLater
from schemas.profile import Retry
from tests.engine.test_machine import Machine


def two_wishes_at_once(life: Machine) -> None:
    """The order of two `pool add` in the state decided which of them got what there was."""
    life.pool_edited(idle=60, least=0, more=2, blocks=1)
    life.destroyed(seconds=5, ticks=1)
    life.a_file_is_absent(everything=False, who="ann@laptop")
    life.trouble(kind="silent", place="fake/r1")
    life.sold_out(kinds={"small", "large"})
    life.an_older_checkout_is_forced(back=1)
    life.a_clock_is_off(seconds=-7200, who="ann@laptop")
    life.instances_added(count=1)
    life.instances_added(count=2)


def rebuilt_where_the_clock_is_wrong(life: Machine) -> None:
    """A rebuild began the idle clocks two hours ago."""
    life.a_clock_is_off(seconds=-7200, who="ann@laptop")
    life.second_pool(protected=False, there=True, blocks=1)
    life.asleep_at_the_prompt(checkout=0, meanwhile=["cron"], seconds=5)
    life.run_wished(nodes=2, pool="b", gpus=0)
    life.lost()
    life.a_file_is_absent(everything=True, who="cron@ci")


def a_replica_whose_machine_is_gone(life: Machine) -> None:
    """A rebuild did not know of its attempts, and the next one took the name of the first."""
    life.destroyed(seconds=5, ticks=1)
    life.a_file_is_absent(everything=False, who="ann@laptop")
    life.instance_removed(force=True, number=3)
    life.pool_edited(idle=60, least=2, more=None, blocks=1)
    life.an_older_checkout(back=3, who="ann@laptop")
    life.an_older_checkout_is_forced(back=4)
    life.apply(ends=False, who="bob@laptop")
    life.service_edited(pool="a", replicas=2, spot="on-demand", version=2)
    life.asleep_at_the_prompt(checkout=1, meanwhile=["apply"], seconds=5)
    life.cron(seconds=20, who="bob@laptop")
    life.cron(seconds=20, who="ann@laptop")
    life.instance_removed(force=False, number=1)
    life.lost()
    life.run_wished(nodes=2, pool="a", gpus=0)


def _bought_again(life: Machine) -> None:
    """A pool drains, and machines are bought for what ran there."""
    life.machine_hit(how="interrupt", number=0)
    life.run_wished(nodes=1, pool="a", gpus=0)
    life.machine_hit(how="silent", number=0)
    life.forgotten(number=0)
    life.limits_edited(budget=Decimal("2.50"), caps=())
    life.pool_overridden(kind="drain", stop_after=None)
    life.apply(ends=False, who="ann@laptop")
    life.cron(seconds=4000, who="ann@laptop")


def forgotten_where_nobody_asks_any_more(life: Machine) -> None:
    """Its place was removed; with the last machine forgotten, it was asked no more, and the machine lived on."""
    _bought_again(life)
    life.fault(call="launch", after=False, error=NoCapacity("none now"), times=1)
    life.apply(ends=False, who="bob@laptop")
    life.regions_edited(regions=("r1",))
    life.place_cut_off(place="fake/r2", silent=True)
    life.forgotten(number=0)


def two_refusals_of_one_offer(life: Machine) -> None:
    """Two ticks remembered them apart: the order in the state decided which reason was told, and for how long."""
    _bought_again(life)
    life.fault(call="prepare", after=False, error=TryLater("slow down"), times=2)
    life.fault(call="prepare", after=False, error=NoCapacity("none now"), times=1)
    life.asleep_between_two_effects(at=1, after=False, checkout=None, meanwhile=["cron"], seconds=0)


def two_shared_machines_that_do_not_do(life: Machine) -> None:
    """Which of them the reason named was decided by their order in the state."""
    red = {"pool": "a", "nodes": 1, "gpus": 2, "priority": 10, "retry": Retry(), "spot": "spot", "version": 1}
    life.run_edited(name="red", **red)
    life.asleep_between_two_effects(at=1, after=False, checkout=None, meanwhile=["apply"], seconds=0)


WHOLE, SHARED = {"blocks": 1, "lag": 0}, {"blocks": 0, "lag": 0}
LIVES = {
    two_wishes_at_once: WHOLE, rebuilt_where_the_clock_is_wrong: WHOLE, a_replica_whose_machine_is_gone: WHOLE,
    forgotten_where_nobody_asks_any_more: SHARED, two_refusals_of_one_offer: SHARED,
    two_shared_machines_that_do_not_do: {"blocks": 0, "lag": 1},
}  # fmt: skip
"""Each with how it begins."""


@pytest.mark.parametrize("lived", LIVES)
def test_a_life_that_broke_a_law(lived: Callable[[Machine], None]) -> None:
    life = Machine()
    life.begin(boot=0, ending=0, shown=None, kind="fake", delay=0, late="", dated=False, **LIVES[lived])
    lived(life)
    life.no_law_is_broken()
    life.nothing_happens_twice()
    life.the_order_of_records_plans_nothing()
    life.teardown()
