"""Edit a YAML flow list (`pools: [{name: a}, {name: b}]`) as text. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml


def append_flow(text: str, name: str) -> str | None:
    """With `{name: NAME}` at the end of `pools`; None where that is no flow list."""
    pools = _flow_pools(text)
    if pools is None:
        return None
    at = pools.value[-1].end_mark.index if pools.value else pools.start_mark.index + 1
    return f"{text[:at]}{', ' if pools.value else ''}{{name: {name}}}{text[at:]}"


def delete_flow(text: str, index: int) -> str | None:
    """Without the item at `index` and the comma that is then too many."""
    pools = _flow_pools(text)
    if pools is None:
        return None
    return without_part(text, pools.value, index)


def mark_flow(text: str, wanted: Sequence[bool]) -> str | None:
    """`default: true` in the items that are wanted, and in no others; from the last to the first."""
    pools = _flow_pools(text)
    if pools is None or not all(isinstance(item, yaml.MappingNode) for item in pools.value):
        return None
    for item, default in reversed(list(zip(pools.value, wanted, strict=True))):
        text = _mark(text, item, default=default)
    return text


def _flow_pools(text: str) -> Any:
    """The list under `pools` with its marks, or None unless it is all in flow style."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode):
        return None
    for key, value in root.value:
        if key.value == "pools" and isinstance(value, yaml.SequenceNode) and value.flow_style:
            return value
    return None


def _mark(text: str, item: Any, *, default: bool) -> str:
    keys = [key.value for key, _ in item.value]
    if "default" not in keys:
        if not default:
            return text
        at = item.value[-1][1].end_mark.index
        return f"{text[:at]}, default: true{text[at:]}"
    index = keys.index("default")
    if default:
        value = item.value[index][1]
        return f"{text[: value.start_mark.index]}true{text[value.end_mark.index :]}"
    return without_part(text, [_Pair(key, value) for key, value in item.value], index)


class _Pair:
    """A key and its value as one stretch of text."""

    def __init__(self, key: Any, value: Any) -> None:
        self.start_mark, self.end_mark = key.start_mark, value.end_mark


def without_part(text: str, parts: Sequence[Any], index: int) -> str:
    """The first goes with the comma behind it, any other with the one before it."""
    if index:
        start, end = parts[index - 1].end_mark.index, parts[index].end_mark.index
    elif len(parts) > 1:
        start, end = parts[0].start_mark.index, parts[1].start_mark.index
    else:
        start, end = parts[0].start_mark.index, parts[0].end_mark.index
    return text[:start] + text[end:]
