"""Split a plan into what a configuration change causes and what would happen anyway. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass

from reconciler.report.plan_rows import PlanRow, explain
from reconciler.text.format import counted
from schemas.base import Price
from schemas.desired import Desired
from schemas.plan import Plan, Unmet
from schemas.state import State


@dataclass(frozen=True, kw_only=True)
class Side:
    """A plan, the state that it was made on, and the documents that it was made for."""

    plan: Plan
    state: State
    desired: Desired


@dataclass(frozen=True, kw_only=True)
class Difference:
    """`change` and `anyway` are the plan's rows; `averted` those that only the other documents would bring.

    `unmet` is what only the change leaves unmet. `hourly` is $/h after the other documents' plan; `commit` is theirs.
    `behind`: so many commits of `revision` came since and are not in this branch.
    """

    commit: str
    change: tuple[PlanRow, ...]
    anyway: tuple[PlanRow, ...]
    averted: tuple[PlanRow, ...]
    unmet: tuple[Unmet, ...]
    hourly: Price
    behind: int = 0
    revision: str = ""

    @property
    def behind_words(self) -> str:
        """`main is 3 commits ahead`, of where this branch began; "" where it is not."""
        return f"{self.revision} is {counted(self.behind, 'commit')} ahead" if self.behind else ""

    @property
    def own(self) -> bool:
        """Whether the change does anything of its own."""
        return bool(self.change or self.averted)


def subtract(mine: Side, base: Side, *, commit: str, behind: int = 0, revision: str = "") -> Difference:
    """`mine` less `base`: the same thing twice in one and once in the other differs by one."""
    others = [(row, _key(row, base)) for row in explain(base.plan, base.state)]
    left = Counter(key for _, key in others)
    change: list[PlanRow] = []
    anyway: list[PlanRow] = []
    for row in explain(mine.plan, mine.state):
        key = _key(row, mine)
        (anyway if left[key] > 0 else change).append(row)
        left[key] -= 1
    known = {one.subject for one in base.plan.unmet}
    return Difference(
        commit=commit,
        change=tuple(change),
        anyway=tuple(anyway),
        averted=tuple(_last_of(others, left)),
        unmet=tuple(one for one in mine.plan.unmet if one.subject not in known),
        hourly=base.plan.hourly_after,
        behind=behind,
        revision=revision,
    )


def _last_of(rows: list[tuple[PlanRow, Hashable]], left: Counter[Hashable]) -> list[PlanRow]:
    """As many of each kind as were not met, the last ones."""
    found = []
    for row, key in reversed(rows):
        if left[key] > 0:
            left[key] -= 1
            found.append(row)
    return found[::-1]


def _key(row: PlanRow, side: Side) -> Hashable:
    """What makes two rows the same: not the name that a new instance happens to get, but what a run is as written."""
    hashes = {spec.name: spec.hash for spec in side.desired.runs}
    living = {one.name for one in side.state.instances if one.phase != "terminated"}
    name = row.instance if row.instance in living else ""
    machine = (row.backend, row.region, row.instance_type, row.price, row.spot)
    return (row.kind, row.pool, name, row.run, hashes.get(row.run, ""), machine)
