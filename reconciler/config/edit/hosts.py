"""Add hosts to a pool's `ssh: {hosts: […]}` as text. Everything else stays as it is."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reconciler.config.edit.block_style import block, end_of, newline_of
from reconciler.config.edit.pools import Edit, declared, edited, find_pool

Entry = str | Mapping[str, Any]


def add_hosts(folder: Path, pool: str, hosts: Sequence[Entry]) -> Edit:
    """`hosts` behind those that the declared pool has. An address alone, or a mapping as documents take it."""
    path, text, data, index = find_pool(folder, pool)
    pools = data["pools"]

    def change(fresh: Any) -> None:
        chosen = fresh["pools"][index]
        if not isinstance(chosen.get("ssh"), dict):
            chosen["ssh"] = {}
        if not isinstance(chosen["ssh"].get("hosts"), list):
            chosen["ssh"]["hosts"] = []
        chosen["ssh"]["hosts"].extend(one if isinstance(one, str) else dict(one) for one in hosts)

    lines = [_written(one) for one in hosts]
    return edited(path, text, splice=_spliced(text, pools, index, lines), change=change)


def said_of_all(folder: Path, pool: str) -> dict[str, Any]:
    """What the `ssh` of that pool says of all its hosts: `user`, `port`, `identity_file`, `network`, `proxy_jump`."""
    if pool not in declared(folder):
        return {}
    _, _, data, index = find_pool(folder, pool)
    ssh = data["pools"][index].get("ssh")
    return {key: value for key, value in ssh.items() if key != "hosts"} if isinstance(ssh, dict) else {}


def with_hosts(made: Edit, pool: str, hosts: Sequence[Entry]) -> Edit:
    """An edit that made `pool` as the last of its list, and nothing of it said yet, with these hosts too."""
    name = next(line for line in reversed(made.after.splitlines()) if line.strip() == f"- name: {pool}")
    indent = " " * (len(name) - len(name.lstrip()) + 2)
    new = [f"{indent}ssh:", f"{indent}  hosts:", *(f"{indent}    - {_written(one)}" for one in hosts)]
    newline = "\r\n" if "\r\n" in made.after else "\n"
    head, tail = made.after[: made.after.rindex(name) + len(name)], made.after[made.after.rindex(name) + len(name) :]
    return Edit(path=made.path, before=made.before, after=head + "".join(newline + line for line in new) + tail)


def _written(one: Entry) -> str:
    if isinstance(one, str):
        return _scalar(one)
    return "{" + ", ".join(f"{key}: {_scalar(value)}" for key, value in one.items()) + "}"


def _scalar(value: Any) -> str:
    """Plain where any reader takes it for the same text."""
    if isinstance(value, Mapping):
        return _written(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_scalar, value))}]"
    if isinstance(value, int):
        return str(value)
    plain = re.fullmatch(r"[A-Za-z~/.][A-Za-z0-9_~/.@+-]*|\d{1,3}(\.\d{1,3}){3}", value)
    words = value.lower() in ("true", "false", "null", "yes", "no", "on", "off", "y", "n", "~")
    return value if plain and not words else json.dumps(value)


def _spliced(text: str, pools: Any, index: int, items: Sequence[str]) -> str | None:
    ssh = pools[index].get("ssh")
    hosts: Any = ssh.get("hosts") if isinstance(ssh, dict) else None
    if hosts and hasattr(hosts, "fa"):
        return _behind(text, hosts, items) if not hosts.fa.flow_style() else _in_line(text, ssh, items)
    return None if ssh is not None else _new_key(text, pools, index, items)


def _behind(text: str, hosts: Any, items: Sequence[str]) -> str | None:
    found = block(text, hosts)
    if found is None:
        return None
    lines, starts, column = found
    return _inserted(lines, end_of(lines, starts[-1], column), [f"{' ' * column}- {item}" for item in items])


def _in_line(text: str, ssh: Any, items: Sequence[str]) -> str | None:
    """A list in brackets that ends on the line of its key."""
    lines = text.splitlines(keepends=True)
    number = ssh.lc.key("hosts")[0]
    changed = re.sub(r"\](\s*(?:#.*)?)$", lambda end: f", {', '.join(items)}]{end[1]}", lines[number], count=1)
    if changed == lines[number]:
        return None
    lines[number] = changed
    return "".join(lines)


def _new_key(text: str, pools: Any, index: int, items: Sequence[str]) -> str | None:
    found = block(text, pools)
    if found is None or pools[index].fa.flow_style():
        return None
    lines, starts, column = found
    indent = " " * pools[index].lc.key(next(iter(pools[index])))[1]
    new = [f"{indent}ssh:", f"{indent}  hosts:", *(f"{indent}    - {item}" for item in items)]
    return _inserted(lines, end_of(lines, starts[index], column), new)


def _inserted(lines: list[str], at: int, new: Sequence[str]) -> str:
    newline = newline_of(lines)
    if not lines[at - 1].endswith("\n"):
        lines[at - 1] += newline
    return "".join((*lines[:at], *(f"{line}{newline}" for line in new), *lines[at:]))
