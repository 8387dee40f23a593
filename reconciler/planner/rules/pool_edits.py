"""Let edited values of a pool reach its living instances, or say which of them keep what they have. Pure.

`EFFECTS` says of every value of a pool when an edit takes effect; docs/documents.md has the same table.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from msgspec.structs import replace

from reconciler.planner.draft import Draft
from reconciler.planner.placement.fit import refusal, shortage
from reconciler.text.durations import words
from reconciler.text.format import few
from schemas.base import Seconds
from schemas.instance import Instance
from schemas.pool import ADDED_IDLE, MADE_IDLE, Pool
from schemas.resources import Where

REBUILT = "the pool, after a rebuild"

When = Literal["at once", "when idle", "next launch"]


class Effect(NamedTuple):
    """When an edit of a value takes effect; `keeps` is what living instances keep until they end."""

    key: str
    """As it is written in the YAML."""
    when: When
    keeps: str = ""


EFFECTS: dict[str, Effect] = {
    "name": Effect("name", "at once"),
    "default": Effect("default", "at once"),
    "formerly": Effect("formerly", "at once"),
    "nodes_min": Effect("nodes", "when idle"),
    "nodes_target": Effect("nodes", "when idle"),
    "nodes_max": Effect("nodes", "when idle"),
    "need": Effect("resources", "next launch", "resources"),
    "where.backends": Effect("backends", "next launch", "backend"),
    "where.regions": Effect("regions", "next launch", "region"),
    "where.zones": Effect("availability_zones", "next launch", "zone"),
    "where.instance_types": Effect("instance_types", "next launch", "type"),
    "where.spot": Effect("spot_policy", "next launch", "purchase type"),
    "where.max_price": Effect("max_price", "next launch", "price"),
    "where.reservation": Effect("reservation", "next launch", "reservation"),
    "idle_duration": Effect("idle_duration", "at once"),
    "retry": Effect("retry", "at once"),
    "placement": Effect("placement", "next launch", "placement"),
    "blocks": Effect("blocks", "next launch", "blocks"),
    "tags": Effect("tags", "next launch", "tags"),
    "connect": Effect("connect", "at once"),
    "max_lifetime": Effect("max_lifetime", "next launch", "max_lifetime"),
    "hold": Effect("hold", "next launch", "hold"),
    "unattended": Effect("unattended", "next launch", "unattended"),
    "unreachable_grace": Effect("unreachable_grace", "at once"),
    "max_hourly": Effect("budget", "at once"),
    "paused": Effect("paused", "at once"),
    "prevent_destroy": Effect("prevent_destroy", "at once"),
    "allow_foreign": Effect("allow_foreign", "at once"),
    "default_image": Effect("default_image", "next launch", "image"),
    "isolation": Effect("isolation", "at once"),
    "disk_floor": Effect("disk_floor", "at once"),
    "self_termination": Effect("self_termination", "next launch", "self-termination"),
    "hosts": Effect("ssh", "when idle"),
}
DERIVED = ("unsupported", "sources")
"""Values of a pool that nobody writes."""
_JUDGED = ("where.backends", "where.regions", "where.zones", "where.instance_types", "where.spot", "where.max_price")
_STORED = ("blocks", "max_lifetime", "hold", "unattended")


def reach_living(draft: Draft) -> None:
    """Give living instances the edited idle duration of their pool, and note what they keep of other edits."""
    if draft.world.before is None or not draft.rules_documents or draft.may.destroy_all:
        return
    before = {pool.name: pool for pool in draft.world.before.pools}
    for pool in draft.pools.values():
        was = next((before[name] for name in (pool.name, *pool.formerly) if name in before), None)
        if was is None or not draft.covers(id="", pool=pool.name):
            continue
        members = [draft.living[id] for id in draft.members[pool.name]]
        staying = [one for one in members if one.id not in draft.leaving and not one.orphan and one.host is None]
        _idle(draft, was, pool, staying)
        draft.notes.extend(_kept(was, pool, staying))


# ---------------------------------------------------------------- the idle duration


def _idle(draft: Draft, was: Pool, pool: Pool, members: list[Instance]) -> None:
    if (was.idle_duration, _source(was)) == (pool.idle_duration, _source(pool)):
        return
    of_pool = {
        "default",
        "pool add",
        REBUILT,
        "pool",
        f"pool {was.name}",
        f"pool {pool.name}",
        _source(was),
        _source(pool),
    }
    reached: dict[str, list[str]] = {}
    for one in members:
        duration, source = idle_of(pool, one)
        if one.idle_source not in of_pool or one.idle_duration == duration:
            continue
        why = f"idle_duration {_shown(one.idle_duration)} → {_shown(duration)}"
        reached.setdefault(why, []).append(one.name)
        draft.update_instance(one, why=why, quiet=True, idle_duration=duration, idle_source=source)
    draft.notes.extend(f"pool {pool.name}: {why}: {few(names)}, from now on" for why, names in reached.items())


def idle_of(pool: Pool, one: Instance) -> tuple[Seconds | None, str]:
    """For how long the instance may be idle as its pool has it now, and which setting says so."""
    source = _source(pool)
    if source == "default":
        return (ADDED_IDLE, "pool add") if one.origin == "added" else (MADE_IDLE, "default")
    return pool.idle_duration, f"pool {pool.name}" if source == "pool" and one.origin == "run" else source


def _source(pool: Pool) -> str:
    return dict(pool.sources).get("idle_duration", "default")


def _shown(duration: Seconds | None) -> str:
    return "off" if duration is None else words(duration)


# ---------------------------------------------------------------- what they keep


def _kept(was: Pool, pool: Pool, members: list[Instance]) -> Iterator[str]:
    for field, effect in EFFECTS.items():
        if effect.when != "next launch" or value_of(was, field) == value_of(pool, field):
            continue
        names = [one.name for one in members if _differs(one, pool, field)]
        if names:
            keep, whose = ("keeps", "its") if len(names) == 1 else ("keep", "their")
            end = "it ends" if len(names) == 1 else "they end"
            yield f"pool {pool.name}: {effect.key} changed: {few(names)} {keep} {whose} {effect.keeps} until {end}"


def value_of(pool: Pool, field: str) -> Any:
    """Of the pool, or of its `where`."""
    owner, _, name = field.rpartition(".")
    return getattr(getattr(pool, owner) if owner else pool, name)


def _differs(one: Instance, pool: Pool, field: str) -> bool:
    """The instance would not be made like that now, as far as the state knows."""
    if field in _STORED:
        return bool(getattr(one, field) != getattr(pool, field))
    if field in _JUDGED:
        alone = replace(Where(spot="auto"), **{field.removeprefix("where."): value_of(pool, field)})
        return bool(refusal(alone, one))
    if field == "need":
        return bool(shortage(pool.need, one.resources, cloud=False))
    return field != "default_image" or one.resources.runtime == "image"
