"""Parts that the schemas of printed JSON share."""

from __future__ import annotations

from schemas.documents.shape import Schema

TEXT: Schema = {"type": "string"}


MAYBE: Schema = {"type": ["string", "null"]}


COUNT: Schema = {"type": "integer", "minimum": 0}


PRICE: Schema = {"type": ["number", "null"], "minimum": 0}


TIME: Schema = {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$"}


MAYBE_TIME: Schema = {"anyOf": [TIME, {"type": "null"}]}


TEXTS: Schema = {"type": "array", "items": TEXT}


FLAG: Schema = {"type": "boolean"}


def record(properties: Schema) -> Schema:
    """Every key is always there; new keys may come."""
    return {"type": "object", "properties": properties, "required": list(properties)}
