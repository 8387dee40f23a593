"""Keep of a fresh plan only what was also approved. Pure.

The `y` at the prompt and `apply FILE` are one rule: a saved plan commands nothing, it
approves. So none goes stale because somebody else wrote the state, and none can do more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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


def approve(fresh: Plan, approved: Plan, *, starts: bool = False) -> Plan:
    """The actions of `fresh` that `approved` has too: the same subject, or machines as cheap and as few.

    Machines go first to the runs that the approved plan launches them for. Bookkeeping and new records always pass.
    So does work on machines that are there (assign); with `starts` only that of runs which the approved plan starts,
    or which wait in it for an instance. What is launched for another run is then left out, too.
    """
    subjects = {subject for action in approved.actions for subject in _subjects(action)}
    runs = started(approved)
    allowed: dict[Key, _Allowance] = {}
    for action in approved.actions:
        if isinstance(action, Launch):
            allowed.setdefault(_key(action), _Allowance()).add(action)
    trimmed = _trimmed(fresh, runs=runs, allowed=allowed, starts=starts)
    kept = tuple(_approved(fresh, subjects=subjects, launches=trimmed, runs=runs if starts else None))
    actions = _with_reservations(fresh, kept)
    dropped = _cost(fresh.actions) - _cost(actions)
    ends = {action.instance for action in actions if isinstance(action, Terminate)}
    # The price of an end is known only as part of the whole: where one was dropped, so is the saving.
    whole = all(not isinstance(action, Terminate) or action.instance in ends for action in fresh.actions)
    after = fresh.hourly_after - dropped if whole else max(fresh.hourly_after, fresh.hourly_before) - dropped
    return replace(fresh, actions=actions, hourly_after=after)


def started(plan: Plan) -> frozenset[str]:
    """Names of the runs that it starts, moves, or that wait for an instance: of all that it lists as pending, none."""
    named = (action.name for action in plan.actions if isinstance(action, Assign | Stop))
    made_for = (name for action in plan.actions if isinstance(action, Launch) for name in runs_of(action))
    return frozenset((*named, *made_for, *(wait.run for wait in plan.waits)))


def runs_of(launch: Launch) -> list[str]:
    """Names of the runs of one node that are to use its machines."""
    return [name for runs in launch.made_for for name in runs[1::2]]


def _approved(
    fresh: Plan, *, subjects: set[str], launches: dict[str, Launch], runs: frozenset[str] | None
) -> Iterator[Action]:
    for action in fresh.actions:
        if isinstance(action, Launch):
            if action.launch in launches:
                yield launches[action.launch]
        elif isinstance(action, Assign):
            if runs is None or action.name in runs:
                yield action
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
            # To give up a request buys and ends nothing.
            return action.quiet or action.enrol is not None or set(action.changes) == {"given_up"}
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


def _trimmed(fresh: Plan, *, runs: frozenset[str], allowed: dict[Key, _Allowance], starts: bool) -> dict[str, Launch]:
    """Launches with the machines that are allowed, by id: those of approved runs first, then as many as are left."""
    chosen: dict[str, set[int]] = {}
    launches = [one for one in fresh.actions if isinstance(one, Launch)]
    for approved in (True, False):
        for launch in launches:
            mine = [at for at in range(len(launch.ids)) if _is_for(launch, at, runs=runs) is approved]
            if not approved and starts and launch.made_for:
                continue  # its run does not start: nobody would use it
            taken = _allowed(launch, mine, allowance=allowed.get(_key(launch)))
            chosen.setdefault(launch.launch, set()).update(taken)
    return {one.launch: cut(one, sorted(chosen[one.launch])) for one in launches if chosen.get(one.launch)}


def _is_for(launch: Launch, at: int, *, runs: frozenset[str]) -> bool:
    """Whether that machine is for an approved run; those that are for none are for anybody."""
    return not launch.made_for or not runs.isdisjoint(launch.made_for[at][1::2])


def _allowed(launch: Launch, wanted: list[int], *, allowance: _Allowance | None) -> list[int]:
    """As many as are left of the allowance; a gang whole or not at all."""
    if allowance is None or not allowance.covers(launch.offer.price):
        return []
    taken = wanted[: allowance.count]
    if launch.gang and len(taken) < len(launch.ids):
        return []
    allowance.count -= len(taken)
    return taken


def cut(launch: Launch, places: Sequence[int]) -> Launch:
    """The launch with the machines at these places alone."""
    if len(places) == len(launch.ids):
        return launch
    return replace(
        launch,
        ids=tuple(launch.ids[at] for at in places),
        names=tuple(launch.names[at] for at in places),
        made_for=tuple(launch.made_for[at] for at in places) if launch.made_for else (),
    )


def _cost(actions: tuple[Action, ...]) -> Price:
    launches = (action for action in actions if isinstance(action, Launch))
    return sum(((launch.offer.price or Price(0)) * len(launch.ids) for launch in launches), Price(0))
