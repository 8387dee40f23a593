"""JSON of `plan`, `ps` and `pool ps`, each with a schema in `schemas/json`. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec

from reconciler.report.instance_rows import InstanceRow
from reconciler.report.plan_rows import PlanRow, explain
from reconciler.report.plan_sections import is_new
from reconciler.report.run_rows import RunRow
from reconciler.state.status import timer_of, timers, unreachable
from reconciler.text.format import resources, stamp
from schemas.base import HOURS, Price
from schemas.configuration import Change, PoolCost
from schemas.leftover import Leftover
from schemas.plan import Plan, Unmet, Wait
from schemas.state import State

if TYPE_CHECKING:
    from reconciler.report.fail_on import GateFailure
    from reconciler.report.plan_diff import Difference


def dump(value: Any) -> str:
    """Indented JSON with a newline at its end; what could drive a terminal is escaped in it."""
    text = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    return re.sub(r"[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]", _escaped, text) + "\n"


def _escaped(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


def plan_json(
    plan: Plan, state: State | None, *, difference: Difference | None = None, gates: Sequence[GateFailure] = ()
) -> dict[str, Any]:
    """`observed_at` is the oldest good observation of any place: nothing below is fresher than it."""
    seen = [at for _, at, _ in plan.observed if at is not None]
    return {
        "version": 1,
        "project": plan.project,
        "generation": plan.generation,
        "observed_at": stamp(min(seen, default=None)),
        "configuration": [
            *(_change(one) for one in plan.changes),
            *({**_change(Change(kind="backend", name="", op="change")), "note": one} for one in plan.configuration),
        ],
        "confirmations": list(plan.configuration),
        "actions": [_action(row) for row in explain(plan, state)],
        "unmet": [_unmet(one) for one in plan.unmet],
        "lacking_here": [_unmet(one) for one in plan.lacking_here],
        "waits": [_wait(one, state) for one in plan.waits if one.instances],
        "timers": [{"instance": one.name, "self_destruct_at": stamp(one.self_destruct_at)} for one in timers(state)],
        "warnings": list(plan.warnings),
        "cost": {
            "hourly_before": _number(plan.hourly_before),
            "hourly_after": _number(plan.hourly_after),
            "uncounted": list(plan.uncounted),
            "worst_case": _number(plan.cost.worst) if plan.cost else None,
            "unlimited": list(plan.cost.unlimited) if plan.cost else [],
            "per_pool": [_pool_cost(one) for one in plan.cost.pools] if plan.cost else [],
        },
        "runs": _planned_runs(plan, state),
        "against": _against(difference) if difference else None,
        "gates": [{"gate": one.gate, "failed": bool(one.why), "why": one.why} for one in gates],
    }


def _unmet(one: Unmet) -> dict[str, Any]:
    return {"subject": one.subject, "why": one.why, "final": one.final}


def _change(one: Change) -> dict[str, Any]:
    return {
        "kind": one.kind,
        "name": one.name,
        "op": one.op,
        "key": one.key,
        "old": one.old or None,
        "new": one.new or None,
        "note": one.note,
    }


def _pool_cost(one: PoolCost) -> dict[str, Any]:
    return {
        "pool": one.pool,
        "hourly_before": _number(one.before),
        "hourly_after": _number(one.after),
        "worst_case": _number(one.worst),
        "at_most": one.at_most,
        "unpriced": one.unpriced,
    }


def _planned_runs(plan: Plan, state: State | None) -> list[dict[str, Any]]:
    """Each run that the plan does anything to, with what of its configuration changes."""
    found: dict[str, dict[str, Any]] = {}
    for row in explain(plan, state):
        if row.of_run:
            one = found.setdefault(row.run, {"name": row.run, "does": [], "instances": [], "changes": []})
            done = {"assign": "start", "stop": "stop"}.get(row.kind, "new" if is_new(row) else "change")
            one["does"] += [done] if done not in one["does"] else []
            one["instances"] += [row.instance] if row.kind == "assign" else []
    for change in plan.changes:
        if change.kind == "run":
            found.setdefault(change.name, {"name": change.name, "does": [], "instances": [], "changes": []})
            found[change.name]["changes"].append(_change(change))
    return list(found.values())


def _wait(wait: Wait, state: State | None) -> dict[str, Any]:
    names = {one.id: one.name for one in state.instances} if state else {}
    return {
        "run": wait.run,
        "instances": [names.get(id, id) for id in wait.instances],
        "free_at": stamp(wait.at),
        "saves": _number(wait.saves) if wait.saves is not None else None,
        "why": wait.why,
    }


def leftovers_json(
    found: Sequence[Leftover],
    *,
    removed: Mapping[str, str],
    silent: Mapping[str, str],
    refused: Mapping[str, Mapping[str, str]],
) -> dict[str, Any]:
    """`removed`: id -> "" or why it could not be; `silent` and `refused` as the question has them."""
    return {
        "version": 1,
        "found": [
            {
                "kind": one.kind, "id": one.id, "name": one.name, "place": one.place, "pool": one.pool,
                "created_at": stamp(one.created_at),
                "monthly": None if one.hourly is None else round(float(one.hourly * HOURS), 2),
                "removed": one.id in removed and not removed[one.id], "why_not": removed.get(one.id) or None,
            }
            for one in found
        ],
        "silent": [{"place": place, "why": why} for place, why in sorted(silent.items())],
        "refused": [
            {"place": place, "kind": kind, "why": why}
            for place, kinds in sorted(refused.items()) for kind, why in sorted(kinds.items())
        ],
    }  # fmt: skip


def _against(difference: Difference) -> dict[str, Any]:
    return {
        "commit": difference.commit,
        "behind": difference.behind,
        "change": [_action(row) for row in difference.change],
        "anyway": [_action(row) for row in difference.anyway],
        "averted": [_action(row) for row in difference.averted],
        "unmet": [_unmet(one) for one in difference.unmet],
        "hourly_after": _number(difference.hourly),
    }


def runs_json(rows: Sequence[RunRow]) -> list[dict[str, Any]]:
    """The list that `dstack ps --json` prints."""
    return [_run(row) for row in rows]


def instances_json(rows: Sequence[InstanceRow]) -> list[dict[str, Any]]:
    """The list that `dstack pool ps --json` prints."""
    return [_instance(row) for row in rows]


def _action(row: PlanRow) -> dict[str, Any]:
    return {
        "kind": row.kind,
        "symbol": row.symbol,
        "pool": row.pool,
        "instance": row.instance,
        "run": row.run,
        "backend": row.backend,
        "region": row.region,
        "instance_type": row.instance_type,
        "price": _number(row.price),
        "why": row.why,
    }


def _run(row: RunRow) -> dict[str, Any]:
    run = row.run
    return {
        "name": run.spec.name,
        "type": run.spec.type,
        "pool": run.spec.pool,
        "user": run.user,
        "status": row.status,
        "reason": row.said,
        "exit_code": row.exit_code,
        "attempt": row.attempt,
        "nodes": run.spec.nodes,
        "instances": [one.name for one in row.instances],
        "addresses": list(row.addresses),
        "submitted_at": stamp(run.submitted_at),
        "started_at": stamp(run.started_at),
        "finished_at": stamp(run.finished_at),
        "observed_at": stamp(row.observed_at),
    }


def _instance(row: InstanceRow) -> dict[str, Any]:
    one = row.instance
    return {
        "name": one.name,
        "pool": one.pool,
        "backend": one.backend,
        "region": one.region,
        "instance_type": one.instance_type,
        "resources": resources(one.resources),
        "spot": one.spot,
        "price": _number(one.price),
        "at_most": one.at_most,
        "status": row.status,
        "reason": row.reason,
        "pool_closed": row.pool_closed or None,
        "unreachable": unreachable(one),
        "observed_at": stamp(row.observed_at),
        "next_look_at": stamp(row.next_look_at),
        "created_at": stamp(one.created_at or None),
        "idle_since": stamp(row.idle_since),
        "reap_at": stamp(row.reap_at),
        "self_destruct_at": stamp(timer_of(one)),
        "runs": list(row.runs),
        "blocks": row.blocks[1],
        "blocks_used": row.blocks[0],
    }


def _number(price: Price | None) -> float | None:
    return None if price is None else float(Decimal(price))
