"""Something of ours at a place that is no instance, or an instance that nobody owns: what `dstack gc` lists."""

from __future__ import annotations

from typing import Literal

from schemas.base import Price, Value

Kind = Literal[
    "instance", "spot-request", "address", "volume", "interface", "security-group", "placement-group", "key-pair"
]
ORDER: tuple[Kind, ...] = (
    "instance",
    "spot-request",
    "address",
    "volume",
    "interface",
    "security-group",
    "placement-group",
    "key-pair",
)
"""Removed in this order: what is used by another goes after it."""


class Leftover(Value, frozen=True, kw_only=True):
    """`id` is its place's, `name` for people. `hourly` is about what it costs, 0 where nothing, `None` unknown.

    `launch` and `pool` are our tags, `lineage` that of the state that made it ("": not said). `in_use` says what
    uses it: then it is nobody's leftover. `created_at` where its place tells.
    """

    kind: Kind
    id: str
    place: str
    name: str = ""
    pool: str = ""
    launch: str = ""
    lineage: str = ""
    in_use: str = ""
    created_at: int | None = None
    hourly: Price | None = Price(0)
