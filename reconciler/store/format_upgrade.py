"""Read states of older formats; write them in today's format only when a person asks.

Until then it can be looked at and planned on, and nothing is written. Older programs refuse what is written after.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from msgspec.structs import replace

from reconciler.state.errors import StateMoved, StateRefused
from reconciler.store.base import Store
from schemas.access import written_way
from schemas.state import VERSION

Raw = dict[str, Any]
TRIES = 30


def _second(raw: Raw) -> Raw:
    """`untold`, `priced_at` and `ended_at` came: without them, nothing is untold and no price has changed."""
    return raw


def _third(raw: Raw) -> Raw:
    """A way that takes a backend's program has its name beside the mode; fields with defaults were added.

    Open launches keep the request that they were rendered with.
    """
    renamed: Raw = _with_programs(raw)
    return renamed


def _with_programs(value: Any) -> Any:
    """`value` with every `way` and `connect` in it as today's."""
    if isinstance(value, list):
        return [_with_programs(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        key: written_way(each) if key in ("way", "connect") and isinstance(each, dict) else _with_programs(each)
        for key, each in value.items()
    }


STEPS: Mapping[int, Callable[[Raw], Raw]] = {1: _second, 2: _third}
"""format -> what makes it the next one; a step may change `raw`, and never refuses."""


def upgraded(raw: Raw, *, version: int, steps: Mapping[int, Callable[[Raw], Raw]] = STEPS) -> Raw:
    """`raw`, of format `version`, as today's; its `version` says still what it was. `KeyError` without a way."""
    for step in range(version, VERSION):
        raw = steps[step](raw)
    return {**raw, "version": version}


def older(version: int) -> str:
    """Why such a state is not written; "" for today's."""
    if version == VERSION:
        return ""
    return (
        f"the state is of format {version}, and this dstack writes format {VERSION}: "
        "`dstack apply --upgrade-state` upgrades it and keeps a copy; older versions of dstack cannot read it then"
    )


def upgrade(store: Store) -> str:
    """Write the state in today's format. Where the old bytes are kept; "" where there is nothing to upgrade."""
    for _ in range(TRIES):
        state, token = store.read()
        if state is None or state.version == VERSION:
            return ""
        kept = store.keep_copy(f"format-{state.version}-generation-{state.generation}")
        try:
            store.write(replace(state, version=VERSION, generation=state.generation + 1), token)
        except StateMoved:
            continue
        return kept
    raise StateRefused(f"{store.address}: somebody else wrote it {TRIES} times meanwhile: try again")
