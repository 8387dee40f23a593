"""Problems in the configuration, each with file, line and column."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from reconciler.text.format import clean


class Problem(NamedTuple):
    """One thing that is wrong, where it was written: 1-based line and column. As text it is one line.

    What a document holds stands in the message: with its line ends it could pretend to be another message.
    """

    path: str
    line: int
    col: int
    message: str

    def __str__(self) -> str:
        return clean(f"{self.path}:{self.line}:{self.col}: {self.message}")


class Invalid(Exception):
    """The documents cannot be used. `problems` has every one found, in the order of the files."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


def in_order(problems: Iterable[Problem]) -> list[Problem]:
    """By file and position, each once."""
    return sorted(dict.fromkeys(problems), key=lambda problem: problem[:3])
