"""The JSON that `explain` prints, stable from version 1 on: its schema by hand."""

from __future__ import annotations

from schemas.documents.printed_parts import COUNT, FLAG, MAYBE, MAYBE_TIME, PRICE, TEXT, TEXTS, record
from schemas.documents.shape import Schema


def explain() -> Schema:
    """One of `run`, `instance`, `pool` and `offer`, as `kind` says."""
    kinds = {"run": _run(), "instance": _instance(), "pool": _pool(), "offer": _offer()}
    return {
        "oneOf": [
            record({"version": {"const": 1}, "kind": {"const": kind}, kind: schema}) for kind, schema in kinds.items()
        ]
    }


def _run() -> Schema:
    why = {**_priced(), "why": MAYBE}
    group = record({"count": COUNT, "conditions": _conditions(), "cheapest": record(_priced())})
    return record(
        {
            "name": TEXT,
            "status": TEXT,
            "reason": TEXT,
            "pool": TEXT,
            "refused": MAYBE,
            "instances": {"type": "array", "items": record({"name": TEXT, "fits": FLAG, "why": TEXTS})},
            "offers": COUNT,
            "fitting": {"type": "array", "items": record(why)},
            "groups": {"type": "array", "items": group},
            "relaxations": {"type": "array", "items": record({"condition": _condition(), "offer": record(_priced())})},
        }
    )


def _instance() -> Schema:
    ending = record({"what": TEXT, "at": MAYBE_TIME, "source": MAYBE, "key": MAYBE, "where": MAYBE})
    endings: Schema = {"type": "array", "items": ending}
    return record(
        {
            "name": TEXT,
            "pool": TEXT,
            "status": TEXT,
            "made_for": TEXT,
            "price": TEXT,
            "runs": TEXTS,
            "keeps": endings,
            "ends": endings,
        }
    )


def _pool() -> Schema:
    setting = record({"key": TEXT, "value": MAYBE, "source": TEXT, "where": MAYBE, "reaches": TEXT})
    return record({"name": TEXT, "closed": MAYBE, "instances": TEXTS, "settings": {"type": "array", "items": setting}})


def _offer() -> Schema:
    pool = record({"pool": TEXT, "offer": record(_priced()), "conditions": _conditions(), "why": MAYBE})
    return record({"name": TEXT, "pools": {"type": "array", "items": pool}})


def _priced() -> Schema:
    return {
        "backend": TEXT,
        "region": TEXT,
        "instance_type": TEXT,
        "spot": FLAG,
        "price": PRICE,
        "at_most": FLAG,
    }


def _condition() -> Schema:
    return record({"kind": TEXT, "asked": TEXT, "has": TEXT, "of": MAYBE})


def _conditions() -> Schema:
    return {"type": "array", "items": _condition()}
