"""What a plan says of the configuration: every key that differs, what follows from it, and what it permits to cost."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from reconciler.planner.configuration import changes
from reconciler.planner.plan import plan
from reconciler.planner.rules.pool_edits import DERIVED, EFFECTS, value_of
from schemas.access import Way
from schemas.configuration import Change, PlanCost
from schemas.desired import BackendConfig, Cap, Desired, Secret
from schemas.host import Host
from schemas.pool import Pool
from schemas.profile import Profile, Retry
from schemas.resources import GpuNeed, Need, Span, Where
from schemas.run import Container, RunSpec
from tests.planner.test_laws_planner import worlds
from tests.worlds.planning import world_of

POOL = Pool(name="gpu")
A100 = Need(gpu=GpuNeed(names=("a100",), count=Span(min=8, max=8)))


def said(before: Desired, after: Desired) -> list[str]:
    def words(one: Change) -> str:
        key = f"{one.key}:" if one.key else ""
        return " ".join(filter(None, (one.op, one.kind, one.name, key, f"{one.old} → {one.new}", one.note)))

    return [words(one) for one in changes(before, after)]


def of_pools(before: Pool, after: Pool) -> list[str]:
    return said(Desired(pools=(before,)), Desired(pools=(after,)))


def test_each_key_is_said_with_what_it_was_and_will_be() -> None:
    after = replace(
        POOL, nodes_min=1, nodes_max=4, need=A100, idle_duration=7 * 86400, max_hourly=Decimal("5"), paused=True,
        where=Where(spot="auto", max_price=Decimal("1.2"), regions=("us-east-1", "eu-west-1")),
    )  # fmt: skip
    assert of_pools(replace(POOL, nodes_max=4), after) == [
        "change pool gpu nodes: 0..4 → 1..4 keeps 1 at least",
        "change pool gpu resources:  → gpu 8xA100 new instances only",
        "change pool gpu regions:  → us-east-1, eu-west-1 new instances only",
        "change pool gpu spot_policy: on-demand → auto new instances only",
        "change pool gpu max_price:  → $1.20/h new instances only",
        "change pool gpu idle_duration: 5m → 1w",
        "change pool gpu budget:  → $5.00/h",
        "change pool gpu paused: false → true",
    ]


OTHER: dict[str, Any] = {
    "name": "cpu",
    "default": True,
    "formerly": ("old",),
    "nodes_min": 3,
    "nodes_target": 2,
    "nodes_max": 9,
    "need": A100,
    "where.backends": ("aws",),
    "where.regions": ("r",),
    "where.zones": ("z",),
    "where.instance_types": ("t",),
    "where.spot": "spot",
    "where.max_price": Decimal(1),
    "where.reservation": "cr-1",
    "idle_duration": None,
    "retry": Retry(error=True),
    "placement": "cluster",
    "blocks": 4,
    "tags": (("a", "b"),),
    "connect": Way(mode="jump"),
    "max_lifetime": 60,
    "hold": 60,
    "unattended": None,
    "unreachable_grace": 60,
    "max_hourly": Decimal(1),
    "paused": True,
    "prevent_destroy": True,
    "allow_foreign": True,
    "default_image": "image",
    "isolation": "container",
    "disk_floor": 1,
    "self_termination": "required",
    "hosts": (Host(name="one", hostname="one"),),
}


@pytest.mark.parametrize("field", [*EFFECTS])
def test_no_key_of_a_pool_changes_unsaid(field: str) -> None:
    """A new field of `Pool` stands in `EFFECTS`, and so here."""
    assert {*EFFECTS, *DERIVED} >= {
        name if name != "where" else "where.backends" for name in Pool.__struct_fields__
    }  # fmt: skip
    owner, _, name = field.rpartition(".")
    value = OTHER[field]
    after = replace(POOL, where=replace(POOL.where, **{name: value})) if owner else replace(POOL, **{name: value})
    assert value_of(after, field) != value_of(POOL, field)
    found = of_pools(POOL, after)
    assert any(f" {EFFECTS[field].key}" in one for one in found) or field == "name", found


@pytest.mark.parametrize(
    "field", [each for each in RunSpec.__struct_fields__ if each not in ("hash", "sources", "name")]
)
def test_no_field_of_a_run_changes_unsaid(field: str) -> None:
    other: dict[str, Any] = {
        "type": "service", "need": A100, "where": Where(regions=("r",)), "retry": Retry(error=True),
        "container": Container(image="image"), "restore": "none", "stop_criteria": "master-done", "probe": None,
        "env": (("HF_TOKEN", "canary"),), "sealed": (("HF_TOKEN", "canary"),), "tags": (("a", "b"),),
    }  # fmt: skip
    was = RunSpec(name="train", hash="1")
    usual = getattr(was, field)
    if field in ("probe", "unsupported", "formerly"):
        return
    value = other.get(field)
    if value is None:
        value = not usual if isinstance(usual, bool) else "x" if isinstance(usual, str) else 7
        value = ("x",) if isinstance(usual, tuple) or field == "files" else value
    found = said(Desired(runs=(was,)), Desired(runs=(replace(was, hash="2", **{field: value}),)))
    assert len(found) == 1, found
    assert found[0].endswith("runs again")
    assert "canary" not in found[0]


def test_entries_are_added_renamed_and_removed() -> None:
    before = Desired(
        pools=(POOL, Pool(name="old")), profiles=(Profile(name="p"),), caps=(Cap(instance_type="g5", max=2),),
        ruled=True, secrets=(Secret(name="HF", source="command", reference="pass show hf"),), budget=Decimal(5),
        backends=(BackendConfig(name="local", type="local"),),
    )  # fmt: skip
    after = Desired(
        pools=(replace(POOL, name="big", formerly=("gpu",)),), caps=(Cap(instance_type="g5", max=3),), ruled=True,
        backends=(BackendConfig(name="aws", type="aws", regions=("us-east-1",), options={"creds": {"x": "canary"}}),),
        secrets=(Secret(name="HF", source="env", reference="HF_TOKEN"),),
        runs=(RunSpec(name="train", nodes=2, pool="big"),),
    )  # fmt: skip
    assert said(before, after) == [
        "change project budget: $5.00/h → ",
        "create backend aws  → aws us-east-1",
        "change secret HF from: command → env HF_TOKEN",
        "change rule g5 spot in anywhere max: 2 → 3",
        "remove profile p  → ",
        "change pool big formerly:  → gpu",
        "remove pool old nodes 0.. → ",
        "create run train  → task, 2 nodes (pool big)",
    ]
    other = replace(after.backends[0], options={"creds": {"x": "other canary"}})
    assert said(after, replace(after, backends=(other,))) == ["change backend aws creds:  → changed"]


def test_the_same_configuration_has_no_changes() -> None:
    assert changes(Desired(pools=(POOL,)), Desired(pools=(POOL,))) == ()


# ---------------------------------------------------------------- the worst case


def cost_of(pools: list[Mapping[str, Any]], **case: Any) -> PlanCost:
    desired = {"pools": pools, **case.pop("desired", {})}
    offers = case.pop("offers", [{"type": "small", "price": "1.00"}, {"type": "large", "price": "4.00"}])
    world = replace_world(world_of({"desired": desired, "offers": offers, **case}))
    made = plan(world).cost
    assert made is not None
    return made


def replace_world(world: Any) -> Any:
    import dataclasses

    return dataclasses.replace(world, priced=True)


def worst(*pools: Mapping[str, Any], **case: Any) -> Any:
    return cost_of(list(pools), **case).worst


AWS = {"backends": [{"name": "aws", "type": "aws"}]}


def test_the_worst_case_is_every_maximum_at_the_dearest_offer_that_is_permitted() -> None:
    assert worst({"name": "gpu", "nodes_max": 3}) == 12
    assert worst({"name": "gpu", "nodes_max": 3, "where": {"max_price": "2.00"}}) == 3
    assert worst({"name": "gpu", "nodes_max": 3, "where": {"instance_types": ["small"]}}) == 3
    assert worst({"name": "gpu", "nodes_max": 3, "max_hourly": "5"}) == 5
    assert worst({"name": "gpu", "nodes_max": 3}, desired={"budget": "7"}) == 7
    assert worst({"name": "gpu", "nodes_max": 0}) == 0
    assert worst({"name": "gpu", "nodes_max": 10**12}) == 4 * 10**12, "nothing is made for each"
    assert worst({"name": "gpu", "nodes_max": 2, "where": {"max_price": "9"}}, offers=[], desired=AWS) == 18
    assert worst({"name": "gpu", "nodes_max": 3}, offers=[{"type": "small", "price": "0"}]) == 0


def test_what_has_no_maximum_is_said_to_have_none() -> None:
    found = cost_of([{"name": "gpu"}, {"name": "cpu", "nodes_max": 1}])
    assert (found.worst, found.unlimited) == (None, ("gpu",))
    assert worst({"name": "gpu"}, desired={"budget": "7"}) == 7
    assert worst({"name": "gpu"}, offers=[{"type": "own", "price": "0"}]) == 0


def test_what_runs_at_a_higher_price_counts_with_it_and_what_is_unpriced_is_said() -> None:
    one = {"name": "gpu-0", "pool": "gpu", "price": "9.00"}
    assert worst({"name": "gpu", "nodes_max": 2}, state={"instances": [one]}) == 13
    found = cost_of([{"name": "gpu", "nodes_max": 2}], offers=[{"type": "new", "price": None}])
    assert [each.unpriced for each in found.pools] == [True]


def test_rules_bound_the_worst_case() -> None:
    caps = [{"instance_type": "large", "max": 1, "spot": True}, {"instance_type": "small", "max": 9, "spot": True}]
    pool = {"name": "gpu", "nodes_max": 3, "where": {"spot": "spot"}}
    offers = [{"type": "small", "price": "1.00", "spot": True}, {"type": "large", "price": "4.00", "spot": True}]
    assert worst(pool, desired={"caps": caps, "ruled": True}, offers=offers) == 6


@given(worlds(), st.booleans())
def test_the_pools_add_up_to_the_plan(world: Any, priced: bool) -> None:
    import dataclasses

    made = plan(dataclasses.replace(world, priced=priced))
    if made.cost is None:
        assert not priced
        return
    assert sum(one.before for one in made.cost.pools) == made.hourly_before
    assert sum(one.after for one in made.cost.pools) == made.hourly_after
    for one in made.cost.pools:
        assert one.worst is None or one.worst >= one.after
    assert made.cost.worst is None or made.cost.worst >= made.hourly_after
