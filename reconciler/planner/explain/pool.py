"""Explain a pool: its effective settings and where each was written. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.planner.draft import draft_of
from reconciler.planner.rules.pool_edits import EFFECTS, value_of
from reconciler.planner.setting_words import nodes_words, setting_words
from reconciler.planner.world import World
from reconciler.text.format import by_number
from schemas.explanation import PoolExplained, PoolSetting
from schemas.pool import Pool

NODES = ("nodes_min", "nodes_target", "nodes_max")


def explain_pool(world: World, pool: Pool) -> PoolExplained:
    """As it is configured, and what is in it now."""
    draft = draft_of(world)
    members = sorted((draft.living[id].name for id in draft.members.get(pool.name, ())), key=by_number)
    return PoolExplained(
        pool=pool.name, settings=settings_of(pool), closed=draft.closed.get(pool.name, ""), members=tuple(members)
    )


def settings_of(pool: Pool) -> tuple[PoolSetting, ...]:
    """Every setting once, in the order of the documentation."""
    return tuple(_settings(pool))


def _settings(pool: Pool) -> Iterator[PoolSetting]:
    usual, sources = Pool(name=pool.name), dict(pool.sources)
    nodes = nodes_words(pool)
    written = any(getattr(pool, field) != getattr(usual, field) for field in NODES)
    yield PoolSetting(key="nodes", value=nodes, source="pool" if written else "default", reaches="when idle")
    for field, effect in EFFECTS.items():
        if field in (*NODES, "name", "formerly"):
            continue
        value, name = value_of(pool, field), field.rpartition(".")[2]
        plain = "pool" if value != value_of(usual, field) else "default"
        yield PoolSetting(
            key=effect.key,
            value=setting_words(name, value),
            source=sources.get(effect.key, sources.get(name, plain)),
            reaches=effect.when,
        )
