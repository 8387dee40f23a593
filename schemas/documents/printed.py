"""The JSON that `plan`, `ps`, `pool ps`, `cost` and `events` print, stable from version 1 on: schemas by hand.

Times are ISO 8601 in UTC, prices are dollars an hour.
"""

from __future__ import annotations

from schemas.documents.shape import Schema
from schemas.leftover import ORDER

_TEXT: Schema = {"type": "string"}
_MAYBE: Schema = {"type": ["string", "null"]}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_PRICE: Schema = {"type": ["number", "null"], "minimum": 0}
_TIME: Schema = {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$"}
_MAYBE_TIME: Schema = {"anyOf": [_TIME, {"type": "null"}]}
_TEXTS: Schema = {"type": "array", "items": _TEXT}

KINDS = ("launch", "attach", "assign", "stop", "terminate", "detach", "update")
RUN_STATUSES = ("submitted", "provisioning", "running", "terminating", "done", "failed", "terminated", "aborted")
INSTANCE_STATUSES = ("pending", "provisioning", "idle", "busy", "holding", "terminating", "terminated")

EVENTS = (
    "applied",
    "launched",
    "seen",
    "ready",
    "ended",
    "lost",
    "submitted",
    "started",
    "finished",
    "billed",
    "used",
    "drained",
    "paused",
    "resumed",
    "draining",
    "kept",
    "quarantined",
    "trusted",
    "returned",
    "disarmed",
    "armed",
)


def plan() -> Schema:
    action = _record(
        {
            "kind": {"enum": list(KINDS)},
            "symbol": {"enum": ["+", "~", "-", "→"]},
            "pool": _MAYBE,
            "instance": _MAYBE,
            "run": _MAYBE,
            "backend": _MAYBE,
            "region": _MAYBE,
            "instance_type": _MAYBE,
            "price": _PRICE,
            "why": _TEXT,
        }
    )
    actions: Schema = {"type": "array", "items": action}
    unmet: Schema = {"type": "array", "items": _record({"subject": _TEXT, "why": _TEXT})}
    against = _record(
        {
            "commit": _TEXT,
            "change": actions,
            "anyway": actions,
            "averted": actions,
            "unmet": unmet,
            "hourly_after": {"type": "number", "minimum": 0},
        }
    )
    return _record(
        {
            "version": {"const": 1},
            "project": _TEXT,
            "generation": _COUNT,
            "observed_at": _MAYBE_TIME,
            "actions": actions,
            "unmet": unmet,
            "timers": {"type": "array", "items": _record({"instance": _TEXT, "self_destruct_at": _TIME})},
            "warnings": _TEXTS,
            "cost": _record(
                {"hourly_before": {"type": "number", "minimum": 0}, "hourly_after": {"type": "number", "minimum": 0}}
            ),
            "against": {"anyOf": [against, {"type": "null"}]},
            "gates": {"type": "array", "items": _record({"gate": _TEXT, "failed": {"type": "boolean"}, "why": _TEXT})},
        }
    )


def ps() -> Schema:
    return {
        "type": "array",
        "items": _record(
            {
                "name": _TEXT,
                "type": {"enum": ["task", "service", "dev-environment"]},
                "pool": _TEXT,
                "user": _TEXT,
                "status": {"enum": list(RUN_STATUSES)},
                "reason": _MAYBE,
                "exit_code": {"type": ["integer", "null"]},
                "attempt": _COUNT,
                "nodes": _COUNT,
                "instances": _TEXTS,
                "submitted_at": _TIME,
                "started_at": _MAYBE_TIME,
                "finished_at": _MAYBE_TIME,
            }
        ),
    }


def pool_ps() -> Schema:
    return {
        "type": "array",
        "items": _record(
            {
                "name": _TEXT,
                "pool": _TEXT,
                "backend": _TEXT,
                "region": _MAYBE,
                "instance_type": _MAYBE,
                "resources": _TEXT,
                "spot": {"type": "boolean"},
                "price": _PRICE,
                "at_most": {"type": "boolean"},
                "status": {"enum": list(INSTANCE_STATUSES)},
                "reason": _MAYBE,
                "unreachable": {"type": "boolean"},
                "observed_at": _MAYBE_TIME,
                "next_look_at": _MAYBE_TIME,
                "created_at": _MAYBE_TIME,
                "idle_since": _MAYBE_TIME,
                "reap_at": _MAYBE_TIME,
                "self_destruct_at": _MAYBE_TIME,
                "runs": _TEXTS,
                "blocks": _COUNT,
                "blocks_used": _COUNT,
            }
        ),
    }


def offers() -> Schema:
    size: Schema = {"type": "integer", "minimum": 1}
    gpu = _record({"name": _TEXT, "count": size, "memory_mib": size})
    offer = _record(
        {
            "backend": _TEXT,
            "region": _TEXT,
            "zone": _MAYBE,
            "instance_type": _TEXT,
            "resources": _TEXT,
            "cpus": _COUNT,
            "cpu_arch": _TEXT,
            "memory_mib": _COUNT,
            "gpu": {"anyOf": [gpu, {"type": "null"}]},
            "spot": {"type": "boolean"},
            "price": _PRICE,
            "at_most": {"type": "boolean"},
            "source": _MAYBE,
            "priced_at": _MAYBE_TIME,
            "availability": _MAYBE,
            "blocks": size,
            "of_blocks": size,
        }
    )
    group = _record(
        {
            "by": {"enum": ["gpu", "region", "backend"]},
            "name": _TEXT,
            "offers": size,
            "regions": _TEXTS,
            "cheapest": offer,
        }
    )
    return _record(
        {
            "version": {"const": 1},
            "total": _COUNT,
            "funnel": _TEXT,
            "warnings": _TEXTS,
            "offers": {"type": "array", "items": offer},
            "groups": {"type": "array", "items": group},
        }
    )


def gc() -> Schema:
    thing = _record(
        {
            "kind": {"enum": list(ORDER)},
            "id": _TEXT,
            "name": _TEXT,
            "place": _TEXT,
            "pool": _TEXT,
            "created_at": _MAYBE_TIME,
            "monthly": _PRICE,
            "removed": {"type": "boolean"},
            "why_not": _MAYBE,
        }
    )
    return _record(
        {
            "version": {"const": 1},
            "found": {"type": "array", "items": thing},
            "silent": {"type": "array", "items": _record({"place": _TEXT, "why": _TEXT})},
        }
    )


def cost() -> Schema:
    amount: Schema = {"type": "number", "minimum": 0}
    row = _record(
        {
            "name": _TEXT,
            "id": _TEXT,
            "kind": {"enum": ["", "idle", "boot", "none"]},
            "instances": _COUNT,
            "hours": amount,
            "boot_hours": amount,
            "idle_hours": amount,
            "idle_share": {"type": "number", "minimum": 0, "maximum": 1},
            "cost": amount,
            "idle_cost": amount,
            "unpriced_hours": amount,
        }
    )
    return _record(
        {
            "version": {"const": 1},
            "project": _TEXT,
            "since": _TIME,
            "until": _TIME,
            "by": {"enum": ["pool", "user", "run", "backend", "tag"]},
            "rows": {"type": "array", "items": row},
            "total": row,
            "alive": _COUNT,
        }
    )


def events() -> Schema:
    return {
        "type": "array",
        "items": _record(
            {
                "id": _TEXT,
                "at": _TIME,
                "kind": {"enum": list(EVENTS)},
                "subject": _TEXT,
                "name": _TEXT,
                "pool": _TEXT,
                "run": _TEXT,
                "user": _TEXT,
                "place": _TEXT,
                "instance": _TEXT,
                "instance_type": _TEXT,
                "spot": {"type": "boolean"},
                "price": _PRICE,
                "seconds": _COUNT,
                "tags": {"type": "object", "additionalProperties": _TEXT},
                "by": _TEXT,
                "why": _TEXT,
            }
        ),
    }


def autoscale() -> Schema:
    rule = _record(
        {
            "backend": _MAYBE,
            "region": _MAYBE,
            "instance_type": _TEXT,
            "cpus": {"type": ["integer", "null"]},
            "memory_mib": {"type": ["integer", "null"]},
            "gpus": _COUNT,
            "gpu": _MAYBE,
            "purchase": {"enum": ["spot", "on-demand"]},
            "maximum": _COUNT,
            "used": _COUNT,
            "status": _TEXT,
            "since": _MAYBE_TIME,
            "why": _TEXT,
        }
    )
    return _record(
        {
            "version": {"const": 1},
            "enabled": {"type": "boolean"},
            "ruled": {"type": "boolean"},
            "rules": {"type": "array", "items": rule},
        }
    )


def backend_list() -> Schema:
    row = _record(
        {
            "name": _TEXT,
            "type": _TEXT,
            "declared": {"type": "boolean"},
            "regions": _TEXTS,
            "identities": _TEXTS,
            "instances": _COUNT,
            "hourly": {"type": "number", "minimum": 0},
            "errors": _TEXTS,
        }
    )
    return _record({"version": {"const": 1}, "backends": {"type": "array", "items": row}})


def backend_check() -> Schema:
    check = _record(
        {
            "backend": _TEXT,
            "check": _TEXT,
            "status": {"enum": ["ok", "failed", "not known"]},
            "seconds": {"type": "number", "minimum": 0},
            "said": _TEXT,
            "next": _TEXT,
        }
    )
    return _record({"version": {"const": 1}, "checks": {"type": "array", "items": check}})


def aws_configure() -> Schema:
    return _record(
        {
            "version": {"const": 1},
            "backend": _TEXT,
            "account": _TEXT,
            "arn": _TEXT,
            "profile": _TEXT,
            "region": _TEXT,
            "bucket": _MAYBE,
            "credentials_file": _MAYBE,
            "files": _TEXTS,
        }
    )


def _record(properties: Schema) -> Schema:
    """Every key is always there; new keys may come."""
    return {"type": "object", "properties": properties, "required": list(properties)}
