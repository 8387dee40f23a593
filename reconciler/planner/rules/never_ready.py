"""Find instances whose host did not answer in time after they were made. Pure."""

from __future__ import annotations

from reconciler.planner.draft import Draft
from reconciler.state.relaunch.end_requests import retries
from reconciler.text.durations import words
from schemas.backend_types import UNKNOWN
from schemas.instance import Instance


def never_ready(draft: Draft, instance: Instance) -> str:
    """Why it is given up, and what becomes of the request that it was launched for; "" if it is not."""
    if instance.phase != "provisioning" or instance.place in draft.unknown or instance.host is not None:
        return ""
    config = draft.backends.get(instance.backend)
    limit = (config.traits if config else UNKNOWN).ready_after(instance.instance_type)
    if draft.now < max(instance.created_at, instance.seen_at or 0) + limit:
        return ""
    return f"not ready {words(limit)} after it was made{_not_again(draft, instance)}"


def launched_in_scope(draft: Draft, instance: Instance) -> bool:
    """Whether it is launched for a request in the plan's scope, or since for a run in it: their own apply judges it."""
    scope = draft.may.scope
    if scope is None or instance.phase != "provisioning":
        return False
    if instance.wish:
        return instance.wish in scope
    runs = (draft.runs[id] for id in scope if id in draft.runs) if instance.origin == "run" else ()
    return any(
        run.submitted_at <= instance.created_at and draft.pool_name(run.spec.pool) == draft.pool_of(instance)
        for run in runs
    )


def _not_again(draft: Draft, instance: Instance) -> str:
    wish = next((each for each in draft.world.state.wishes if each.id == instance.wish), None)
    if wish is None or retries(wish, reason="", now=draft.now):
        return ""
    return ", and not launched again: it was added without --retry, or the time for that is over"
