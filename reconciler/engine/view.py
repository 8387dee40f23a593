"""What a decision of a pass rests on, and what it comes to."""

from __future__ import annotations

from dataclasses import dataclass, field

from reconciler.engine.observe import Observed
from reconciler.engine.ports import Connections
from schemas.plan import Permissions, Plan
from schemas.state import State


class OtherWorld(Exception):
    """A state of another lineage appeared since we began: begin again."""


@dataclass(frozen=True, kw_only=True)
class View:
    """What a decision rests on. `fresh`: observation, documents and wish are not written yet.

    `read` is the state and its token as they were when the look began: writing on them is refused if it moved.
    `approved` is what a person approved of an earlier plan; `refused` how many machines of it, by
    pool, were refused by their places. `sent`: launch requests of this apply so far.
    """

    before: State
    missing: bool
    connections: Connections
    observed: Observed
    read: tuple[State | None, str] | None = None
    fresh: bool = True
    approved: Plan | None = None
    refused: dict[str, int] = field(default_factory=dict)
    sent: int = 0


@dataclass(frozen=True, kw_only=True)
class Decision:
    """`state` is as stored now, and was current at `since`, by the boot-time clock.

    Where `declined`, or with `act` false, it is as it would have been planned on.
    """

    state: State
    plan: Plan
    view: View
    permissions: Permissions
    since: float = 0.0
    written: bool = False
    declined: bool = False
    warnings: tuple[str, ...] = ()
    scheduled: frozenset[str] = frozenset()
    """Launches whose request this write has given its time: only who wrote it may send them."""
