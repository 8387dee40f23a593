"""What one pass is asked to do, as a value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

from reconciler.engine.ports import Configuration
from reconciler.planner.world import needs_of
from reconciler.state.requests import WishRefused
from schemas.desired import Desired
from schemas.plan import Permissions, Plan
from schemas.resources import Need
from schemas.state import Revision, State

Confirm = Callable[[Plan, State], Plan | None]


def _never() -> bool:
    return False


@dataclass(frozen=True, kw_only=True)
class TickAsk:
    """What one tick is asked for.

    `documents` (with their `revision`) become the applied ones; without them the applied
    ones rule. `git_failed` is why git could not tell the revision; "" where it could, or
    where there is no repository. `revive`: a destroyed project is created again, which is
    refused otherwise. `wish` changes the memory first (it may raise; it is made anew on whatever
    the state has become, until it is written once). `carried` is the caller's checkout:
    its project and its backends are used where there is no state or nothing applied yet.
    `confirm` gets the plan and the state it is made on (before the wish or the documents
    are written) and gives what is approved: the plan itself, a part of it, or `None` to
    decline. It is called also for a plan without actions. `prompted`: it asks a person.
    `act` false writes and does nothing: `plan --refresh`. `deadline` is in seconds from now.
    `stop` true: no effect is begun any more. `tell` hears each written state.
    `hasty`: only the places of the scope are asked, and no silent server or host is waited for, nor an effect on it.
    `approved_starts`: runs start only as the approved plan says: one that it lists as pending is not started.
    `goes_on`: until when whoever asks asks again, as in a `World`.
    `trust_clock`: a person says that our clock is right, where only the last apply contradicts it.
    `retry_hosts`: failing hosts are looked at although that is put off; `None`: where a person sits at a terminal.
    """

    documents: Configuration | None = None
    revision: Revision | None = None
    git_failed: str = ""
    config_force: bool = False
    revive: bool = False
    wish: Callable[[State], State] | None = None
    carried: Desired | None = None
    permissions: Permissions = field(default_factory=Permissions)
    confirm: Confirm | None = None
    prompted: bool = False
    act: bool = True
    hasty: bool = False
    trust_clock: bool = False
    retry_hosts: bool | None = None
    approved_starts: bool = False
    goes_on: Literal["", "stops", "runs"] = ""
    deadline: float = 600.0
    stop: Callable[[], bool] = _never
    tell: Callable[[State], object] | None = None


def needs_asked(ask: TickAsk, state: State) -> Sequence[Need]:
    """What the plan will look for, as far as it is known before anything is observed."""
    with suppress(WishRefused):  # by what is known so far: the plan asks for it again on what was observed
        state = ask.wish(state) if ask.wish is not None else state
    brought = ask.documents.desired if ask.documents else ask.carried
    desired = brought or (state.applied.desired if state.applied else None)
    return needs_of(desired, runs=state.runs, wishes=state.wishes) if desired is not None else ()
