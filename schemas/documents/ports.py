"""Ports of runs, as written in YAML."""

from __future__ import annotations

import re
from typing import Any

from schemas.documents.scalars import Port
from schemas.documents.shape import Form, Schema, Wrong, form, inlined, kind_of

_PORT = r"(?:[0-9]{1,5}|\*):[0-9]{1,5}"


class PortForm(Form):
    local_port: Port | None = None
    container_port: Port


def read_port(value: Any) -> str:
    """`8000`, `"80:8000"`, `"*:8000"` or `{local_port, container_port}`: as `LOCAL:PORT` or `PORT`."""
    if isinstance(value, dict):
        asked = form(PortForm, value)
        return f"{asked.local_port or '*'}:{asked.container_port}"
    if isinstance(value, str) and re.fullmatch(_PORT, value):
        for part in value.split(":"):
            if part != "*":
                _port_number(int(part))
        return value
    if isinstance(value, str) and re.fullmatch("[0-9]{1,5}", value):
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(_port_number(value))
    raise Wrong(f"{kind_of(value)} is not a port: such as `8000`, `80:8000`, `*:8000`")


def _port_number(number: int) -> int:
    if not 0 < number <= 65535:
        raise Wrong(f"{number} is not a port")
    return number


AUTO = "auto"


def read_service_port(value: Any) -> str:
    """A port, or `auto`: a free one of each host, which the service finds in `DSTACK_SERVICE_PORT`."""
    if value == AUTO:
        return AUTO
    try:
        return read_port(value)
    except Wrong as wrong:
        raise Wrong(f"{wrong}, or `{AUTO}`") from None


def service_port_schema() -> Schema:
    return {"anyOf": [{"enum": [AUTO]}, *port_schema()["anyOf"]]}


def port_schema() -> Schema:
    return {
        "anyOf": [
            {"type": "integer", "minimum": 1, "maximum": 65535},
            {"type": "string", "pattern": f"^(?:{_PORT}|[0-9]{{1,5}})$"},
            inlined(PortForm),
        ]
    }
