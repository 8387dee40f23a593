"""Edit pools in `.dstack/*.yml` without changing any other byte: comments, order, quotes, line ends.

A list is edited as text, at the places that the parsers report; where that cannot be done it is
written by ruamel. Each edit is read back and compared with what was meant before it is offered.
"""

from __future__ import annotations

import difflib
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from reconciler.config.edit.block_style import block, end_of, newline_of
from reconciler.config.edit.flow_style import append_flow, delete_flow, mark_flow

NEW_FILE = "pools.yml"


class EditRefused(Exception):
    """It cannot be edited so. The message says where and what to do by hand."""


@dataclass(frozen=True, kw_only=True)
class Edit:
    """A file before and after. `before` is "" for one that is made."""

    path: Path
    before: str
    after: str

    def diff(self, root: Path) -> str:
        """A unified diff with paths relative to `root`."""
        name = self.path.relative_to(root).as_posix() if self.path.is_relative_to(root) else str(self.path)
        old = self.before.splitlines(keepends=True)
        new = self.after.splitlines(keepends=True)
        lines = difflib.unified_diff(old, new, f"a/{name}" if old else "/dev/null", f"b/{name}")
        return "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)


def create_pool(folder: Path, name: str) -> Edit:
    """`pools` of `folder` (a `.dstack`) with one more, at its end; in a file of its own where there is none."""
    for path, text, data in round_trip(folder):
        pools = _pools(data)
        if pools is None:
            continue
        _refuse_known(folder, name)
        return edited(path, text, splice=_appended(text, pools, name), change=_append(name))
    path = folder / NEW_FILE
    if path.exists():
        text = path.read_text()
        after = text + ("" if text.endswith("\n") or not text else "\n") + f"pools:\n  - name: {name}\n"
        return Edit(path=path, before=text, after=after)
    return Edit(path=path, before="", after=f"pools:\n  - name: {name}\n")


def delete_pool(folder: Path, name: str) -> Edit:
    """Without that pool. The comment right above it goes with it, unless it heads the list."""
    path, text, data, index = find_pool(folder, name)
    pools = _pools(data)

    def change(fresh: Any) -> None:
        del fresh["pools"][index]

    return edited(path, text, splice=_without(text, pools, index), change=change)


def set_default(folder: Path, name: str) -> tuple[Edit, ...]:
    """`default: true` for that pool and for no other; one edit a file that changes."""
    find_pool(folder, name)
    edits = []
    for path, text, data in round_trip(folder):
        pools = _pools(data)
        if pools is None:
            continue
        wanted = [_named(pool) == name for pool in pools]
        edit = edited(path, text, splice=_marked(text, pools, wanted), change=partial(_mark, wanted=wanted))
        if edit.after != edit.before:
            edits.append(edit)
    return tuple(edits)


def declared(folder: Path) -> tuple[str, ...]:
    """The names of the pools that the documents have; the implied default pool is none of them."""
    return tuple(_named(pool) for _, _, data in round_trip(folder) for pool in _pools(data) or ())


# ---------------------------------------------------------------- reading


def round_trip(folder: Path) -> list[tuple[Path, str, Any]]:
    """path, text and round-trip data of each document that ruamel can read."""
    found = []
    for path in sorted((*folder.glob("*.yml"), *folder.glob("*.yaml"))):
        with path.open(newline="") as file:
            text = file.read()
        found.append((path, text, _read(path, text)))
    return found


def _read(path: Path, text: str) -> Any:
    from ruamel.yaml.error import YAMLError

    try:
        return _yaml(text).load(text)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise EditRefused(f"{where}: cannot be edited while it cannot be read; see `dstack validate`") from error


def _yaml(text: str) -> Any:
    from ruamel.yaml import YAML

    yaml = YAML(typ="rt")
    yaml.preserve_quotes = True
    yaml.width = 4096
    dash = re.search(r"^[^\s#-][^\n]*:\s*(?:#[^\n]*)?\r?\n( *)- ", text, re.MULTILINE)
    offset = len(dash.group(1)) if dash else 2
    yaml.indent(mapping=2, sequence=offset + 2, offset=offset)
    return yaml


def _pools(data: Any) -> Any:
    """The list under `pools`, or None where this document has none."""
    found = data.get("pools") if hasattr(data, "get") else None
    return found if isinstance(found, list) else None


def _named(pool: Any) -> str:
    return str(pool.get("name", "")) if hasattr(pool, "get") else ""


