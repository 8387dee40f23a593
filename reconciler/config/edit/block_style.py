"""Find where the items of a YAML block list begin and end."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any


def block(text: str, items: Any) -> tuple[list[str], list[int], int] | None:
    """Lines, the line of each item's dash and the dashes' column; None where it is no plain block list."""
    if not items or items.fa.flow_style():
        return None
    lines = text.splitlines(keepends=True)
    starts = []
    column = -1
    for index in range(len(items)):
        line = items.lc.item(index)[0]
        while line >= 0 and not re.match(r" *-(\s|$)", lines[line]):
            line -= 1
        dash = len(lines[line]) - len(lines[line].lstrip(" ")) if line >= 0 else -1
        if line < 0 or column not in (-1, dash):
            return None
        column = dash
        starts.append(line)
    return lines, starts, column


def end_of(lines: Sequence[str], start: int, column: int) -> int:
    """The line after the last one of the item that starts at `start`; what follows it is not its own."""
    end = start + 1
    for number in range(start + 1, len(lines)):
        stripped = lines[number].strip()
        indent = len(lines[number]) - len(lines[number].lstrip(" "))
        if not stripped:
            continue
        if indent <= column:
            break
        end = number + 1
    return end


def newline_of(lines: Sequence[str]) -> str:
    return "\r\n" if lines and lines[0].endswith("\r\n") else "\n"
