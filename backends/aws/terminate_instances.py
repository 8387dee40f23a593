"""Terminate many instances although EC2 accepts a call for all of its ids or for none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from backends.aws.errors import ask
from backends.errors import BackendError, CallFailed, TryLater
from schemas.launch import Ending, Refused, TerminateAnswer, Unknown

BATCH = 500  # instances that one call ends
ENOUGH = 40  # refused calls after which no batch is divided any more


def terminate(ec2: Any, ids: Sequence[str]) -> dict[str, TerminateAnswer]:
    """An answer for each id; one that EC2 does not know is gone already, and so `Ending`.

    `Refused` only where EC2 refused it alone. After `ENOUGH` refused calls, the ids of a refused batch are `Unknown`.

    Raises `TryLater` where EC2 answers for none of them; after that, those that it did not answer for are `Unknown`.
    """
    batches = [list(ids[start : start + BATCH]) for start in range(0, len(ids), BATCH)]
    answers: dict[str, TerminateAnswer] = {}
    calls = 0
    while batches:
        batch = batches.pop()
        try:
            ask(ec2, "terminate_instances", InstanceIds=batch)
            answers |= {id: Ending() for id in batch}
        except TryLater as error:
            known = _without(batch, error)
            if "InvalidInstanceID.NotFound" in str(error) and len(known) < len(batch):
                answers |= {id: Ending() for id in batch if id not in known}
                batches += [known] if known else []
            elif not answers:
                raise
            else:
                unasked = Unknown(why=str(error), retry_after=error.retry_after)
                return answers | {id: unasked for each in (batch, *batches) for id in each}
        except BackendError as error:
            calls += 1
            if len(batch) == 1:
                answers[batch[0]] = Refused(meaning="permanent", why=str(error))
            elif calls >= ENOUGH:
                unasked = Unknown(why=f"not asked for alone after {calls} refused calls: {error}")
                answers |= dict.fromkeys(batch, unasked)
            else:
                batches += _halves(batch, error)
    return answers


def _without(batch: list[str], error: CallFailed) -> list[str]:
    """Those that the error does not name."""
    return [id for id in batch if id not in str(error)]


def _halves(batch: list[str], error: BackendError) -> list[list[str]]:
    """Those that it names apart from all others (termination protection does); where it names none, two halves."""
    others = _without(batch, error)
    if others and len(others) < len(batch):
        return [[id] for id in batch if id not in others] + [others]
    middle = len(batch) // 2
    return [batch[middle:], batch[:middle]]
