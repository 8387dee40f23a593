"""A pool as applied: every value effective, with where it came from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from schemas.access import Way
from schemas.base import Mib, Price, Seconds, Value
from schemas.host import Host
from schemas.profile import Retry
from schemas.resources import Need, Where

HOUR = 3600
DAY = 24 * HOUR
GRACE: Seconds = 120
MADE_IDLE: Seconds = 300
"""Seconds that an instance may be idle where nobody says otherwise."""
ADDED_IDLE: Seconds = 3 * DAY
"""Seconds that an instance of `pool add` may be idle where nobody says otherwise."""


class Pool(Value, frozen=True, kw_only=True):
    """`nodes_target` is how many to hold now (`nodes: 2` is min = target = max = 2).

    `unsupported` lists what is valid in the YAML and does not work yet; a pool with any is
    shown as unmet and nothing is launched or placed in it.
    `default_image` is for its runs that name none; `isolation: container` refuses those that have none at all.
    `disk_floor`: below so much free disk, images that we pulled and nothing uses are removed, and no work is given.
    `sources` maps a field to where its value was written: `pool`, `profile NAME`, `default`.
    `connect` is how its machines in clouds are reached, `None` as their backend has it.
    A pool with `hosts` has one instance for each of them, and no others.
    `unreachable_grace` is for how long a host's silence is a hiccup: its runs are waited for without more ado.
    `idle_duration` is `None` for off. `added_idle` is what `pool add` gives (72h by default).
    """

    name: str
    default: bool = False
    formerly: tuple[str, ...] = ()
    nodes_min: int = 0
    nodes_target: int | None = None
    nodes_max: int | None = None
    need: Need = Need()
    where: Where = Where()
    idle_duration: Seconds | None = 300
    retry: Retry = Retry()
    placement: Literal["any", "cluster"] = "any"
    blocks: int = 1
    tags: tuple[tuple[str, str], ...] = ()
    connect: Way | None = None
    max_lifetime: Seconds | None = None
    hold: Seconds = DAY
    unattended: Seconds | None = 3 * DAY
    unreachable_grace: Seconds = GRACE
    max_hourly: Price | None = None
    paused: bool = False
    prevent_destroy: bool = False
    allow_foreign: bool = False
    default_image: str = ""
    isolation: Literal["process", "container"] = "process"
    disk_floor: Mib = 5 * 1024
    self_termination: Literal["required", "preferred"] = "preferred"
    """`required`: only machines that end by themselves when no apply comes: by a lease, or by a cap where
    `max_lifetime` is set."""
    hosts: tuple[Host, ...] = ()
    unsupported: tuple[str, ...] = ()
    sources: tuple[tuple[str, str], ...] = ()

    @property
    def floor(self) -> int:
        """The number of instances that the pool keeps. Idle ones above it terminate by their idle duration."""
        return max(self.nodes_min, self.nodes_target or 0)


def pool_named(name: str, pools: Iterable[Pool]) -> Pool | None:
    """The pool of that name, else the one that was renamed from it."""
    known = tuple(pools)
    now = next((pool for pool in known if pool.name == name), None)
    return now or next((pool for pool in known if name in pool.formerly), None)


def renamed_words(name: str, pool: Pool) -> str:
    """What is said of a name that is not in use any more; "" of the present one."""
    return "" if name == pool.name else f"pool `{name}` is called `{pool.name}` now"
