"""The JSON that `plan` prints, stable from version 1 on: its schema by hand."""

from __future__ import annotations

from typing import get_args

from schemas.configuration import ChangeKind
from schemas.documents.printed_parts import COUNT, FLAG, MAYBE, MAYBE_TIME, PRICE, TEXT, TEXTS, TIME, record
from schemas.documents.shape import Schema

KINDS = ("launch", "attach", "assign", "stop", "terminate", "detach", "remove", "update")


def _change() -> Schema:
    return record(
        {
            "kind": {"enum": list(get_args(ChangeKind))},
            "name": TEXT,
            "op": {"enum": ["create", "change", "remove"]},
            "key": TEXT,
            "old": MAYBE,
            "new": MAYBE,
            "note": TEXT,
        }
    )


def _pool_cost() -> Schema:
    sums: Schema = {"type": "number", "minimum": 0}
    return record(
        {
            "pool": TEXT,
            "hourly_before": sums,
            "hourly_after": sums,
            "worst_case": PRICE,
            "at_most": FLAG,
            "unpriced": FLAG,
        }
    )


def _planned_run(changes: Schema) -> Schema:
    does: Schema = {"type": "array", "items": {"enum": ["new", "change", "start", "stop"]}}
    return record({"name": TEXT, "does": does, "instances": TEXTS, "changes": changes})


def plan() -> Schema:
    action = record(
        {
            "kind": {"enum": list(KINDS)},
            "symbol": {"enum": ["+", "~", "-", "→"]},
            "pool": MAYBE,
            "instance": MAYBE,
            "run": MAYBE,
            "backend": MAYBE,
            "region": MAYBE,
            "instance_type": MAYBE,
            "price": PRICE,
            "why": TEXT,
        }
    )
    actions: Schema = {"type": "array", "items": action}
    unmet: Schema = {"type": "array", "items": record({"subject": TEXT, "why": TEXT, "final": FLAG})}
    changes: Schema = {"type": "array", "items": _change()}
    against = _against(actions, unmet)
    return record(
        {
            "version": {"const": 1},
            "project": TEXT,
            "generation": COUNT,
            "observed_at": MAYBE_TIME,
            "configuration": changes,
            "confirmations": TEXTS,
            "actions": actions,
            "unmet": unmet,
            "lacking_here": unmet,
            "waits": {
                "type": "array",
                "items": record({"run": TEXT, "instances": TEXTS, "free_at": MAYBE_TIME, "saves": PRICE, "why": TEXT}),
            },
            "timers": {"type": "array", "items": record({"instance": TEXT, "self_destruct_at": TIME})},
            "warnings": TEXTS,
            "cost": record(
                {
                    "hourly_before": {"type": "number", "minimum": 0},
                    "hourly_after": {"type": "number", "minimum": 0},
                    "uncounted": TEXTS,
                    "worst_case": PRICE,
                    "unlimited": TEXTS,
                    "per_pool": {"type": "array", "items": _pool_cost()},
                }
            ),
            "runs": {"type": "array", "items": _planned_run(changes)},
            "against": {"anyOf": [against, {"type": "null"}]},
            "gates": {"type": "array", "items": record({"gate": TEXT, "failed": {"type": "boolean"}, "why": TEXT})},
        }
    )


def _against(actions: Schema, unmet: Schema) -> Schema:
    return record(
        {
            "commit": TEXT,
            "behind": {"type": "integer", "minimum": 0},
            "change": actions,
            "anyway": actions,
            "averted": actions,
            "unmet": unmet,
            "hourly_after": {"type": "number", "minimum": 0},
        }
    )
