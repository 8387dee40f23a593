"""Plan afresh, then do only what was also approved."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from msgspec.structs import replace

from reconciler.planner.approve import approve
from reconciler.planner.plan import plan
from reconciler.planner.world import World
from schemas.offer import Offer
from schemas.plan import Action, Assign, Launch, Plan, Stop, Terminate, Unmet, Update, Wait
from schemas.run import Run, RunSpec
from tests.worlds.planning import MACHINES
from tests.worlds.worlds import worlds


def a_plan(*actions: Action, before: str = "0", after: str = "0") -> Plan:
    return Plan(
        version=1,
        project="testproject",
        generation=7,
        actions=actions,
        hourly_before=Decimal(before),
        hourly_after=Decimal(after),
    )


def launch(id: str, *, count: int = 1, **changes: Any) -> Launch:
    offer = {"backend": "aws", "region": "us", "instance_type": "m5", "price": Decimal("1.00")}
    offer |= {name: changes.pop(name) for name in list(changes) if name in (*offer, "spot", "zone")}
    ids = tuple(f"{id}-{index}" for index in range(count))
    given = {"launch": id, "pool": "gpu", "ids": ids, "names": ids, "why": "x", **changes}
    return Launch(offer=Offer(resources=MACHINES["small"], **offer), **given)


END = Terminate(instance="i0", name="gpu-0", pool="gpu", why="idle")
OTHER_END = Terminate(instance="i1", name="gpu-1", pool="gpu", why="idle")
STOP = Stop(run="r", name="train", attempt="r-0-1", pool="gpu", why="was removed from the configuration")
ASSIGN = Assign(run="r", name="train", attempt="r-0-1", number=1, replica=0, pool="gpu", instances=("i0",), why="idle")
QUIET = Update(subject="run r", name="train", changes={"reason": "waits"}, why="waits", quiet=True)
ENROL = Update(subject="run n", name="new", enrol=Run(id="n", spec=RunSpec(name="new")), why="new")
LOUD = Update(subject="instance i0", name="gpu-0", changes={"draining": "x"}, why="drains")


@pytest.mark.parametrize("action", [END, STOP, LOUD, launch("a")], ids=lambda action: type(action).__name__)
def test_what_was_not_approved_is_not_done(action: Action) -> None:
    assert approve(a_plan(action), a_plan()).actions == ()


@pytest.mark.parametrize("action", [ASSIGN, QUIET, ENROL], ids=["assign", "quiet update", "enrol"])
def test_work_on_what_is_there_and_bookkeeping_pass(action: Action) -> None:
    assert approve(a_plan(action), a_plan()).actions == (action,)


WAIT = Wait(run="train", why="waits for gpu-0")
FOR_TRAIN, FOR_EVAL, FOR_BOTH = ("r", "train"), ("e", "eval"), ("r", "train", "e", "eval")


@pytest.mark.parametrize(
    ("approved", "starts"),
    [
        (a_plan(), False),
        (replace(a_plan(), unmet=(Unmet(subject="run train", why="full"),)), False),
        (replace(a_plan(ENROL), unmet=(Unmet(subject="run new", why="full"),)), False),
        (a_plan(replace(ASSIGN, attempt="r-0-7", instances=("i7",))), True),
        (a_plan(launch("a", made_for=(FOR_TRAIN,))), True),
        (a_plan(launch("a", made_for=(FOR_EVAL,))), False),
        (a_plan(launch("a", made_for=(FOR_BOTH,))), True),
        (replace(a_plan(), waits=(WAIT,)), True),
        (a_plan(STOP), True),
    ],
    ids=["nothing", "unmet", "enrolled", "elsewhere", "launched for", "another", "shared", "waits", "moves"],
)
def test_a_run_starts_only_as_the_approved_plan_says(approved: Plan, starts: bool) -> None:
    assert approve(a_plan(ASSIGN), approved, starts=True).actions == ((ASSIGN,) if starts else ())
    assert approve(a_plan(ASSIGN), approved).actions == (ASSIGN,)


def test_machines_go_to_the_runs_that_they_were_approved_for() -> None:
    """A run that came since ranks higher: it gets none of what was approved for another."""
    fresh = a_plan(launch("c", count=2, made_for=(FOR_EVAL, FOR_TRAIN)), launch("d", made_for=(("n", "new"),)))
    one = a_plan(launch("a", made_for=(FOR_TRAIN,)))
    made = approve(fresh, one)
    assert [(one.ids, one.made_for) for one in made.actions if isinstance(one, Launch)] == [(("c-1",), (FOR_TRAIN,))]
    two = a_plan(launch("a", count=2, made_for=(FOR_TRAIN, ("g", "gone"))))
    assert [one.ids for one in approve(fresh, two).actions if isinstance(one, Launch)] == [("c-0", "c-1")]
    assert [one.ids for one in approve(fresh, two, starts=True).actions if isinstance(one, Launch)] == [("c-1",)]


def test_ends_need_the_same_subject() -> None:
    assert approve(a_plan(END, OTHER_END, STOP), a_plan(OTHER_END, STOP)).actions == (OTHER_END, STOP)


DRAIN = Update(subject="instance i0", name="gpu-0", changes={"draining": "x", "drain_until": None}, why="drains")


def test_an_approved_drain_covers_its_end_and_an_approved_end_the_drain_before_it() -> None:
    assert approve(a_plan(END, OTHER_END), a_plan(DRAIN)).actions == (END,)
    assert approve(a_plan(DRAIN), a_plan(END)).actions == (DRAIN,)


def test_nothing_is_reserved_for_a_gang_that_was_not_approved() -> None:
    gang = launch("c", count=2, gang=True, reserved_for="r")
    keep = Update(subject="instance i0", name="gpu-0", changes={"reserved_for": "r"}, why="reserved", quiet=True)
    assert approve(a_plan(gang, keep), a_plan()).actions == ()
    assert approve(a_plan(gang, keep), a_plan(gang)).actions == (gang, keep)
    assert approve(a_plan(keep), a_plan()).actions == (keep,)


def test_an_update_needs_the_same_subject_and_fields() -> None:
    other = Update(subject="instance i0", name="gpu-0", changes={"pool": "b"}, why="renamed")
    assert approve(a_plan(LOUD, other), a_plan(LOUD)).actions == (LOUD,)


@pytest.mark.parametrize(
    ("changes", "passes"),
    [
        ({}, True),
        ({"zone": "us-1b"}, True),
        ({"price": Decimal("0.90")}, True),
        ({"price": Decimal("1.01")}, False),
        ({"price": None}, False),
        ({"pool": "cpu"}, False),
        ({"instance_type": "m6"}, False),
        ({"region": "eu"}, False),
        ({"spot": True}, False),
    ],
    ids=["the same", "another zone", "cheaper", "dearer", "unpriced", "pool", "type", "region", "spot"],
)
def test_another_launch_id_is_the_same_launch_at_no_higher_price(changes: dict[str, Any], passes: bool) -> None:
    assert bool(approve(a_plan(launch("b", **changes)), a_plan(launch("a"))).actions) is passes


def test_no_more_machines_than_approved() -> None:
    fresh = a_plan(launch("c", count=2), launch("d", count=3), after="5.00")
    made = approve(fresh, a_plan(launch("a", count=3)))
    assert [action.ids for action in made.actions if isinstance(action, Launch)] == [("c-0", "c-1"), ("d-0",)]
    assert made.hourly_after == Decimal("3.00")


def test_a_gang_is_approved_whole_or_not_at_all() -> None:
    gang = launch("c", count=3, gang=True, reserved_for="r")
    assert approve(a_plan(gang), a_plan(launch("a", count=2))).actions == ()
    assert approve(a_plan(gang), a_plan(launch("a", count=3))).actions == (gang,)


@given(worlds())
def test_a_plan_approves_itself_whole(world: World) -> None:
    made = plan(world)
    assert approve(made, made) == made


@given(worlds(), worlds())
def test_an_approval_never_adds(one: World, other: World) -> None:
    """Whatever was approved, what is done is a part of the fresh plan, at no higher cost."""
    fresh = plan(one)
    made = approve(fresh, plan(other))
    whole = {action.launch: action for action in fresh.actions if isinstance(action, Launch)}
    for action in made.actions:
        if isinstance(action, Launch):
            known = whole[action.launch]
            assert set(action.ids) <= set(known.ids)
            assert replace(action, ids=known.ids, names=known.names, made_for=known.made_for) == known
        else:
            assert action in fresh.actions
