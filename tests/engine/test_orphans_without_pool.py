"""An orphan whose pool tag is missing is in no pool: no permission, message, row or sample has an empty pool name."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from msgspec.structs import replace

from reconciler.cli.commands.plan.approval import Approval
from reconciler.cli.exits import Fail
from reconciler.cli.terminal.interrupts import Interrupts
from reconciler.planner.plan import plan
from reconciler.report.cost_model import cost
from reconciler.report.instance_rows import explain_instances, explain_pools
from reconciler.report.metrics import Visit, render_metrics
from reconciler.state.requests import WishRefused, set_override
from schemas.plan import Plan, Terminate
from schemas.state import Applied, Override, Revision, State
from tests.worlds.planning import NOW, world_of

ORPHAN = {"name": "x-i-1", "pool": "", "orphan": "tagged, and unknown", "created_at": "-20m", "price": "0.50"}
MEMBER = {"name": "gpu-0", "pool": "gpu", "created_at": "-2h", "ready_at": "-2h", "idle_duration": None}
POOLS = [{"name": "gpu", "default": True, "nodes_max": 3}]


def planned(*instances: dict[str, Any], permissions: dict[str, Any] | None = None, **state: Any) -> tuple[Plan, State]:
    """The plan on those instances, and the state that it was made on."""
    case = {"desired": {"pools": POOLS}, "state": {"instances": [dict(one) for one in instances], **state},
            "offers": [], "permissions": permissions or {}}  # fmt: skip
    world = world_of(case)
    applied = Applied(revision=Revision(digest="d"), by="ann", at=0, desired=world.desired)
    return plan(world), replace(world.state, applied=applied)


def ended(made: Plan) -> list[str]:
    return [one.name for one in made.actions if isinstance(one, Terminate)]


def an_approval(**fields: Any) -> Approval:
    interrupts = Interrupts(told=lambda: "")
    declared = frozenset({"gpu"})
    return Approval(yes=True, interrupts=interrupts, declared=declared, show=lambda plan, state: None, **fields)


@pytest.mark.parametrize("pool", ["", "gone"])
def test_an_unattended_apply_ends_an_orphan_whatever_its_pool(pool: str) -> None:
    made, state = planned(MEMBER, {**ORPHAN, "pool": pool})
    assert ended(made) == ["x-i-1"]
    assert an_approval()(made, state) == made


def test_an_unattended_apply_still_asks_for_a_pool_that_is_removed() -> None:
    made, state = planned(MEMBER, {**MEMBER, "name": "old-0", "pool": "old"}, permissions={"destroy_pools": ["*"]})
    assert ended(made) == ["old-0"]
    with pytest.raises(Fail, match="pool old was removed from the configuration and has old-0"):
        an_approval()(made, state)


def test_an_instance_without_a_pool_is_removed_by_no_permission_for_pools() -> None:
    for named in (["*"], [""]):
        made, _ = planned(MEMBER, {**MEMBER, "name": "odd-0", "pool": ""}, permissions={"destroy_pools": named})
        assert (ended(made), made.unmet) == ([], ())


def test_a_drain_without_a_subject_drains_nothing() -> None:
    drain = Override(kind="drain", subject="", by="ann", at=NOW - 60)
    made, _ = planned(MEMBER, {**MEMBER, "name": "odd-0", "pool": ""}, overrides=[drain])
    assert made.actions == ()


def test_an_apply_of_the_default_pool_alone_leaves_it() -> None:
    assert ended(planned(MEMBER, ORPHAN, permissions={"only_pool": "gpu"})[0]) == []
    assert ended(planned(MEMBER, {**ORPHAN, "pool": "gpu"}, permissions={"only_pool": "gpu"})[0]) == ["x-i-1"]


def test_many_of_them_are_weighed_against_the_project_and_called_by_no_name() -> None:
    many = [{**ORPHAN, "name": f"x-i-{number}"} for number in range(3)]
    made, _ = planned(MEMBER, *many)
    (unmet,) = (one for one in made.unmet if "inferred" in one.why)
    assert (ended(made), unmet.subject) == ([], "project")
    assert unmet.why.startswith("3 of its 4 instances would end")
    members = [{**MEMBER, "name": f"gpu-{number}"} for number in range(3)]
    assert len(ended(planned(*members, *many)[0])) == 3


def test_no_override_can_be_set_on_a_pool_without_a_name() -> None:
    _, state = planned(MEMBER, ORPHAN)
    for kind in ("pause", "drain"):
        with pytest.raises(WishRefused, match="there are gpu"):
            set_override(state, kind=kind, subject="", by="ann", now=NOW)


def test_lists_of_pools_leave_it_out_and_lists_of_instances_have_it() -> None:
    _, state = planned(MEMBER, ORPHAN)
    assert state.applied is not None
    assert [row.pool.name for row in explain_pools(state, pools=state.applied.desired.pools, now=0)] == ["gpu"]
    assert [row.instance.name for row in explain_instances(state, now=NOW)] == ["x-i-1", "gpu-0"]


def test_metrics_and_costs_count_it_under_a_label_of_its_own() -> None:
    made, state = planned(MEMBER, ORPHAN)
    visit = Visit(project="p", code=0, at=NOW, seconds=1.0, state=state, plan=made)
    text = render_metrics(visit)
    assert 'pool=""' not in text
    assert 'dstack_hourly_cost_dollars{project="p",pool="(no pool)"} 0.50' in text
    external = replace(state, instances=tuple(replace(one, external_id=one.id) for one in state.instances))
    spent = cost((), external, since=NOW - 600, until=NOW, by="pool")
    assert {(row.name, row.kind) for row in spent.rows} == {("gpu", ""), ("", "none")}
    (row,) = (row for row in spent.rows if row.kind == "none")
    assert row.cost == Fraction(1, 12)
