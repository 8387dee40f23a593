"""Values read from YAML that remember where, and how, each was written."""

from __future__ import annotations

from typing import Any, NamedTuple

from reconciler.config.problems import Problem

Mark = tuple[int, int]
"""1-based line and column."""


class Number(float):
    """A float that remembers how it was written: `3.10` is not `3.1` where text is wanted."""

    text: str


class Mapping(dict[str, Any]):
    """A mapping, and the marks of its keys and values. `weight` counts values, aliases followed."""

    def __init__(self) -> None:
        super().__init__()
        self.key_marks: dict[str, Mark] = {}
        self.value_marks: dict[str, Mark] = {}
        self.weight = 1
        self.height = 1


class Sequence(list[Any]):
    """A list, and the marks of its items."""

    def __init__(self) -> None:
        super().__init__()
        self.value_marks: list[Mark] = []
        self.weight = 1
        self.height = 1


class SourceText(NamedTuple):
    """One file read. `value` is `None` where it is empty; `mark` is where its value begins."""

    path: str
    value: Any
    mark: Mark
    problems: tuple[Problem, ...] = ()


def locate(source: SourceText, path: tuple[str | int, ...], *, key: bool = False) -> Mark:
    """Where the value at `path` begins, or its key; the nearest parent's where it is not written."""
    value, mark = source.value, source.mark
    for index, step in enumerate(path):
        last = index == len(path) - 1
        if isinstance(value, Mapping) and step in value:
            mark = (value.key_marks if key and last else value.value_marks)[str(step)]
        elif isinstance(value, Sequence) and isinstance(step, int) and step < len(value):
            mark = value.value_marks[step]
        else:
            return mark
        value = value[step]
    return mark


def scalar_text(value: Any) -> str | None:
    """A scalar as it was written, `None` for what is no scalar (`true` and `false` in lower case)."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Number):
        return value.text
    if isinstance(value, str | int | float):
        return str(value)
    return None
