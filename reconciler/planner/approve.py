"""Keep of a fresh plan only what was also approved. Pure.

The `y` at the prompt and `apply FILE` are one rule: a saved plan commands nothing, it
approves. So none goes stale because somebody else wrote the state, and none can do more.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_never

from msgspec.structs import replace

from schemas.base import Price
from schemas.plan import Action, Assign, Attach, Detach, Launch, Plan, Resume, Stop, Terminate, Update

Key = tuple[str, str, str, str, bool]


class _Allowance:
    """Approved launches of one pool, place and type: how many, and at what price at most."""

    def __init__(self) -> None:
        self.count = 0
        self.price: Price | None = Price(0)

    def add(self, launch: Launch) -> None:
        self.count += len(launch.ids)
        price = launch.offer.price
        self.price = None if price is None or self.price is None else max(self.price, price)

    def covers(self, price: Price | None) -> bool:
        """An approved launch without a known price covers any; a known one no unknown."""
        return self.price is None or (price is not None and price <= self.price)


def approve(fresh: Plan, approved: Plan) -> Plan:
    """The actions of `fresh` that `approved` has too: the same subject, or machines as cheap and as few.

    Work on machines that are there (assign), bookkeeping and new records always pass.
    """
    subjects = {subject for action in approved.actions for subject in _subjects(action)}
    allowed: dict[Key, _Allowance] = {}
    for action in approved.actions:
        if isinstance(action, Launch):
            allowed.setdefault(_key(action), _Allowance()).add(action)
    actions = _with_reservations(fresh, tuple(_approved(fresh, subjects=subjects, allowed=allowed)))
    dropped = _cost(fresh.actions) - _cost(actions)
    ends = {action.instance for action in actions if isinstance(action, Terminate)}
    # The price of an end is known only as part of the whole: where one was dropped, so is the saving.
    whole = all(not isinstance(action, Terminate) or action.instance in ends for action in fresh.actions)
    after = fresh.hourly_after - dropped if whole else max(fresh.hourly_after, fresh.hourly_before) - dropped
    return replace(fresh, actions=actions, hourly_after=after)


def _approved(fresh: Plan, *, subjects: set[str], allowed: dict[Key, _Allowance]) -> Iterator[Action]:
    for action in fresh.actions:
        if isinstance(action, Launch):
            trimmed = _trim(action, allowed.get(_key(action)))
            if trimmed is not None:
                yield trimmed
        elif _always(action) or subjects.issuperset(_subjects(action)) or _milder(action, subjects):
            yield action


def _milder(action: Action, subjects: set[str]) -> bool:
    """An approved end covers the drain that comes first where the instance has become busy."""
    return isinstance(action, Update) and "draining" in action.changes and f"end {_id(action)}" in subjects


def _id(update: Update) -> str:
    return update.subject.partition(" ")[2]


def _with_reservations(fresh: Plan, actions: tuple[Action, ...]) -> tuple[Action, ...]:
    """Nothing is kept for a gang whose own launch was not approved."""
    kept = {action.launch for action in actions if isinstance(action, Launch)}
    launches = [action for action in fresh.actions if isinstance(action, Launch)]
    alone = {action.reserved_for for action in launches if action.gang and action.launch not in kept}
    return tuple(
        action
        for action in actions
        if not (isinstance(action, Update) and action.changes.get("reserved_for") in alone and alone)
    )


def _always(action: Action) -> bool:
    match action:
        case Assign() | Resume():
            return True
        case Update():
            return action.quiet or action.enrol is not None
        case Stop():
            return action.follows
        case Launch() | Attach() | Terminate() | Detach():
            return False
        case _:
            assert_never(action)


def _subjects(action: Action) -> tuple[str, ...]:
    match action:
        case Stop():
            return (f"stop {action.attempt}",)
        case Terminate() | Detach():
            return (f"end {action.instance}",)
        case Attach():
            return (f"attach {action.pool} {action.instance}",)
        case Update():
            fields = tuple(f"{action.subject}.{field}" for field in action.changes)
            # Whoever approved that an instance drains approved its end.
            return (*fields, f"end {_id(action)}") if action.changes.get("draining") else fields
        case Launch() | Resume() | Assign():
            return ()
        case _:
            assert_never(action)


def _key(launch: Launch) -> Key:
    offer = launch.offer
    return (launch.pool, offer.backend, offer.region, offer.instance_type, offer.spot)


def _trim(launch: Launch, allowance: _Allowance | None) -> Launch | None:
    """As many as are left of the allowance; a gang whole or not at all."""
    if allowance is None or not allowance.covers(launch.offer.price):
        return None
    count = min(len(launch.ids), allowance.count)
    if count == 0 or (launch.gang and count < len(launch.ids)):
        return None
    allowance.count -= count
    return replace(launch, ids=launch.ids[:count], names=launch.names[:count])


def _cost(actions: tuple[Action, ...]) -> Price:
    launches = (action for action in actions if isinstance(action, Launch))
    return sum(((launch.offer.price or Price(0)) * len(launch.ids) for launch in launches), Price(0))
