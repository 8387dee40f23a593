"""Count what differs between what is declared and what there is: also what no action can mend now. Pure."""

from __future__ import annotations

from reconciler.report.plan_diff import Difference
from reconciler.report.plan_rows import explain
from schemas.plan import Plan
from schemas.state import State


def differences(plan: Plan, state: State | None, *, change: Difference | None = None) -> int:
    """Changes to make, things wanted that cannot be had now, and runs that wait; 0 where all is as declared.

    `change`: only what that change of the documents brings or averts.
    """
    confirmed = len(plan.configuration) + len(plan.changes)
    if change is not None:
        return len(change.change) + len(change.averted) + len(change.unmet) + confirmed
    return len(explain(plan, state)) + len(plan.unmet) + len(plan.waits) + confirmed
