"""Explain with numbers why no existing instance fits a run. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from reconciler.planner.draft import Draft
from reconciler.planner.placement.blocks import SharedBox, fewest, share_misfit
from reconciler.planner.placement.fit import misfit
from reconciler.planner.placement.host_ports import clash
from reconciler.planner.placement.idle_pool import Requirement
from reconciler.state.drains import crosses, told
from reconciler.text.durations import words
from reconciler.text.format import counted
from schemas.base import Seconds
from schemas.instance import Instance
from schemas.run import Run


def pool_crossing(draft: Draft, run: Run, shape: Requirement) -> str:
    """The drain that the run might still run in, where one is announced for its pool; else ""."""
    drain, lasts = draft.closing.get(shape.pool), run.spec.max_duration
    if drain is None or not crosses(drain, now=draft.now, lasts=lasts):
        return ""
    return f"the pool is {told(drain)}; {_length(lasts)} would cross that"


def crossing(draft: Draft, one: Instance, shape: Requirement) -> str:
    """The same of an instance alone."""
    drain = draft.own_drains.get(one.id)
    if drain is None or not crosses(drain, now=draft.now, lasts=shape.lasts):
        return ""
    return f"{one.name} is {told(drain)}; {_length(shape.lasts)} would cross that"


def passed_by(
    draft: Draft,
    shape: Requirement,
    *,
    samples: Iterable[tuple[Instance, int]],
    boxes: Iterable[SharedBox],
    others: Counter[str],
) -> str:
    """`0 of 3 idle instances fit: gpu 1xA100 asked, it has none; 1 busy, 1 unreachable`.

    `samples`: one of each kind that is idle, and how many; `boxes` those with free blocks; `others` by why not.
    """
    if shape.instance_name:
        return _named(draft, shape)
    idle, reason, near = 0, "", ""
    for one, many in samples:
        idle += many
        unfit = misfit(shape.need, shape.where, one, cloud=False) or clash(draft, one, shape.ports)
        reason, near = reason or unfit, near or ("" if unfit else crossing(draft, one, shape))
    open_boxes = list(boxes)
    idle += len(open_boxes)
    if open_boxes and not reason:  # the one with most to spare tells best; their order in the state tells nothing
        reason = _box_misfit(draft, min(open_boxes, key=_spare), shape)
    reason = near or reason  # what would do but for a drain says more than what is too small
    rest = "".join(f", {count} {what}" for what, count in sorted(others.items()) if count)
    if not idle:
        return f"no idle instance{rest}"
    return f"0 of {counted(idle, 'idle instance')} fit{f': {reason}' if reason else ''}{rest}"


def _spare(box: SharedBox) -> tuple[int, int, str]:
    name = box.machine.name if isinstance(box.machine, Instance) else ""
    return -box.free, len(name), name


def _box_misfit(draft: Draft, box: SharedBox, shape: Requirement) -> str:
    """Why a shared instance does not do, whatever number of its blocks."""
    one = box.machine
    if not isinstance(one, Instance):
        return ""
    blocks = fewest(shape.need, one.resources, of=box.of)
    if blocks > box.free:
        return f"{blocks} of {one.name}'s {box.of} blocks needed, {box.free} free"
    unfit = share_misfit(shape.need, shape.where, one) or clash(draft, one, shape.ports)
    return unfit or crossing(draft, one, shape)


def _named(draft: Draft, shape: Requirement) -> str:
    """Why the instance that was asked for by name does not do; of others nothing is said."""
    mine = [one for one in draft.living.values() if one.name == shape.instance_name and one.pool == shape.pool]
    if not mine:
        return f"there is no instance {shape.instance_name}"
    one = mine[0]
    unfit = share_misfit(shape.need, shape.where, one) or clash(draft, one, shape.ports) or crossing(draft, one, shape)
    return f"{one.name}: {unfit}" if unfit else f"{one.name} is {_state(one)}"


def _state(one: Instance) -> str:
    if one.unreachable_since is not None:
        return "unreachable"
    if one.quarantined or one.degraded:
        return "quarantined" if one.quarantined else "degraded"
    return "drained" if one.draining else "busy" if one.phase == "ready" else one.phase


def _length(seconds: Seconds | None) -> str:
    return "max_duration off" if seconds is None else f"max_duration {words(seconds)}"
