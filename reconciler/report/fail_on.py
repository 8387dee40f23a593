"""Evaluate `plan --fail-on destroy,cost>20,max-cost>100,pending,config`. Pure."""

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

KNOWN = "destroy, cost>N, max-cost>N, pending, config"
ENDS = ("terminate", "detach", "stop", "remove")
MOST = 10
MOST_UNMET = 3


class BadGate(ValueError):
    """A gate that is none; the message lists those that are."""


@dataclass(frozen=True, kw_only=True)
class Gate:
    """One condition that a plan must not meet."""

    name: str
    """As written."""
    limit: Price | None = None
    """$/h, of `cost>N` and `max-cost>N`."""
    worst: bool = False
    """`limit` bounds what the configuration permits to cost, not what the plan costs."""


@dataclass(frozen=True, kw_only=True)
class GateFailure:
    """A gate, and why it holds the plan back; "" where it lets it pass."""

    gate: str
    why: str


def gates(text: str) -> tuple[Gate, ...]:
    """Those that are named, once each. Raises `BadGate`."""
    return tuple(dict.fromkeys(_gate(part.strip()) for part in text.split(",")))


def _gate(name: str) -> Gate:
    if name in ("destroy", "pending", "unmet", "config"):
        return Gate(name=name)
    cost = re.fullmatch(r"(max-)?cost *> *\$?([0-9]{1,9}(?:\.[0-9]{1,6})?)(?:/h)?", name)
    if cost is None:
        raise BadGate(f"--fail-on {name or '(nothing)'}: there is no such gate; there are {KNOWN} (N in $/h)")
    return Gate(name=name.replace(" ", ""), limit=Decimal(cost[2]), worst=bool(cost[1]))


def held(asked: Sequence[Gate], plan: Plan, state: State, *, difference: Difference | None) -> tuple[GateFailure, ...]:
    """Every gate with its answer. Against other documents only what the change does of its own counts, but for cost."""
    rows = difference.change if difference else explain(plan, state)
    unmet = difference.unmet if difference else plan.unmet
    return tuple(GateFailure(gate=gate.name, why=_why(gate, rows, unmet=unmet, plan=plan)) for gate in asked)


def _why(gate: Gate, rows: Sequence[PlanRow], *, unmet: Sequence[Unmet], plan: Plan) -> str:
    if gate.limit is not None:
        return _permitted(gate.limit, plan=plan) if gate.worst else _dear(gate.limit, rows, plan=plan)
    if gate.name == "config":
        keys = [f"{one.kind} {one.name}".strip() + (f" {one.key}" if one.key else "") for one in plan.changes]
        return few(dict.fromkeys([*keys, *plan.configuration]), most=MOST_UNMET)
    if gate.name in ("unmet", "pending"):
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


def _permitted(limit: Price, *, plan: Plan) -> str:
    """What the configuration permits, whether anything happens now or not."""
    cost = plan.cost
    if cost is None:
        return "the worst case is not known"
    if cost.worst is None:
        return f"nothing limits pool {few(cost.unlimited, most=MOST_UNMET)}: set the maximum of `nodes`, or a budget"
    if cost.worst <= limit:
        return "cannot be ruled out: some prices are unknown" if any(one.unpriced for one in cost.pools) else ""
    pools = sorted((one for one in cost.pools if one.worst), key=lambda one: -(one.worst or 0))
    named = few((f"{one.pool} {hourly(one.worst or Price(0))}" for one in pools), most=MOST_UNMET)
    return f"{hourly(cost.worst)} with all maxima reached, above {hourly(limit)}: {named}"
