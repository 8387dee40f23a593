"""The JSON that `plan`, `ps`, `pool ps`, `cost` and `events` print, stable from version 1 on: schemas by hand.

Times are ISO 8601 in UTC, prices are dollars an hour.
"""

from __future__ import annotations

from schemas.documents.printed_parts import COUNT, MAYBE, MAYBE_TIME, PRICE, TEXT, TEXTS, TIME, record
from schemas.documents.shape import Schema
from schemas.leftover import ORDER

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


def ps() -> Schema:
    return {
        "type": "array",
        "items": record(
            {
                "name": TEXT,
                "type": {"enum": ["task", "service", "dev-environment"]},
                "pool": TEXT,
                "user": TEXT,
                "status": {"enum": [*RUN_STATUSES, "restarting", "not ready", "being replaced"]},
                "reason": MAYBE,
                "exit_code": {"type": ["integer", "null"]},
                "attempt": COUNT,
                "nodes": COUNT,
                "instances": TEXTS,
                "addresses": TEXTS,
                "submitted_at": TIME,
                "started_at": MAYBE_TIME,
                "finished_at": MAYBE_TIME,
                "observed_at": MAYBE_TIME,
            }
        ),
    }


def pool_ps() -> Schema:
    return {
        "type": "array",
        "items": record(
            {
                "name": TEXT,
                "pool": TEXT,
                "backend": TEXT,
                "region": MAYBE,
                "instance_type": MAYBE,
                "resources": TEXT,
                "spot": {"type": "boolean"},
                "price": PRICE,
                "at_most": {"type": "boolean"},
                "status": {"enum": list(INSTANCE_STATUSES)},
                "reason": MAYBE,
                "pool_closed": MAYBE,
                "unreachable": {"type": "boolean"},
                "observed_at": MAYBE_TIME,
                "next_look_at": MAYBE_TIME,
                "created_at": MAYBE_TIME,
                "idle_since": MAYBE_TIME,
                "reap_at": MAYBE_TIME,
                "self_destruct_at": MAYBE_TIME,
                "runs": TEXTS,
                "blocks": COUNT,
                "blocks_used": COUNT,
            }
        ),
    }


def offers() -> Schema:
    size: Schema = {"type": "integer", "minimum": 1}
    gpu = record({"name": TEXT, "count": size, "memory_mib": size})
    offer = record(
        {
            "backend": TEXT,
            "region": TEXT,
            "zone": MAYBE,
            "instance_type": TEXT,
            "resources": TEXT,
            "cpus": COUNT,
            "cpu_arch": TEXT,
            "memory_mib": COUNT,
            "gpu": {"anyOf": [gpu, {"type": "null"}]},
            "spot": {"type": "boolean"},
            "price": PRICE,
            "at_most": {"type": "boolean"},
            "source": MAYBE,
            "priced_at": MAYBE_TIME,
            "availability": MAYBE,
            "blocks": size,
            "of_blocks": size,
        }
    )
    group = record(
        {
            "by": {"enum": ["gpu", "region", "backend"]},
            "name": TEXT,
            "offers": size,
            "regions": TEXTS,
            "cheapest": offer,
        }
    )
    return record(
        {
            "version": {"const": 1},
            "total": COUNT,
            "funnel": TEXT,
            "warnings": TEXTS,
            "offers": {"type": "array", "items": offer},
            "groups": {"type": "array", "items": group},
        }
    )


def gc() -> Schema:
    thing = record(
        {
            "kind": {"enum": list(ORDER)},
            "id": TEXT,
            "name": TEXT,
            "place": TEXT,
            "pool": TEXT,
            "created_at": MAYBE_TIME,
            "monthly": PRICE,
            "removed": {"type": "boolean"},
            "why_not": MAYBE,
        }
    )
    return record(
        {
            "version": {"const": 1},
            "found": {"type": "array", "items": thing},
            "silent": {"type": "array", "items": record({"place": TEXT, "why": TEXT})},
            "refused": {"type": "array", "items": record({"place": TEXT, "kind": TEXT, "why": TEXT})},
        }
    )


def cost() -> Schema:
    amount: Schema = {"type": "number", "minimum": 0}
    row = record(
        {
            "name": TEXT,
            "id": TEXT,
            "kind": {"enum": ["", "idle", "boot", "none"]},
            "instances": COUNT,
            "hours": amount,
            "boot_hours": amount,
            "idle_hours": amount,
            "idle_share": {"type": "number", "minimum": 0, "maximum": 1},
            "cost": amount,
            "idle_cost": amount,
            "unpriced_hours": amount,
        }
    )
    return record(
        {
            "version": {"const": 1},
            "project": TEXT,
            "since": TIME,
            "until": TIME,
            "by": {"enum": ["pool", "user", "run", "backend", "tag"]},
            "rows": {"type": "array", "items": row},
            "total": row,
            "alive": COUNT,
        }
    )


def events() -> Schema:
    return {
        "type": "array",
        "items": record(
            {
                "id": TEXT,
                "at": TIME,
                "kind": {"enum": list(EVENTS)},
                "subject": TEXT,
                "name": TEXT,
                "pool": TEXT,
                "run": TEXT,
                "user": TEXT,
                "place": TEXT,
                "instance": TEXT,
                "instance_type": TEXT,
                "spot": {"type": "boolean"},
                "price": PRICE,
                "seconds": COUNT,
                "tags": {"type": "object", "additionalProperties": TEXT},
                "by": TEXT,
                "why": TEXT,
            }
        ),
    }


def autoscale() -> Schema:
    rule = record(
        {
            "backend": MAYBE,
            "region": MAYBE,
            "instance_type": TEXT,
            "cpus": {"type": ["integer", "null"]},
            "memory_mib": {"type": ["integer", "null"]},
            "gpus": COUNT,
            "gpu": MAYBE,
            "purchase": {"enum": ["spot", "on-demand"]},
            "maximum": COUNT,
            "used": COUNT,
            "status": TEXT,
            "since": MAYBE_TIME,
            "why": TEXT,
        }
    )
    return record(
        {
            "version": {"const": 1},
            "enabled": {"type": "boolean"},
            "ruled": {"type": "boolean"},
            "rules": {"type": "array", "items": rule},
        }
    )
