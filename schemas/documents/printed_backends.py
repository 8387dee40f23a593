"""JSON Schemas of what the backend commands print."""

from __future__ import annotations

from schemas.documents.printed_parts import COUNT, MAYBE, TEXT, TEXTS, record
from schemas.documents.shape import Schema


def backend_list() -> Schema:
    row = record(
        {
            "name": TEXT,
            "type": TEXT,
            "declared": {"type": "boolean"},
            "regions": TEXTS,
            "identities": TEXTS,
            "instances": COUNT,
            "hourly": {"type": "number", "minimum": 0},
            "unpriced": COUNT,
            "unseen": COUNT,
            "errors": TEXTS,
        }
    )
    return record({"version": {"const": 1}, "backends": {"type": "array", "items": row}})


def backend_check() -> Schema:
    check = record(
        {
            "backend": TEXT,
            "check": TEXT,
            "status": {"enum": ["ok", "failed", "not known"]},
            "seconds": {"type": "number", "minimum": 0},
            "said": TEXT,
            "next": TEXT,
        }
    )
    return record({"version": {"const": 1}, "checks": {"type": "array", "items": check}})


def aws_configure() -> Schema:
    return record(
        {
            "version": {"const": 1},
            "backend": TEXT,
            "account": TEXT,
            "arn": TEXT,
            "profile": TEXT,
            "region": TEXT,
            "bucket": MAYBE,
            "credentials_file": MAYBE,
            "files": TEXTS,
        }
    )
