"""Terminate many instances although EC2 accepts a call for all of its ids or for none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from backends.aws.errors import ask
from backends.errors import BackendError, TryLater

BATCH = 500  # instances that one call ends
ENOUGH = 40  # refused calls after which no more is tried: then it is not about single ones


def terminate(ec2: Any, ids: Sequence[str]) -> None:
    """Those that EC2 does not know are left out. Raises `BackendError`, naming them, for those that may not be ended.

    Whatever could be ended has been accepted by then.
    """
    batches = [list(ids[start : start + BATCH]) for start in range(0, len(ids), BATCH)]
    refused: list[str] = []
    words, calls = "", 0
    while batches:
        batch = batches.pop()
        try:
            ask(ec2, "terminate_instances", InstanceIds=batch)
        except TryLater as error:
            known = _without(batch, error)
            if "InvalidInstanceID.NotFound" not in str(error) or len(known) == len(batch):
                raise
            batches += [known] if known else []
        except BackendError as error:
            words, calls = words or str(error), calls + 1
            if len(batch) == 1 or calls >= ENOUGH:
                refused += batch
            else:
                batches += _halves(batch, error)
    if refused:
        more = f" and {len(refused) - 10} more" if len(refused) > 10 else ""
        raise BackendError(f"{words} (not ended: {', '.join(sorted(refused)[:10])}{more})")


def _without(batch: list[str], error: BackendError) -> list[str]:
    """Those that the error does not name."""
    return [id for id in batch if id not in str(error)]


def _halves(batch: list[str], error: BackendError) -> list[list[str]]:
    """Those that it names apart from all others (termination protection does); where it names none, two halves."""
    others = _without(batch, error)
    if others and len(others) < len(batch):
        return [[id] for id in batch if id not in others] + [others]
    middle = len(batch) // 2
    return [batch[middle:], batch[:middle]]
