"""The budgets, a measured figure beside its own, and what is a miss. No measuring here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Unit = Literal["s", "x bare", "MiB", "MB", "writes", "requests", "reconcilers", "retries", "x n log n", "x plain ssh"]

# The budget of every row, by its name in the table. docs/speed.md has the same ones: a test compares.
BUDGETS: dict[str, tuple[float, Unit]] = {
    "dstack --version": (0.08, "s"),
    "dstack --help": (0.20, "s"),
    "plan, nothing to do": (22, "x bare"),
    "plan, documents unchanged": (16, "x bare"),
    "plan of 10,000 instances": (0.8, "s"),
    "its memory": (250, "MiB"),
    "plan of 10,000 instances, 100,000 offers": (0.8, "s"),
    "its memory with the offers": (250, "MiB"),
    "report of a month of 10,000 instances": (3.0, "s"),
    "its page": (5, "MB"),
    "a question to 100,000 offers": (0.02, "s"),
    "plan on AWS, nothing to do": (0.3, "s"),
    "plan on AWS that buys": (0.8, "s"),
    "load the state of 100,000 instances": (0.5, "s"),
    "plan 100,000 instances, 10,000 runs": (1.8, "s"),
    "write the state of 100,000 instances": (0.6, "s"),
    "plan of 10,000 instances, the budget used up": (0.8, "s"),
    "tick of 1,000 launches, assignments, ends": (1.0, "s"),
    "its writes": (4, "writes"),
    "the tick after it": (1.0, "s"),
    "writes of a tick with nothing to do": (0, "writes"),
    "GETs of an apply with nothing to do": (1, "requests"),
    "its other requests": (0, "requests"),
    "100,000 instances in a bucket": (10, "MB"),
    "they are read and written": (1.5, "s"),
    "of 100 reconcilers at one object, those lost": (0, "reconcilers"),
    "DescribeInstances of 1,000 instances that stay, in 2 regions": (2, "requests"),
    "its identity calls": (1, "requests"),
    "its status checks": (2, "requests"),
    "its other calls": (0, "requests"),
    "RunInstances of 200 launches of one shape": (5, "requests"),
    "attach and status of 100 servers": (3, "x plain ssh"),
    "a look at one of them, connected": (0.03, "s"),
    "growth of load, 10k to 100k": (1, "x n log n"),
    "growth of plan, 10k to 100k": (1, "x n log n"),
    "growth of write, 10k to 100k": (1, "x n log n"),
}
MISSED = 1.5


@dataclass(frozen=True, kw_only=True)
class Row:
    """A figure. `pace` is the machine's while it was taken (see `bench.pace`): a budget in seconds grows with it."""

    what: str
    value: float
    unit: Unit
    pace: float = 1.0

    @property
    def allowed(self) -> float | None:
        """The budget on this machine; `None` where there is none."""
        if self.what not in BUDGETS:
            return None
        budget, unit = BUDGETS[self.what]
        if unit != self.unit:
            raise ValueError(f"{self.what} is measured in {self.unit}, its budget is in {unit}")
        return budget * max(1.0, self.pace) if unit == "s" else budget

    @property
    def verdict(self) -> str:
        """`met`, `over`, or `missed`: by half again, which fails; "" without a budget."""
        allowed = self.allowed
        if allowed is None:
            return ""
        if self.value <= allowed:
            return "met"
        # A ratio of two figures has the noise of both: growth is shown, and the seconds of the largest size may fail.
        return "missed" if self.value > MISSED * allowed and self.unit != "x n log n" else "over"


def missed(rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if row.verdict == "missed"]


def better(first: Iterable[Row], second: Iterable[Row]) -> list[Row]:
    """Of two looks at the same rows, the smaller figure of each against its budget: noise only adds."""
    again = {row.what: row for row in second}
    return [min((row, again.get(row.what, row)), key=_burden) for row in first]


def _burden(row: Row) -> float:
    return row.value / (row.allowed or 1)


def lines(rows: Iterable[Row]) -> list[str]:
    """The table: what, the figure, its budget as it is written and as it is here, the verdict."""
    return [
        f"{row.what:<44} {_figure(row.value, row.unit):>16}  {_budget(row):<28} {row.verdict}".rstrip() for row in rows
    ]


def _budget(row: Row) -> str:
    if row.what not in BUDGETS or row.allowed is None:
        return ""
    budget, unit = BUDGETS[row.what]
    here = "" if row.allowed == budget else f", here {_figure(row.allowed, unit)}"
    return f"at most {_figure(budget, unit)}{here}"


def _figure(value: float, unit: Unit) -> str:
    digits = {"s": 3, "x n log n": 2, "x bare": 1, "MB": 1}.get(unit, 0)
    return f"{value:.{digits}f} {unit}"