def find_pool(folder: Path, name: str) -> tuple[Path, str, Any, int]:
    """Its file, the text and round-trip data of that, and its number there. Raises `EditRefused`."""
    """path, text, round-trip data and the pool's index. Raises `EditRefused` where it is not declared."""
    known = []
    for path, text, data in round_trip(folder):
        names = [_named(pool) for pool in _pools(data) or ()]
        if name in names:
            return path, text, data, names.index(name)
        known += names
    there = f"there are {', '.join(known)}" if known else "no pool is declared there"
    raise EditRefused(f"{folder}: no pool {name}; {there}")


def _refuse_known(folder: Path, name: str) -> None:
    for path, _, data in round_trip(folder):
        if name in [_named(pool) for pool in _pools(data) or ()]:
            raise EditRefused(f"{path}: there is a pool {name} already")


# ---------------------------------------------------------------- writing


def _append(name: str) -> Callable[[Any], None]:
    def change(fresh: Any) -> None:
        fresh["pools"].append({"name": name})

    return change


def _mark(fresh: Any, *, wanted: Sequence[bool]) -> None:
    for pool, default in zip(fresh["pools"], wanted, strict=True):
        if default:
            pool["default"] = True
        elif hasattr(pool, "pop"):
            pool.pop("default", None)


def edited(path: Path, text: str, *, splice: str | None, change: Callable[[Any], None]) -> Edit:
    """As spliced text where that reads back as meant, else as ruamel writes it."""
    meant = _read(path, text)
    change(meant)
    after = splice
    if after is None or _plain(_read(path, after)) != _plain(meant):
        stream = io.StringIO()
        _yaml(text).dump(meant, stream)
        after = stream.getvalue()
    if _plain(_read(path, after)) != _plain(meant):
        raise EditRefused(f"{path}: it cannot be edited without harm; edit it by hand")
    return Edit(path=path, before=text, after=after)


def _plain(data: Any) -> Any:
    """Values alone, for a comparison."""
    if hasattr(data, "items"):
        return {str(key): _plain(value) for key, value in data.items()}
    if isinstance(data, list):
        return [_plain(value) for value in data]
    return data


# ---------------------------------------------------------------- text of block lists


def _appended(text: str, pools: Any, name: str) -> str | None:
    found = block(text, pools)
    if found is None:
        return append_flow(text, name)
    lines, starts, column = found
    newline = newline_of(lines)
    end = end_of(lines, starts[-1], column)
    if not lines[end - 1].endswith("\n"):
        lines[end - 1] += newline
    lines.insert(end, f"{' ' * column}- name: {name}{newline}")
    return "".join(lines)


def _without(text: str, pools: Any, index: int) -> str | None:
    found = block(text, pools)
    if found is None:
        return delete_flow(text, index)
    lines, starts, column = found
    if len(pools) == 1:
        head = "".join(lines[: starts[0]])
        rest = "".join(lines[end_of(lines, starts[0], column) :])
        return re.sub(r"^pools\s*:", "pools: []", head, count=1, flags=re.MULTILINE) + rest
    start, end = starts[index], end_of(lines, starts[index], column)
    while index and lines[start - 1].lstrip().startswith("#"):
        start -= 1
    return "".join((*lines[:start], *lines[end:]))


def _marked(text: str, pools: Any, wanted: Sequence[bool]) -> str | None:
    """From the last pool to the first, so that line numbers hold."""
    found = block(text, pools)
    if found is None:
        return mark_flow(text, wanted)
    lines = found[0]
    for pool, default in reversed(list(zip(pools, wanted, strict=True))):
        if not hasattr(pool, "lc") or pool.fa.flow_style():
            if default or "default" in pool:
                return None
            continue
        if "default" in pool:
            _set_default_line(lines, pool, default=default)
        elif default:
            line, column = pool.lc.key("name")
            if not lines[line].endswith("\n"):
                lines[line] += newline_of(lines)
            lines.insert(line + 1, f"{' ' * column}default: true{newline_of(lines)}")
    return "".join(lines)


def _set_default_line(lines: list[str], pool: Any, *, default: bool) -> None:
    """A line of its own goes; one behind the dash, or one to become true, is rewritten in place."""
    line, column = pool.lc.key("default")
    if default or not lines[line][:column].isspace():
        lines[line] = re.sub(r"(default\s*:\s*)\S+", rf"\g<1>{str(default).lower()}", lines[line], count=1)
    else:
        del lines[line]
