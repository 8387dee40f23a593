"""Remove leftovers that bill and were unowned for 30 minutes. Pure."""

from __future__ import annotations

from reconciler.planner.draft import Draft
from reconciler.state.observe.unowned_leftovers import believed
from reconciler.text.format import counted, rough
from schemas.plan import Update
from schemas.state import Unowned

GRACE = 30 * 60
"""Seconds from the first sighting of a leftover to its removal."""


def remove_leftovers(draft: Draft) -> None:
    """Mark what is due in each place that answered: at most max(1, half) of what is unowned there.

    `--allow-mass-destroy` lifts that limit. A plan that is narrowed to a pool or a request removes nothing.
    """
    if not draft.everything:
        return
    for place in draft.world.state.places:
        if believed(place):
            _of_place(draft, [one for one in draft.world.state.unowned if one.place == place.name])


def _of_place(draft: Draft, unowned: list[Unowned]) -> None:
    waiting = [one for one in unowned if one.removing_at is None]
    due = [one for one in waiting if draft.now - one.since >= GRACE]
    under_way = len(unowned) - len(waiting)
    room = len(due) if draft.may.mass_destroy else max(0, max(1, len(unowned) // 2) - under_way)
    for one in due[:room]:
        draft.actions.append(_removal(one, now=draft.now))
    if len(due) > room:
        draft.warnings.append(
            f"{due[0].place} has {counted(len(unowned), 'unowned resource')} that cost money: this apply removes "
            f"{room}, later ones the others. `dstack apply --allow-mass-destroy` removes all of them"
        )


def _removal(one: Unowned, *, now: int) -> Update:
    return Update(
        subject=f"leftover {one.key}",
        name=f"{one.kind} {one.id}",
        changes={"removing_at": now},
        why=f"unowned for {rough(now - one.since)}",
    )
