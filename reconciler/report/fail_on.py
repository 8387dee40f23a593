"""Evaluate `plan --fail-on destroy,cost>20,unmet`. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from reconciler.report.plan_diff import Difference
from reconciler.report.plan_rows import PlanRow, explain
from reconciler.text.format import few, hourly
from schemas.base import Price
from schemas.plan import Plan, Unmet
from schemas.state import State

KNOWN = "destroy, cost>N, unmet"
ENDS = ("terminate", "detach", "stop", "remove")
MOST = 10
MOST_UNMET = 3


class BadGate(ValueError):
    """A gate that is none; the message lists those that are."""


@dataclass(frozen=True, kw_only=True)
class Gate:
    """`limit` is $/h, of `cost>N` alone. `name` is as written."""

    name: str
    limit: Price | None = None


@dataclass(frozen=True, kw_only=True)
class GateFailure:
    """A gate, and why it holds the plan back; "" where it lets it pass."""

    gate: str
    why: str


def gates(text: str) -> tuple[Gate, ...]:
    """Those that are named, once each. Raises `BadGate`."""
    return tuple(dict.fromkeys(_gate(part.strip()) for part in text.split(",")))


def _gate(name: str) -> Gate:
    if name in ("destroy", "unmet"):
        return Gate(name=name)
    cost = re.fullmatch(r"cost *> *\$?([0-9]{1,9}(?:\.[0-9]{1,6})?)(?:/h)?", name)
    if cost is None:
        raise BadGate(f"--fail-on {name or '(nothing)'}: there is no such gate; there are {KNOWN} (N in $/h)")
    return Gate(name=name.replace(" ", ""), limit=Decimal(cost[1]))


def held(asked: Sequence[Gate], plan: Plan, state: State, *, difference: Difference | None) -> tuple[GateFailure, ...]:
    """Every gate with its answer. Against other documents only what the change does of its own counts, but for cost."""
    rows = difference.change if difference else explain(plan, state)
    unmet = difference.unmet if difference else plan.unmet
    return tuple(GateFailure(gate=gate.name, why=_why(gate, rows, unmet=unmet, plan=plan)) for gate in asked)


def _why(gate: Gate, rows: Sequence[PlanRow], *, unmet: Sequence[Unmet], plan: Plan) -> str:
    if gate.limit is not None:
        return _dear(gate.limit, rows, plan=plan)
    if gate.name == "unmet":
        shown = [f"{one.subject}: {one.why}" for one in unmet[:MOST_UNMET]]
        return "; ".join(shown) + (f"; and {len(unmet) - MOST_UNMET} more" if len(unmet) > MOST_UNMET else "")
    ends = [f"{row.kind} {row.instance or row.run}" for row in rows if row.kind in ENDS]
    more = f" and {len(ends) - MOST} more" if len(ends) > MOST else ""
    return ", ".join(ends[:MOST]) + more


def _dear(limit: Price, rows: Sequence[PlanRow], *, plan: Plan) -> str:
    """What has no known price may cost anything."""
    unpriced = [row.instance for row in rows if row.kind == "launch" and row.price is None]
    if unpriced:
        return f"{unpriced[0]} has no known price"
    if plan.hourly_after <= limit:
        return f"cannot be ruled out: {plan.uncounted[0]}" if plan.uncounted else ""
    bought = sorted((row for row in rows if row.kind == "launch" and row.price), key=lambda row: -(row.price or 0))
    named = few((f"{row.instance} {hourly(row.price or Price(0))}" for row in bought), most=MOST_UNMET)
    return f"{hourly(plan.hourly_after)} after, above {hourly(limit)}" + (f": creates {named}" if bought else "")
