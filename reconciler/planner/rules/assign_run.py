"""Assign a run to instances: one attempt, with the shares, GPUs and ports of each that its jobs get. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from reconciler.planner.draft import Draft
from reconciler.planner.placement.at_hand import AtHand
from reconciler.planner.placement.blocks import least
from reconciler.planner.placement.host_ports import free_port, propose_master_port, take_ports
from reconciler.planner.placement.idle_pool import Requirement
from reconciler.planner.run_queue import Demand, next_number
from reconciler.text.format import by_number, few
from schemas.instance import Instance
from schemas.plan import Assign
from schemas.run import Run


def assign(draft: Draft, at: AtHand, demand: Demand, instances: Sequence[Instance], *, shape: Requirement) -> None:
    """Adds the action; the instances, or the shares of them, are taken. The first by name runs node 0."""
    run, instances = demand.run, sorted(instances, key=lambda one: by_number(one.name))
    number = next_number(draft, run, replica=demand.replica)
    attempt = f"{run.id}-{demand.replica}-{number}"
    port = propose_master_port(draft, attempt)
    why = _why(at, instances)
    for instance in instances:
        draft.taken[instance.id] = run.id
        take_ports(draft, instance, shape.ports, run=run.spec.name)
    given = [_hand_out(at, instance, shape) for instance in instances]
    at.take([one for one in instances if at.box_of(one) is None])
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
            service_ports=tuple(_service_ports(draft, run, instances, attempt=attempt)),
            why=why,
        )
    )


def _why(at: AtHand, instances: Sequence[Instance]) -> str:
    verb = _verb(len(instances), shared=any(at.boxes.of(one.id) for one in instances))
    names = few(instance.name for instance in instances)
    lent = next((at.lent[one.id].run for one in instances if one.id in at.lent), "")
    meanwhile = f"; it ends before run {lent}, which this is held for, can start" if lent else ""
    if len(instances) == 1:
        return f"{names} {verb} and fits{meanwhile}"
    return f"all {len(instances)} nodes {verb}: {names}{meanwhile}"


def _service_ports(draft: Draft, run: Run, instances: Sequence[Instance], *, attempt: str) -> Iterator[int]:
    """Where the service listens on each of them; nothing where it has no port."""
    for one in instances if run.spec.port is not None else ():
        port = run.spec.port or free_port(draft, one, attempt=attempt)
        take_ports(draft, one, (port,), run=run.spec.name)
        yield port


def _hand_out(at: AtHand, one: Instance, shape: Requirement) -> tuple[int, tuple[str, ...]]:
    """The blocks and GPUs that the run gets of it; they are taken."""
    box = at.boxes.of(one.id)
    if box is None:
        return 1, one.resources.gpu.uuids if one.resources.gpu else ()
    blocks = least(shape, one, of=box.of)
    at.gave(one, blocks=blocks)
    return blocks, box.take(blocks)


def _verb(nodes: int, *, shared: bool) -> str:
    one = nodes == 1
    if shared:
        return "has room" if one else "have room"
    return "is idle" if one else "are idle"
