"""What a backend's answers to a launch and to an end mean, as outcomes. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from backends.errors import BackendError, NoCapacity, QuotaExceeded
from reconciler.state import record_outcomes as fold
from reconciler.state.capacity_backoff import capacities_of
from reconciler.state.pending_effects import (
    Admit,
    Arm,
    Clean,
    Collect,
    Effect,
    End,
    Halt,
    Release,
    Remove,
    Save,
    Send,
    Start,
)
from reconciler.state.record_outcomes import Outcome
from schemas.launch import LaunchAnswer, Made, Refused, TerminateAnswer, Unknown

UNANSWERED = Unknown(why="the backend did not say what became of it")


def launch_outcome(send: Send, given: Mapping[str, LaunchAnswer], *, now: int) -> Outcome:
    """The outcome of a launch whose request was sent. Ids that are unknown stay open: a listing shows them."""
    request = send.request
    answers = {id: given.get(id, UNANSWERED) for id in request.ids}
    refused = {id: one for id, one in answers.items() if isinstance(one, Refused)}
    hints = tuple(one.external_id for one in answers.values() if isinstance(one, Made) and one.external_id)
    unknown = [one for one in answers.values() if isinstance(one, Unknown)]
    wait = max((one.retry_after for one in unknown), default=0)
    if refused:
        capacities = capacities_of(request, refused.values(), now=now)
        return fold.LaunchRefused(
            intent=send.intent,
            why="; ".join(dict.fromkeys(one.why for one in capacities)),
            capacities=capacities,
            ids=tuple(refused),
            hints=hints,
            not_before=now + wait if wait else 0,
        )
    if wait:
        why = unknown[0].why
        throttled = fold.Throttled(place=request.place, subject=subject(send), why=why, not_before=now + wait)
        return replace(throttled, intent=send.intent, hints=hints)
    if unknown and len(unknown) == len(answers):
        return fold.Failed(subject=subject(send), why=unknown[0].why)
    return fold.Sent(intent=send.intent, hints=hints)


def end_outcome(end: End, given: Mapping[str, TerminateAnswer]) -> Outcome:
    """The outcome of a request to end machines; an id without an answer is unknown."""
    answers = {id: given.get(id, UNANSWERED) for id in end.external_ids}
    refused = {id: one for id, one in answers.items() if isinstance(one, Refused)}
    unknown = {id: one for id, one in answers.items() if isinstance(one, Unknown)}
    if not refused and not unknown:
        return fold.Accepted(place=end.place, external_ids=end.external_ids)
    words = [*(one.why for one in refused.values()), *(one.why for one in unknown.values())]
    left = tuple(sorted((*refused, *unknown)))
    more = f" and {len(left) - 10} more" if len(left) > 10 else ""
    why = f"{words[0]} (not ended: {', '.join(left[:10])}{more})"
    return fold.Failed(subject=subject(end), why=why, lasting=bool(refused), not_ended=left)


def refusal_of(error: BackendError) -> Refused:
    """What a raised refusal says of every machine of its request."""
    match error:
        case NoCapacity():
            return Refused(meaning="capacity", why=str(error), retry_after=error.retry_after)
        case QuotaExceeded():
            return Refused(meaning="quota", why=str(error), quota=error.quota)
        case _:
            return Refused(meaning="permanent", why=str(error))


def subject(effect: Effect) -> str:
    """What it is about, for people."""
    match effect:
        case Send():
            return f"launch of {', '.join(effect.request.names)}"
        case End():
            return f"end of {len(effect.external_ids)} in {effect.place}"
        case Remove():
            return f"removal of {len(effect.resources)} in {effect.place}"
        case Admit():
            return f"authorized keys of {effect.instance}"
        case Arm():
            return f"dead-man timer of {effect.instance}"
        case Start() | Release() | Halt() | Collect() | Save() | Clean():
            return f"job {effect.job}"
