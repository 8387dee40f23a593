"""Refuse unattended launches of paid instances while the state exists on one machine only. Pure."""

from __future__ import annotations

from schemas.desired import Desired
from schemas.location import LOCAL, Bucket, location


def alone(desired: Desired) -> str:
    """Why such documents are refused without a terminal; "" where they are not.

    A runner that forgets its disk would otherwise buy everything again, and remember nothing of it.
    """
    billed = sorted({config.name for config in desired.backends if config.traits.bought and not config.unsupported})
    if not billed or desired.state == LOCAL or isinstance(location(desired.state), Bucket):
        return ""
    return (
        f"{', '.join(billed)} costs money, and the state is a folder of this machine: if its disk is lost, so is the "
        "memory of what runs. Write `state: s3://BUCKET/PREFIX` (or gs://, az://); `state: local` says that this "
        "machine alone reconciles, and keeps its disk"
    )


def told_alone(desired: Desired) -> tuple[str, ...]:
    """The same, for a plan: before a cron job or CI finds out."""
    why = alone(desired)
    return (f"an apply without a terminal (cron, CI) will refuse this: {why}",) if why else ()
