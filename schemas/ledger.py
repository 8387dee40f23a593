"""An entry of the ledger: something that happened, and what it cost, written once and never changed."""

from __future__ import annotations

from typing import Literal

from schemas.base import Price, Seconds, Value

EntryKind = Literal[
    "applied", "launched", "seen", "ready", "ended", "lost", "submitted", "started", "finished", "billed",
]  # fmt: skip


class Entry(Value, frozen=True, kw_only=True):
    """`id` is the same whenever the same thing is told again: a reader drops the second telling.

    `billed` is an interval of an instance: `seconds` up to `at` at `price` $/h, of which
    `idle` ran nothing. `subject` is `instance ID`, `run ID` or `project`.
    """

    id: str
    at: int
    kind: EntryKind
    subject: str
    name: str = ""
    pool: str = ""
    run: str = ""
    user: str = ""
    place: str = ""
    instance_type: str = ""
    spot: bool = False
    price: Price | None = None
    seconds: Seconds = 0
    idle: Seconds = 0
    by: str = ""
    why: str = ""
