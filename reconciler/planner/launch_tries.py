"""How much one apply tries where places refuse: offers of a run, and launch requests of all of them. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from reconciler.text.format import counted
from schemas.launch import Intent
from schemas.plan import Action, Launch, Plan, Resume

OFFERS = 25
"""Offers that one apply tries for a run; the next apply goes on with the next one."""
SENDS = 500
"""Launch requests to clouds that one apply sends; the next apply sends the rest."""

TRIED = f"{OFFERS} offers were tried and refused: no more are tried now, the next `dstack apply` goes on"


def requests(plan: Plan) -> int:
    """How many launch requests to clouds the plan makes."""
    return sum(isinstance(one, Launch) and one.offer.cloud for one in plan.actions)


def once_each(plans: Iterable[Plan]) -> tuple[Action, ...]:
    """The actions of the plans of one apply, each launch once: a later plan resumes what an earlier one launched."""
    found: list[Action] = []
    launched: set[str] = set()
    for action in (action for plan in plans for action in plan.actions):
        if isinstance(action, Resume) and action.launch in launched:
            continue
        if isinstance(action, Launch | Resume):
            launched.add(action.launch)
        found.append(action)
    return tuple(found)


def within(plan: Plan, *, sent: int) -> tuple[Plan, tuple[str, ...]]:
    """The plan without launches beyond what one apply sends, `sent` before it included; and a note where any is."""
    left, actions = SENDS - sent, []
    for one in plan.actions:
        if isinstance(one, Launch) and one.offer.cloud:
            left -= 1
            if left < 0:
                continue
        actions.append(one)
    if left >= 0:
        return plan, ()
    note = f"{counted(-left, 'launch request')} left to the next `dstack apply`: one apply sends at most {SENDS}"
    return replace(plan, actions=tuple(actions)), (note,)


def without_unprepared(
    plan: Plan, intents: Iterable[Intent], *, notes: tuple[str, ...]
) -> tuple[Plan, tuple[str, ...]]:
    """The plan without launches that were not written, as no place could prepare them; and `notes` with that in it."""
    written = {one.id for one in intents}
    kept = tuple(one for one in plan.actions if not isinstance(one, Launch) or one.launch in written)
    return (plan, notes) if len(kept) == len(plan.actions) else (replace(plan, actions=kept), (*notes, TRIED))
