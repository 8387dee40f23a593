"""How long a machine may live without us."""

from __future__ import annotations

from typing import Literal

from schemas.base import Seconds, Value


class Lease(Value, frozen=True, kw_only=True):
    """What a tick leaves with a machine's dead-man timer. `None` is never.

    idle: it is needed for `span` from the end of its last job; by now it has been idle for `idle_for`.
    unattended: it is needed for `span` from this tick. `hold` is how long a result waits; `lifetime` counts from its
    first boot, and ends it only where nothing else does.
    """

    rule: Literal["idle", "unattended"]
    span: Seconds | None
    idle_for: Seconds = 0
    hold: Seconds
    lifetime: Seconds | None = None
