"""Something of ours at a place that is no instance, or an instance that nobody owns: what `dstack gc` lists."""

from __future__ import annotations

from collections.abc import Mapping
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

BILLS: Mapping[Kind, bool] = {
    "instance": True,
    "spot-request": False,
    "address": True,
    "volume": True,
    "interface": True,
    "security-group": False,
    "placement-group": False,
    "key-pair": False,
}
"""Whether a kind costs money at some vendor while nothing uses it."""


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

    @property
    def bills(self) -> bool:
        """Whether it costs money here, as far as its place knows: an unknown price counts."""
        return BILLS[self.kind] and self.hourly != 0
