"""An entry of the ledger: something that happened, and what it cost, written once and never changed."""

from __future__ import annotations

from typing import Literal

from schemas.base import Price, Seconds, Value

EntryKind = Literal[
    "applied", "launched", "seen", "ready", "ended", "lost", "submitted", "started", "finished", "billed", "used",
    "drained", "paused", "resumed", "draining", "kept", "quarantined", "trusted", "returned", "disarmed", "armed",
]  # fmt: skip


class Entry(Value, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """`id` is the same whenever the same thing is told again: a reader drops the second telling.

    `billed` is an interval of an instance: the `seconds` up to `at` at `price` $/h, of which the first `boot`
    passed before its host answered; told when it ends or its price changes. `used` is a job's interval on
    `blocks` of an instance, told when the job has ended: the `seconds` up to `at`, for `run` of `user` with `tags`.
    What no job used was idle. A person `drained`, `paused` or `resumed` a pool or an instance; an instance is
    `draining` for whatever reason, or `kept` after all; it was `quarantined`, or `trusted` again; `returned` is a job
    that was given up, found on its host when that answered again, and ended there. A machine was found `disarmed`: its
    dead-man timer did not run as it should; `armed` is when it does again.
    `subject` is `instance ID`, `run ID`, `pool NAME` or `project`; `name` is the instance's, the run's or the pool's,
    `instance` an instance's id.
    A reader passes over fields that it does not know: the ledger outlives versions of the program.
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
    instance: str = ""
    instance_type: str = ""
    spot: bool = False
    price: Price | None = None
    seconds: Seconds = 0
    boot: Seconds = 0
    blocks: int = 1
    tags: tuple[tuple[str, str], ...] = ()
    by: str = ""
    why: str = ""
