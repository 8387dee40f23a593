"""What holds for every state: checked after each read and before each write, whatever the store. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from schemas.base import Price, is_price
from schemas.state import State

GENERATIONS = 10**14
"""No state is written that often. Hosts read up to 15 digits."""
IDENTIFIED = ("instances", "runs", "attempts", "intents", "wishes", "untold")


def damage(state: State) -> str:
    """Which invariant the state breaks; "" for none."""
    if not 0 <= state.generation < GENERATIONS:
        return f"generation {str(state.generation)[:30]} is not between 0 and {GENERATIONS - 1}"
    for name in IDENTIFIED:
        records = getattr(state, name)
        if len({record.id for record in records}) != len(records):
            twice, _ = Counter(record.id for record in records).most_common(1)[0]
            return f"two records of {name} have the same id ({twice})"
    return "" if all(map(is_price, _prices(state))) else "a price that is none"


def _prices(state: State) -> Iterator[Price | None]:
    yield from (one.price for one in state.instances)
    for run in state.runs:
        yield from (run.confirmed_price, run.spec.where.max_price)
    yield from (wish.confirmed_price for wish in state.wishes)
    yield from (intent.request.max_price for intent in state.intents)
    if state.applied is not None:
        desired = state.applied.desired
        yield from (desired.budget, desired.confirm_above)
        for pool in desired.pools:
            yield from (pool.max_hourly, pool.where.max_price)
        yield from (spec.where.max_price for spec in desired.runs)
