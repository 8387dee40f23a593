"""Finish a plan: what it costs, what it changes and what is to be said of it. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from reconciler.planner.draft import Draft
from reconciler.planner.forecast import assumed, foresee, next_actor
from reconciler.planner.placement.limits import hourly, uncounted
from schemas.base import Price
from schemas.configuration import Change, PlanCost
from schemas.plan import Launch, Plan, Terminate

VERSION = 1


def finished(draft: Draft) -> Plan:
    """The plan of what the rules added to the draft."""
    foresee(draft)
    state = draft.world.state
    before, after, not_in_sums = costs(draft)
    lacking_here, assumptions = assumed(draft)
    changed = changed_settings(draft)
    return Plan(
        version=VERSION,
        project=state.project or draft.world.desired.project,
        generation=state.generation,
        lineage=state.lineage,
        made_at=draft.now,
        basis=state.applied.revision.digest if state.applied else "",
        observed=tuple((place.name, place.observed_at, place.error) for place in state.places),
        actions=tuple(draft.actions),
        unmet=tuple(dict.fromkeys(draft.unmet)),
        waits=tuple(dict.fromkeys(draft.waits)),
        warnings=(*draft.warnings, *assumptions),
        lacking_here=lacking_here,
        uncounted=not_in_sums,
        notes=tuple(draft.notes),
        idle=tuple(draft.idle),
        next_actor=next_actor(state.ticks, now=draft.now),
        hourly_before=before,
        hourly_after=after,
        changes=changed,
        cost=cost_of(draft, changed),
    )


def costs(draft: Draft) -> tuple[Price, Price, tuple[str, ...]]:
    """$/h of all that lives and is not on its way out: now, and after the plan; and what is in neither."""
    gone = {action.instance for action in draft.actions if isinstance(action, Terminate)}
    before = hourly(draft)
    ended = sum((draft.living[id].price or Price(0) for id in gone if id in draft.living), Price(0))
    launched = sum(
        ((action.offer.price or Price(0)) * len(action.ids) for action in draft.actions if isinstance(action, Launch)),
        Price(0),
    )
    return before, before - ended + launched, tuple(uncounted(draft))


def changed_settings(draft: Draft) -> tuple[Change, ...]:
    """What differs from the configuration that was applied before. A plan of a request applies none."""
    before = draft.world.before
    if before is None or not draft.rules_documents or draft.may.destroy_all:
        return ()
    from reconciler.planner.configuration import changes

    return changes(before, draft.world.desired)


def cost_of(draft: Draft, changed: Sequence[Change]) -> PlanCost | None:
    """Computed where a price is at stake, since it reads every offer."""
    if not (draft.world.priced or changed or any(isinstance(one, Launch | Terminate) for one in draft.actions)):
        return None
    from reconciler.planner.worst_case import cost

    return cost(draft)
