"""Shares of an instance: what so many blocks have, and what is handed out."""

from __future__ import annotations

import dataclasses
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from reconciler.planner.placement.blocks import SharedBox, fewest
from reconciler.planner.placement.fit import shortage
from reconciler.planner.plan import plan
from reconciler.report.instance_rows import explain_instances, explain_pools
from reconciler.report.run_rows import explain_runs
from reconciler.state.blocks import blocks_of, part, part_price, share_of, shared, used
from schemas.instance import Instance
from schemas.plan import Assign
from schemas.pool import Pool
from schemas.resources import Gpu, GpuNeed, Need, Resources, Span
from schemas.run import Attempt, Job, Run, RunSpec
from schemas.state import State
from tests.worlds.planning import world_of

UUIDS = tuple(f"GPU-{number}" for number in range(8))
OCTO = Resources(cpus=96, memory=1000, disk=1001, gpu=Gpu(name="A100", memory=80, count=8, uuids=UUIDS))
PLAIN = Resources(cpus=10, memory=1000, disk=1000)


def an_instance(resources: Resources = OCTO, **fields: Any) -> Instance:
    known = {"name": "gpu-0", "pool": "gpu", "backend": "ssh", "place": "ssh", "phase": "ready", "ready_at": 1}
    return Instance(id="i", resources=resources, **{**known, **fields})


@pytest.mark.parametrize(
    ("blocks", "resources", "expected"),
    [(1, OCTO, 1), (0, OCTO, 8), (0, PLAIN, 1), (4, OCTO, 4), (4, PLAIN, 4), (16, OCTO, 16)],
)
def test_auto_is_one_a_gpu(blocks: int, resources: Resources, expected: int) -> None:
    assert blocks_of(blocks, resources) == expected


def test_gpus_whose_uuids_are_not_known_are_not_shared() -> None:
    """But a machine that is still coming is counted as what it will be."""
    anonymous = Resources(cpus=8, memory=8, gpu=Gpu(name="A100", memory=80, count=8))
    assert shared(an_instance(anonymous, blocks=0)) == 1
    assert shared(an_instance(anonymous, blocks=0, phase="pending")) == 8
    assert shared(an_instance(blocks=0)) == 8


def test_a_part_is_rounded_down() -> None:
    assert part(OCTO, blocks=1, of=3) == Resources(
        cpus=32, memory=333, disk=333, gpu=Gpu(name="A100", memory=80, count=2)
    )
    assert part(OCTO, blocks=1, of=16).gpu is None
    assert part(OCTO, blocks=3, of=3) == OCTO
    assert part_price(Decimal("4.00"), blocks=1, of=4) == Decimal("1.00")
    assert part_price(None, blocks=1, of=4) is None


@given(st.integers(1, 12), st.lists(st.integers(1, 12), max_size=12))
def test_parts_never_have_more_than_there_is(of: int, asked: list[int]) -> None:
    """Whoever takes blocks while there are any: no GPU twice, and no sum above the whole."""
    box, taken, gpus = SharedBox(an_instance(), of=of), [], []
    for blocks in asked:
        if blocks <= box.free:
            gpus += box.take(blocks)
            taken.append(part(OCTO, blocks=blocks, of=of))
    assert len(gpus) == len(set(gpus)) == sum(own.gpu.count for own in taken if own.gpu)
    for kind in ("cpus", "memory", "disk"):
        assert sum(getattr(own, kind) for own in taken) <= getattr(OCTO, kind)


NEEDS = st.builds(
    lambda cpus, gpus: Need(cpu=Span(min=cpus), gpu=None if gpus is None else GpuNeed(count=Span(min=gpus, max=gpus))),
    st.integers(1, 100),
    st.sampled_from([None, 0, 1, 2, 5, 8]),
)


@given(NEEDS, st.integers(1, 12))
def test_a_run_takes_the_fewest_blocks_that_suffice(need: Need, of: int) -> None:
    blocks = fewest(need, OCTO, of=of)
    enough = [n for n in range(1, of + 1) if not shortage(need, part(OCTO, blocks=n, of=of), cloud=False)]
    assert blocks == (enough[0] if enough else 0)


def test_what_is_taken_is_told_everywhere() -> None:
    jobs = [
        Job(id="a-0-1-0", instance="i", status="running", blocks=2, gpus=("GPU-0", "GPU-1")),
        Job(id="b-0-1-0", instance="i", status="running", gpus=("GPU-2",)),
    ]
    one = an_instance(blocks=0, price=Decimal("8.00"))
    state = State(
        version=1,
        project="p",
        lineage="l",
        instances=(one,),
        runs=tuple(Run(id=id, spec=RunSpec(name=id), status="running") for id in "ab"),
        attempts=tuple(Attempt(id=f"{job.id[0]}-0-1", run=job.id[0], number=1, jobs=(job,)) for job in jobs),
    )
    (row,) = explain_instances(state, now=5)
    assert (row.status, row.blocks, row.runs) == ("busy", (3, 8), ("a", "b"))
    (pool,) = explain_pools(state, pools=(Pool(name="gpu"),), now=0)
    assert (pool.available, pool.total) == (1, 1)
    prices = {row.run.id: row.price for row in explain_runs(state, everything=False)}
    assert prices == {"a": Decimal("2.00"), "b": Decimal("1.00")}
    own = share_of(one, jobs[0]).resources
    assert (own.cpus, own.gpu.uuids if own.gpu else ()) == (24, ("GPU-0", "GPU-1"))
    assert used(jobs, of=8) == 3


def test_a_gang_takes_the_same_shares_whatever_the_order_of_the_state() -> None:
    """Of boxes that are alike, by name."""
    case = {
        "desired": {"pools": [{"name": "lab", "nodes_max": 4}]},
        "state": {
            "runs": [{"name": "pair", "spec": {"pool": "lab", "nodes": 2}}],
            "instances": [
                {"name": f"lab-{number}", "pool": "lab", "resources": "octo", "blocks": 4} for number in range(4)
            ],
        },
    }
    world = world_of(case)
    turned = replace(world.state, instances=world.state.instances[::-1])
    placed = [
        [one.instances for one in plan(each).actions if isinstance(one, Assign)]
        for each in (world, dataclasses.replace(world, state=turned))
    ]
    assert placed == [[("lab-0", "lab-1")]] * 2
