"""Edit the rules under `autoscale` as text. Comments and everything else stay as they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from reconciler.config.edit.block_style import block, end_of, newline_of
from reconciler.config.edit.flow_style import without_part
from reconciler.config.edit.pools import Edit, edited, round_trip
from schemas.desired import Cap

NEW_FILE = "autoscale.yml"
HEAD = "# Caps on instances by type, over all pools; `dstack autoscale` edits this file.\n"


def set_rule(folder: Path, cap: Cap) -> Edit | None:
    """The rule with that maximum, behind the others where it is new. `None` where nothing changes."""
    found = _document(folder)
    if found is None:
        return _new(folder, f"  rules:\n    - {_written(cap)}\n")
    path, text, data = found
    same = _same(_rules(data), cap)
    if not same:
        return _changed(path, text, _appended(text, data, cap), lambda fresh: _append(fresh, cap))
    for index in reversed(same[1:]):  # said twice: the first is the one that stays
        text = _without_rule(path, text, index).after
    return _whole(path, found[1], _with_maximum(path, text, same[0], cap))


def remove_rule(folder: Path, cap: Cap) -> Edit | None:
    """Without that rule; a list without any allows no spot instance."""
    found = _document(folder)
    return None if found is None else _without_rules(*found, gone=lambda rule: _key(rule) == _key_of(cap))


def clear_rules(folder: Path) -> Edit | None:
    """An empty list in place of the rules."""
    found = _document(folder)
    return None if found is None else _without_rules(*found, gone=lambda rule: True)


def set_enabled(folder: Path, *, enabled: bool) -> Edit | None:
    """`enabled: true` or `false`; the rules stay."""
    found = _document(folder)
    if found is None:
        return None if enabled else _new(folder, "  enabled: false\n")
    path, text, data = found
    scale = data["autoscale"]
    known = scale.get("enabled") if isinstance(scale, dict) else None
    if known is enabled or (known is None and enabled):
        return None
    return _changed(path, text, _switched(text, scale, enabled=enabled), lambda fresh: _switch(fresh, enabled=enabled))


# ---------------------------------------------------------------- what is there


def _document(folder: Path) -> tuple[Path, str, Any] | None:
    """The file that says `autoscale`."""
    return next((found for found in round_trip(folder) if hasattr(found[2], "get") and "autoscale" in found[2]), None)


def _rules(data: Any) -> Any:
    """The list of rules, or `None`."""
    scale = data["autoscale"]
    found = scale.get("rules") if isinstance(scale, dict) else scale
    return found if isinstance(found, list) else None


def _same(rules: Any, cap: Cap) -> list[int]:
    return [index for index, rule in enumerate(rules or ()) if _key(rule) == _key_of(cap)]


def _key(rule: Any) -> tuple[object, ...]:
    spot = rule.get("spot")
    return (rule.get("instance_type"), rule.get("backend") or "", rule.get("region") or "", spot is None or spot)


def _key_of(cap: Cap) -> tuple[object, ...]:
    return (cap.instance_type, cap.backend, cap.region, cap.spot)


def _mapping(cap: Cap) -> dict[str, Any]:
    given = {"backend": cap.backend, "region": cap.region, "spot": None if cap.spot else False}
    said = {key: value for key, value in given.items() if value not in ("", None)}
    return {"instance_type": cap.instance_type, "max": cap.max, **said}


def _written(cap: Cap) -> str:
    values = {key: str(value).lower() if isinstance(value, bool) else value for key, value in _mapping(cap).items()}
    return "{" + ", ".join(f"{key}: {value}" for key, value in values.items()) + "}"


# ---------------------------------------------------------------- how it becomes


def _new(folder: Path, said: str) -> Edit:
    path = folder / NEW_FILE
    before = path.read_text() if path.exists() else ""
    lead = before + ("" if before.endswith("\n") or not before else "\n") if before else HEAD
    return Edit(path=path, before=before, after=f"{lead}autoscale:\n{said}")


def _changed(path: Path, text: str, splice: str | None, change: Callable[[Any], None]) -> Edit:
    return edited(path, text, splice=splice, change=change)


def _whole(path: Path, before: str, last: Edit) -> Edit | None:
    """Several steps as one."""
    return None if last.after == before else Edit(path=path, before=before, after=last.after)


def _with_maximum(path: Path, text: str, index: int, cap: Cap) -> Edit:
    def change(fresh: Any) -> None:
        _rules(fresh)[index]["max"] = cap.max

    rules = _node(text, "rules")
    pair = next((value for key, value in rules.value[index].value if key.value == "max"), None) if rules else None
    splice = f"{text[: pair.start_mark.index]}{cap.max}{text[pair.end_mark.index :]}" if pair is not None else None
    return _changed(path, text, splice, change)


def _append(fresh: Any, cap: Cap) -> None:
    rules = _rules(fresh)
    if rules is not None:
        rules.append(_mapping(cap))
    elif isinstance(fresh["autoscale"], dict):
        fresh["autoscale"]["rules"] = [_mapping(cap)]
    else:
        fresh["autoscale"] = {"rules": [_mapping(cap)]}


def _appended(text: str, data: Any, cap: Cap) -> str | None:
    rules = _node(text, "rules")
    if rules is None:
        return _first_rule(text, data["autoscale"], cap)
    if rules.flow_style:
        at = rules.value[-1].end_mark.index if rules.value else rules.start_mark.index + 1
        return f"{text[:at]}{', ' if rules.value else ''}{_written(cap)}{text[at:]}"
    found = block(text, _rules(data))
    if found is None:
        return None
    lines, starts, column = found
    return _inserted(lines, end_of(lines, starts[-1], column), f"{' ' * column}- {_written(cap)}")


def _first_rule(text: str, scale: Any, cap: Cap) -> str | None:
    """Behind what the mapping says already."""
    if not hasattr(scale, "items") or not scale or scale.fa.flow_style():
        return None
    lines = text.splitlines(keepends=True)
    line, column = scale.lc.key(next(iter(scale)))
    end = end_of(lines, line, column - 1)
    return _inserted(lines, end, f"{' ' * column}rules:", f"{' ' * column}  - {_written(cap)}")


def _inserted(lines: list[str], at: int, *new: str) -> str:
    newline = newline_of(lines)
    if at and not lines[at - 1].endswith("\n"):
        lines[at - 1] += newline
    return "".join((*lines[:at], *(f"{line}{newline}" for line in new), *lines[at:]))


def _without_rules(path: Path, text: str, data: Any, *, gone: Callable[[Any], bool]) -> Edit | None:
    rules = _rules(data) or ()
    last: Edit | None = None
    for index in reversed([index for index, rule in enumerate(rules) if gone(rule)]):
        last = _without_rule(path, text if last is None else last.after, index)
    return None if last is None else _whole(path, text, last)


def _without_rule(path: Path, text: str, index: int) -> Edit:
    def change(fresh: Any) -> None:
        del _rules(fresh)[index]

    return _changed(path, text, _cut(text, index), change)


def _cut(text: str, index: int) -> str | None:
    """The comment right above a rule goes with it, unless it heads the list."""
    rules = _node(text, "rules")
    if rules is None:
        return None
    if rules.flow_style:
        return without_part(text, rules.value, index)
    lines = text.splitlines(keepends=True)
    column = rules.start_mark.column
    starts = [item.start_mark.line for item in rules.value]
    start, end = starts[index], end_of(lines, starts[index], column)
    while index and lines[start - 1].lstrip().startswith("#"):
        start -= 1
    if len(starts) > 1:
        return "".join((*lines[:start], *lines[end:]))
    key = _pair(text, "rules")[0]
    at = text.index(":", key.end_mark.index) + 1
    head = len("".join(lines[:start]))
    return f"{text[:at]} []{text[at:head]}{''.join(lines[end:])}"


def _switch(fresh: Any, *, enabled: bool) -> None:
    scale = fresh["autoscale"]
    if isinstance(scale, dict):
        scale["enabled"] = enabled
    elif isinstance(scale, list):
        fresh["autoscale"] = {"enabled": enabled, "rules": scale}
    else:
        fresh["autoscale"] = {"enabled": enabled}


def _switched(text: str, scale: Any, *, enabled: bool) -> str | None:
    word = str(enabled).lower()
    known = _node(text, "enabled")
    if known is not None:
        return f"{text[: known.start_mark.index]}{word}{text[known.end_mark.index :]}"
    node = _node(text, "autoscale")
    if isinstance(scale, dict) and scale:
        at, between = node.start_mark.index, ", " if node.flow_style else f"\n{' ' * node.start_mark.column}"
        at += node.flow_style
        return f"{text[:at]}enabled: {word}{between}{text[at:]}"
    if isinstance(scale, list) and node.flow_style:
        inner = text[node.start_mark.index : node.end_mark.index]
        whole = f"{{enabled: {word}, rules: {inner}}}"
        return f"{text[: node.start_mark.index]}{whole}{text[node.end_mark.index :]}"
    return _wrapped(text, word) if isinstance(scale, list) else None


def _wrapped(text: str, word: str) -> str:
    """A list right under `autoscale` becomes its `rules`, two columns further in."""
    lines = text.splitlines(keepends=True)
    start = _pair(text, "autoscale")[0].start_mark.line + 1
    node = _node(text, "autoscale")
    end = end_of(lines, node.value[-1].start_mark.line, node.start_mark.column)
    newline = newline_of(lines)
    inner = [f"  {line}" if line.strip() else line for line in lines[start:end]]
    return "".join((*lines[:start], f"  enabled: {word}{newline}", f"  rules:{newline}", *inner, *lines[end:]))


# ---------------------------------------------------------------- where the parser found it


def _node(text: str, name: str) -> Any:
    """The node of `autoscale`, or of `rules` or `enabled` in it; `None` where there is none."""
    pair = _pair(text, name)
    node = pair[1] if pair else None
    return node if not (name == "rules" and not isinstance(node, yaml.SequenceNode)) else None


def _pair(text: str, name: str) -> Any:
    """Key and value; a list right under `autoscale` is its `rules`."""
    root: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    found = next(((key, value) for key, value in root.value if key.value == "autoscale"), None)
    if found is None or name == "autoscale":
        return found
    if isinstance(found[1], yaml.SequenceNode):
        return found if name == "rules" else None
    if not isinstance(found[1], yaml.MappingNode):
        return None
    return next(((key, value) for key, value in found[1].value if key.value == name), None)
