"""What a plan says of the configuration: which keys change, and what it permits to cost."""

from __future__ import annotations

from typing import Literal

from schemas.base import Price, Value

ChangeKind = Literal["project", "backend", "profile", "pool", "rule", "secret", "run"]


class Change(Value, frozen=True, kw_only=True):
    """One key of the configuration that differs from what was applied last."""

    kind: ChangeKind
    name: str
    """Of the pool, run, …; "" for a key of the project."""
    op: Literal["create", "change", "remove"]
    key: str = ""
    """As the YAML has it, such as `idle_duration`. "" where the whole entry is new or removed."""
    old: str = ""
    """In words; "" where nothing was said. Secret values and values of variables are never in it."""
    new: str = ""
    note: str = ""
    """What follows: `new instances only`, `runs again`."""


class PoolCost(Value, frozen=True, kw_only=True):
    """What a pool costs an hour, in $. `before` and `after` as in the plan's sums."""

    pool: str
    before: Price = Price(0)
    after: Price = Price(0)
    worst: Price | None = None
    """With every maximum reached by the dearest instance that it permits; None: nothing limits it."""
    at_most: bool = False
    """`after` holds prices that may turn out lower."""
    unpriced: bool = False
    """Something that it has, or may have, has no known price and is in none of the sums."""


class PlanCost(Value, frozen=True, kw_only=True):
    """What all pools cost an hour. `worst` is bounded by the project's budget, too."""

    pools: tuple[PoolCost, ...] = ()
    worst: Price | None = None
    unlimited: tuple[str, ...] = ()
    """Names of the pools that nothing limits."""
