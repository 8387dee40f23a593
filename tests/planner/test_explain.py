"""Explanations say what the plan decides by: the same matcher, every condition, both sides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from reconciler.planner.draft import draft_of
from reconciler.planner.explain.conditions import failed
from reconciler.planner.explain.instance import explain_instance
from reconciler.planner.explain.offer import explain_offer
from reconciler.planner.explain.pool import explain_pool
from reconciler.planner.explain.run import RunExplained, explain_run
from reconciler.planner.placement.fit import fits
from reconciler.planner.rules.pool_edits import EFFECTS
from reconciler.report.explain import instance_json, instance_text, pool_json, pool_text, run_json, run_text
from reconciler.report.json import dump
from schemas.resources import Need, Span, Where
from tests.planner.test_laws_planner import worlds
from tests.worlds.planning import NOW, world_of

OFFERS = [
    {"type": "t3.large", "resources": "small", "price": "0.08"},
    {"type": "m5.big", "resources": "big", "price": "3.00"},
    {"type": "p4d", "resources": "a100x8", "price": "32.00"},
    {"type": "p4d", "resources": "a100x8", "price": "9.00", "spot": True},
]


def explained(spec: Mapping[str, Any], *, pool: Mapping[str, Any] | None = None, **case: Any) -> RunExplained:
    run = {"name": "train", **spec}
    world = world_of({"desired": {"pools": [{"name": "gpu", **(pool or {})}], "runs": [run]}, "offers": OFFERS, **case})
    return explain_run(world, world.desired.runs[0])


def test_the_smallest_relaxation_is_the_cheapest_offer_that_fails_one_condition() -> None:
    found = explained({"need": {"memory": {"min": 32768}}, "where": {"max_price": "2.00"}})
    assert found.fitting == ()
    assert [(one.condition.kind, one.condition.has, one.offer.instance_type) for one in found.relaxations] == [
        ("memory", "16GB", "t3.large"),
        ("price", "$3.00/h", "m5.big"),
    ]
    said = run_text(found, width=100)
    assert "memory 16GB instead of 32GB.." in said
    assert "aws us t3.large, $0.08/h" in said


def test_every_condition_is_said_and_those_of_the_pool_by_its_name() -> None:
    found = explained(
        {"need": {"gpu": {"names": ["h100"]}}, "where": {"max_price": "2.00"}},
        pool={"need": {"gpu": {"names": ["a100"], "count": {"min": 8, "max": 8}}}},
    )
    kinds = {one.cheapest.instance_type: [(each.kind, each.of) for each in one.conditions] for one in found.groups}
    assert kinds["t3.large"] == [("gpu", ""), ("gpu", "pool gpu")]
    assert ("gpu", "pool gpu") not in kinds["p4d"]
    assert not any(one.offer.instance_type == "t3.large" for one in found.relaxations), "its pool does not permit it"


def test_instances_are_judged_by_what_they_are_and_do() -> None:
    found = explained(
        {"need": {"cpu": {"min": 8}}},
        state={
            "instances": [{"name": "gpu-0", "pool": "gpu"}, {"name": "gpu-1", "pool": "gpu", "resources": "big"},
                          {"name": "gpu-2", "pool": "gpu", "resources": "big"}],
            "runs": [{"name": "other", "origin": "run", "status": "running"}],
            "attempts": [{"run": "other", "jobs": [{"instance": "gpu-1"}]}],
        },
    )  # fmt: skip
    assert [(one.name, one.why) for one in found.instances] == [
        ("gpu-0", ("cpu 8.. asked, it has 4",)),
        ("gpu-1", ("busy with other",)),
        ("gpu-2", ()),
    ]


def test_of_an_instance_what_keeps_and_what_ends_it_with_its_setting() -> None:
    world = world_of(
        {
            "desired": {"pools": [{"name": "gpu", "idle_duration": 600}]},
            "state": {"instances": [{"name": "gpu-0", "pool": "gpu", "idle_duration": 600, "max_lifetime": 86400,
                                     "idle_source": "pool gpu", "last_job_end": "-5m", "prevent_destroy": True}]},
        }
    )  # fmt: skip
    found = explain_instance(world, world.state.instances[0])
    assert [one.what for one in found.keeps] == ["prevent_destroy"]
    assert [(one.what, one.source, one.key) for one in found.ends] == [
        ("idle for 10m", "pool gpu", "idle_duration"),
        ("max_lifetime 24h", "pool gpu", "max_lifetime"),
    ]
    said = instance_text(found, now=NOW, width=100, located=lambda owner, key: f"pools.yml:3:5#{owner}.{key}")
    assert "(from pool gpu, pools.yml:3:5#pool gpu.idle_duration)" in said


def test_of_a_pool_every_setting() -> None:
    world = world_of({"desired": {"pools": [{"name": "gpu", "nodes_max": 4, "max_hourly": "5"}]}})
    found = explain_pool(world, world.desired.pools[0])
    assert {one.key for one in found.settings} == {
        effect.key for field, effect in EFFECTS.items() if field not in ("name", "formerly")
    }
    shown = {one.key: (one.value, one.source) for one in found.settings}
    assert (shown["nodes"], shown["budget"], shown["paused"]) == (
        ("0..4", "pool"),
        ("$5.00/h", "pool"),
        ("false", "default"),
    )
    assert "budget" in pool_text(found, width=80, located=lambda owner, key: "")


def test_of_an_offer_each_pool() -> None:
    pools = [{"name": "a"}, {"name": "b", "where": {"max_price": "1"}}, {"name": "c", "where": {"spot": "spot"}}]
    world = world_of({"desired": {"pools": pools}, "offers": OFFERS})
    told = explain_offer(world, "p4d")
    assert told is not None
    found = {one.pool: (str(one.offer.price), [each.kind for each in one.conditions]) for one in told.pools}
    assert found == {"a": ("32.00", []), "b": ("32.00", ["price"]), "c": ("9.00", [])}
    assert explain_offer(world, "nothing") is None


@given(worlds(), st.integers(1, 64), st.integers(1, 256 * 1024))
def test_a_machine_fails_nothing_exactly_where_the_matcher_takes_it(world: Any, cpus: int, memory: int) -> None:
    need = Need(cpu=Span(min=cpus), memory=Span(min=memory))
    for pool in world.desired.pools:
        for machine in (*world.offers, *world.state.instances):
            cloud = getattr(machine, "cloud", False)
            for each, where in ((need, Where()), (pool.need, pool.where)):
                assert bool(failed(each, where, machine, cloud=cloud)) is not fits(each, where, machine, cloud=cloud)


@given(worlds())
def test_whatever_there_is_can_be_explained(world: Any) -> None:
    draft = draft_of(world)
    for pool in draft.pools.values():
        dump(pool_json(explain_pool(world, pool), located=lambda owner, key: ""))
    for run in world.state.runs:
        if draft.pool_name(run.spec.pool) in draft.pools:
            dump(run_json(explain_run(world, run)))
    for one in draft.living.values():
        dump(instance_json(explain_instance(world, one), located=lambda owner, key: ""))
