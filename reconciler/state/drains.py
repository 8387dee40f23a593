"""Which pools and instances are draining, since when, and what they do not start. Pure.

In force it keeps off everything; still to come it keeps off what might run on when it begins.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from reconciler.text.dates import moment
from schemas.base import Seconds
from schemas.pool import Pool
from schemas.state import Override

INSTANCE = "instance "
# What drains of ours write on an instance begins with one of these.
POOL_DRAINED, INSTANCE_DRAINED = "pool drained", "instance drained"


def begun(override: Override, *, now: int) -> bool:
    return override.begins is None or override.begins <= now


def to_come(overrides: Iterable[Override], *, now: int) -> dict[str, Override]:
    """pool -> the drain that begins next there."""
    found: dict[str, Override] = {}
    for each in overrides:
        if each.kind == "drain" and not each.subject.startswith(INSTANCE) and not begun(each, now=now):
            known = found.setdefault(each.subject, each)
            found[each.subject] = min(known, each, key=_begins)
    return found


def of_instances(overrides: Iterable[Override], *, now: int, lapses: bool = True) -> dict[str, Override]:
    """Instance id -> the drain of it alone: the one in force, else the one that begins next.

    Without `lapses` none is over because of the time.
    """
    found: dict[str, Override] = {}
    for each in overrides:
        over = lapses and each.until is not None and each.until <= now
        if each.kind == "drain" and each.subject.startswith(INSTANCE) and not over:
            id = each.subject.removeprefix(INSTANCE)
            found[id] = min(found.get(id, each), each, key=_begins)
    return found


def _begins(override: Override) -> int:
    return override.at if override.begins is None else override.begins


def crosses(override: Override, *, now: int, lasts: Seconds | None) -> bool:
    """What starts now, and may last that long (`None`: for ever), might still run when it begins."""
    return override.begins is not None and (lasts is None or now + lasts > override.begins)


def stop_at(override: Override) -> int | None:
    """When what still runs is stopped; `None` is never."""
    return None if override.stop_after is None else _begins(override) + override.stop_after


def drain_words(override: Override, *, what: Literal["pool", "instance"]) -> str:
    """Why an instance leaves: stable while the drain lasts."""
    return f"{POOL_DRAINED if what == 'pool' else INSTANCE_DRAINED} by {override.by}{_reason(override)}"


def told(override: Override, *, whole: bool = False) -> str:
    """`drained by ann@lab from 2026-11-03 21:00Z until 2026-11-04 05:00Z (disk swap)`; `whole`: also what it stops."""
    word = "paused" if override.kind == "pause" else "drained"
    begins = "" if override.begins is None else f" from {moment(override.begins)}"
    ends = "until it is resumed" if override.until is None else f"until {moment(override.until)}"
    stop = stop_at(override) if whole else None
    stops = "" if stop is None else f", what still runs at {moment(stop)} is stopped"
    return f"{word} by {override.by}{begins}{' ' if begins else ', '}{ends}{stops}{_reason(override)}"


def _reason(override: Override) -> str:
    return f" ({override.reason})" if override.reason else ""


def closed_pools(pools: Iterable[Pool], overrides: Iterable[Override], *, now: int) -> dict[str, str]:
    """Pool -> why it creates nothing new: paused in the documents, or paused or drained by a person, the last word."""
    found = {pool.name: "paused in the documents" for pool in pools if pool.paused}
    for each in sorted(overrides, key=lambda one: (one.at, one.kind)):
        over = each.until is not None and each.until <= now
        of_pool = each.kind in ("pause", "drain") and not each.subject.startswith(INSTANCE)
        if of_pool and not over and begun(each, now=now):
            found[each.subject.removeprefix("pool ")] = told(each)
    return found
