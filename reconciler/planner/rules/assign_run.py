"""Assign a run to instances: one attempt, with the shares and GPUs of each that its jobs get. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from reconciler.planner.draft import Draft
from reconciler.planner.placement.at_hand import AtHand
from reconciler.planner.placement.idle_pool import Requirement
from reconciler.planner.run_queue import Demand, next_number
from reconciler.state.master_port import master_port
from reconciler.text.format import by_number, few
from schemas.instance import Instance
from schemas.plan import Assign


def assign(draft: Draft, at: AtHand, demand: Demand, instances: Sequence[Instance], *, shape: Requirement) -> None:
    """Adds the action; the instances, or the shares of them, are taken. The first by name runs node 0."""
    run, instances = demand.run, sorted(instances, key=lambda one: by_number(one.name))
    number = next_number(draft, run, replica=demand.replica)
    attempt = f"{run.id}-{demand.replica}-{number}"
    port = master_port(attempt, taken=draft.ports)
    draft.ports.add(port)
    for instance in instances:
        draft.taken[instance.id] = run.id
    verb = _verb(len(instances), shared=any(at.boxes.of(one.id) for one in instances))
    given = [_hand_out(at, instance, shape) for instance in instances]
    names = few(instance.name for instance in instances)
    draft.actions.append(
        Assign(
            run=run.id,
            name=run.spec.name,
            attempt=attempt,
            number=number,
            replica=demand.replica,
            pool=draft.pool_name(run.spec.pool),
            instances=tuple(instance.id for instance in instances),
            gpus=tuple(gpus for _, gpus in given),
            blocks=tuple(blocks for blocks, _ in given) if any(blocks != 1 for blocks, _ in given) else (),
            port=port,
            why=f"{names} {verb} and fits" if len(instances) == 1 else f"all {len(instances)} nodes {verb}: {names}",
        )
    )


def _hand_out(at: AtHand, one: Instance, shape: Requirement) -> tuple[int, tuple[str, ...]]:
    """The blocks and GPUs that the run gets of it; they are taken."""
    box = at.boxes.of(one.id)
    if box is None:
        return 1, one.resources.gpu.uuids if one.resources.gpu else ()
    blocks = at.boxes.room(box, shape)
    at.gave(one, blocks=blocks)
    return blocks, box.take(blocks)


def _verb(nodes: int, *, shared: bool) -> str:
    one = nodes == 1
    if shared:
        return "has room" if one else "have room"
    return "is idle" if one else "are idle"
