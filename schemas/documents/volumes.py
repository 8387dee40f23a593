"""Volumes of runs, as written in YAML."""

from __future__ import annotations

import re
from typing import Annotated, Any

from schemas.documents.scalars import Flag, text
from schemas.documents.shape import Form, Schema, Shape, Wrong, form, inlined, kind_of

UPWARD = "(?:^|/)\\.\\.(?:/|$)"
_ABSOLUTE = "/[^:]*"
_VOLUME_NAME: Schema = {"type": ["string", "number", "boolean"], "pattern": "^[^:/]*$"}
_PATH_SCHEMA: Schema = {"type": "string", "pattern": f"^{_ABSOLUTE}$", "not": {"pattern": UPWARD}}


def absolute(value: Any) -> str:
    path = text(value)
    if not re.fullmatch(_ABSOLUTE, path) or ".." in path.split("/"):
        raise Wrong(f"`{path}` should be an absolute path without `..`")
    return path


def _volume_names(value: Any) -> str:
    names = [text(item) for item in value] if isinstance(value, list | tuple) else [text(value)]
    if not all(re.fullmatch("[^:/]*", name) for name in names):
        raise Wrong(f"{kind_of(value)} does not name a volume")
    return ",".join(names)


Absolute = Annotated[str, Shape(absolute, _PATH_SCHEMA)]


class VolumeForm(Form):
    """A network volume."""

    name: Annotated[str, Shape(_volume_names, {"anyOf": [_VOLUME_NAME, {"type": "array", "items": _VOLUME_NAME}]})]
    path: Absolute


class InstancePathForm(Form):
    """A folder of the instance."""

    instance_path: Absolute
    path: Absolute
    optional: Flag | None = None


def volume(value: Any) -> str:
    """`name:/path`, `/instance/path:/path` or the same as a mapping; as one text."""
    if isinstance(value, dict):
        if "instance_path" in value:
            folder = form(InstancePathForm, value)
            return f"{folder.instance_path}:{folder.path}"
        network = form(VolumeForm, value)
        return f"{network.name}:{network.path}"
    if not isinstance(value, str) or value.count(":") != 1:
        raise Wrong(f"{kind_of(value)} is not a volume: `NAME:/path` or `/instance/path:/path`")
    source, _, path = value.partition(":")
    if "/" in source:
        absolute(source)
    return f"{source}:{absolute(path)}"


def volume_schema() -> Schema:
    text_schema = {
        "type": "string",
        "pattern": f"^(?:[^:/]*|{_ABSOLUTE}):{_ABSOLUTE}$",
        "not": {"pattern": "(?:^|[/:])\\.\\.(?:[/:]|$)"},
    }
    return {"anyOf": [text_schema, inlined(VolumeForm), inlined(InstancePathForm)]}
