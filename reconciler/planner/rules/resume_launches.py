"""Send open launches again that were not seen yet. Pure."""

from __future__ import annotations

from reconciler.planner.draft import Draft
from reconciler.state.sending import AGAIN, type_at
from schemas.launch import Intent
from schemas.plan import Resume


def resume(draft: Draft) -> None:
    """Open launches that are not seen yet are asked for again, the same request, while it lives."""
    for intent in draft.world.state.intents:
        request = intent.request
        if intent.refused or draft.now >= request.not_after or request.place in draft.unknown:
            continue
        if type_at(draft.world.state, request.place).launch == "once" or _too_soon(intent, now=draft.now):
            continue
        if not draft.covers(id=intent.id, pool=request.pool) and draft.may.only_pool:
            continue
        waiting = [id for id in request.ids if id in draft.living and draft.living[id].phase == "pending"]
        if waiting:
            why = f"asked for before, {len(waiting)} of {len(request.ids)} not seen yet"
            draft.actions.append(Resume(launch=intent.id, request=request, why=why))


def _too_soon(intent: Intent, *, now: int) -> bool:
    """Its request was given a time a moment ago: its answer, or a listing, comes first."""
    return intent.send_at is not None and now < intent.send_at + AGAIN
