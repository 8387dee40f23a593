"""Withhold what a plan ends for reasons of time while two clocks disagree."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from reconciler.state.job_results import MAX_DURATION
from reconciler.state.observe.hosts import SKEW
from schemas.plan import Action, Permissions, Plan, Stop, Terminate, Unmet, Update


def withheld_by_the_clock(made: Plan, *, off: Callable[[], tuple[str, int]], permissions: Permissions) -> Plan:
    """Nothing ends for reasons of time where `off` says whose clock ours is off from, by more than 60 seconds.

    Asked only where something would end. What a person asked for still does.
    """
    if permissions.destroy_all or permissions.scope is not None:
        return made
    subjects = tuple(subject for one in made.actions if (subject := _by_the_clock(one)))
    if not subjects:
        return made
    whose, seconds = off()
    if abs(seconds) <= SKEW:
        return made
    why = f"our clock is {abs(seconds)} s {'ahead of' if seconds > 0 else 'behind'} that of {whose}: "
    why += "nothing ends until they agree"
    return replace(
        made,
        actions=tuple(one for one in made.actions if not _by_the_clock(one)),
        unmet=(*made.unmet, *(Unmet(subject=subject, why=f"not ended: {why}") for subject in subjects)),
        warnings=(*made.warnings, why),
    )


def _by_the_clock(action: Action) -> str:
    """The subject of an end that may have its reason in the time of day; "" for any other action."""
    match action:
        case Terminate():
            return f"instance {action.name}"
        case Stop() if action.why.startswith(MAX_DURATION) or "to be drained by now" in action.why:
            return f"run {action.name}"
        case Update() if action.changes.get("status") == "failed":
            return f"run {action.name}"
        case Update() if action.subject.startswith("leftover "):
            return action.name
        case _:
            return ""
