"""What one pass is asked to do, as a value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from reconciler.engine.ports import Configuration
from schemas.desired import Desired
from schemas.plan import Permissions, Plan
from schemas.state import Revision, State

Confirm = Callable[[Plan, State], Plan | None]


def _never() -> bool:
    return False


@dataclass(frozen=True, kw_only=True)
class TickAsk:
    """What one tick is asked for.

    `documents` (with their `revision`) become the applied ones; without them the applied
    ones rule. `git_failed` is why git could not tell the revision; "" where it could, or
    where there is no repository. `wish` changes the memory first (it may raise; it is made anew on whatever
    the state has become, until it is written once). `carried` is the caller's checkout:
    its project and its backends are used where there is no state or nothing applied yet.
    `confirm` gets the plan and the state it is made on (before the wish or the documents
    are written) and gives what is approved: the plan itself, a part of it, or `None` to
    decline. It is called also for a plan without actions. `prompted`: it asks a person.
    `act` false writes and does nothing: `plan --refresh`. `deadline` is in seconds from now.
    `stop` true: no effect is begun any more. `tell` hears each written state.
    `hasty`: only the places of the scope are asked, and no silent server or host is waited for, nor an effect on it.
    `trust_clock`: a person says that our clock is right, where only the last apply contradicts it.
    `retry_hosts`: failing hosts are looked at although that is put off; `None`: where a person sits at a terminal.
    """

    documents: Configuration | None = None
    revision: Revision | None = None
    git_failed: str = ""
    config_force: bool = False
    wish: Callable[[State], State] | None = None
    carried: Desired | None = None
    permissions: Permissions = field(default_factory=Permissions)
    confirm: Confirm | None = None
    prompted: bool = False
    act: bool = True
    hasty: bool = False
    trust_clock: bool = False
    retry_hosts: bool | None = None
    deadline: float = 600.0
    stop: Callable[[], bool] = _never
    tell: Callable[[State], object] | None = None
