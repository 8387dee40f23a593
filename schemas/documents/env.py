"""`env`: a map or a list; a bare name takes its value from where the job is started."""

from __future__ import annotations

from typing import Annotated, Any

from schemas.documents.scalars import text
from schemas.documents.shape import Schema, Shape, Wrong, kind_of

Pair = tuple[str, str | None]


def env(value: Any) -> tuple[Pair, ...]:
    """(name, value) in the order written; `None` is a bare name."""
    if isinstance(value, dict):
        read = _mapped(value)
    elif isinstance(value, list | tuple):
        read = _listed(value)
    else:
        raise Wrong(f"should be a mapping or a list of `NAME=value`, not {kind_of(value)}")
    pairs, found = read
    if found:
        raise Wrong("", found=found)
    return tuple(pairs)


Faults = list[tuple[tuple[str | int, ...], str]]


def _mapped(value: dict[str, Any]) -> tuple[list[Pair], Faults]:
    pairs: list[Pair] = []
    found: Faults = []
    for name, item in value.items():
        try:
            pairs.append((_name(str(name)), _value(str(name), item)))
        except Wrong as wrong:
            found.append(((name,), str(wrong)))
    return pairs, found


def _name(name: str) -> str:
    """Any text: what a shell cannot export makes the run unsupported, since older files are valid."""
    if not name or "=" in name:
        raise Wrong(f"`{name}` cannot name an environment variable")
    return name


def _value(name: str, item: Any) -> str | None:
    if item is None:
        return None
    if isinstance(item, dict) and set(item) == {"key"}:
        # The form that dstack 0.18 itself writes for a bare name.
        return None if item["key"] == name else f"${{{{ env.{text(item['key'])} }}}}"
    return text(item)


def _listed(value: list[Any] | tuple[Any, ...]) -> tuple[list[Pair], Faults]:
    pairs: dict[str, str | None] = {}
    found: Faults = []
    for index, item in enumerate(value):
        plain = isinstance(item, str | int | float) and not isinstance(item, bool)
        name, equals, rest = text(item).partition("=") if plain else ("", "", "")
        if not name:
            found.append(((index,), f"{kind_of(item)} is neither `NAME=value` nor `NAME`"))
        elif name in pairs:
            found.append(((index,), f"`{name}` is given twice"))
        else:
            pairs[name] = rest if equals else None
    return list(pairs.items()), found


_VALUE: Schema = {
    "anyOf": [
        {"type": ["string", "number", "boolean", "null"]},
        {
            "type": "object",
            "properties": {"key": {"type": ["string", "number", "boolean"]}},
            "required": ["key"],
            "additionalProperties": False,
        },
    ]
}
SCHEMA: Schema = {
    "anyOf": [
        {"type": "object", "propertyNames": {"pattern": "^[^=]+$"}, "additionalProperties": _VALUE},
        {"type": "array", "items": {"type": ["string", "number"], "pattern": r"^[^=]+(=[\s\S]*)?$"}},
    ]
}
Env = Annotated[tuple[Pair, ...], Shape(env, SCHEMA)]
