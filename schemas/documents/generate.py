"""The JSON Schemas of what people write and of what the program prints, as draft-07.

`python -m schemas.documents.generate` writes them to `schemas/json`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from schemas.documents import printed, printed_backends, printed_explain, printed_plan
from schemas.documents.backends.forms import TYPES, backend_form
from schemas.documents.pool import PoolForm
from schemas.documents.profile import ProfileForm
from schemas.documents.project import SingleKeys
from schemas.documents.run import RUN_FORMS
from schemas.documents.shape import Form, Schema, plain

DRAFT = "http://json-schema.org/draft-07/schema#"
FOLDER = Path(__file__).parents[1] / "json"


def schema(name: str) -> Schema:
    """The schema `name`, one of `NAMES`. Raises `KeyError`."""
    title, build = _BUILDERS[name]
    return {"$schema": DRAFT, "title": title, **build()}


def text(name: str) -> str:
    return json.dumps(schema(name), indent=1, ensure_ascii=False, sort_keys=False) + "\n"


def file_of(name: str) -> Path:
    return FOLDER / f"{name}.schema.json"


def form_schema(model: type[Form]) -> Schema:
    """A form as written in YAML: `null` is the same as absent, but for what is required."""
    described: Schema = plain(model.model_json_schema())
    described["description"] = " ".join((model.__doc__ or "").split())
    return described


def _entry(model: type[Form]) -> Schema:
    return form_schema(model)


def _backend(name: str) -> Schema:
    model = backend_form(name)
    if model is None:
        raise KeyError(name)
    return _entry(model)


def _backends() -> Schema:
    return _by_type({name: _backend(name) for name in TYPES})


def _runs() -> Schema:
    return _by_type({name: _run(model) for name, model in RUN_FORMS.items()})


def _run(model: type[Form]) -> Schema:
    described = _entry(model)
    if "commands" in described["properties"]:
        # The loader says it in one sentence (`run_faults`); editors need it here.
        something = {"required": ["commands"], "properties": {"commands": {"type": "array", "minItems": 1}}}
        image = {"required": ["image"], "properties": {"image": {"type": ["string", "number", "boolean"]}}}
        described["anyOf"] = [something, image]
    said = {"not": {"type": "null"}}
    described["not"] = {"required": ["python", "image"], "properties": {"python": said, "image": said}}
    return described


def _by_type(schemas: dict[str, Schema]) -> Schema:
    """One of the schemas, chosen by `type`: so that an editor tells what is wrong with that one."""
    return {
        "type": "object",
        "required": ["type"],
        "properties": {"type": {"enum": list(schemas)}},
        "allOf": [
            {"if": {"properties": {"type": {"const": name}}, "required": ["type"]}, "then": each}
            for name, each in schemas.items()
        ],
    }


def _listed(items: Schema) -> Schema:
    return {"anyOf": [{"type": "array", "items": items}, {"type": "null"}]}


def _document() -> Schema:
    described = form_schema(SingleKeys)
    described["properties"] |= {
        "backends": _listed({"$ref": "#/definitions/backend"}),
        "pools": _listed({"$ref": "#/definitions/pool"}),
        "profiles": _listed({"$ref": "#/definitions/profile"}),
        "runs": _listed(
            {"allOf": [{"$ref": "#/definitions/run"}], "required": ["name"], "properties": {"name": {"type": "string"}}}
        ),
    }
    described["description"] = "A file of .dstack: any of these keys, in any file."
    described["type"] = ["object", "null"]
    described["definitions"] = {
        "backend": _backends(),
        "pool": _entry(PoolForm),
        "profile": _entry(ProfileForm),
        "run": _runs(),
    }
    return described


def _profiles() -> Schema:
    return {"type": "object", "properties": {"profiles": _listed(_entry(ProfileForm))}, "additionalProperties": False}


_Builder = Callable[[], Schema]


def _of_backend(name: str) -> _Builder:
    return lambda: _backend(name)


_BUILDERS: dict[str, tuple[str, _Builder]] = {
    "documents": ("A document of .dstack", _document),
    "run": ("A run configuration", _runs),
    "pool": ("A pool", lambda: _entry(PoolForm)),
    "profiles": ("profiles.yml", _profiles),
    "backends": ("An entry of backends", _backends),
    **{f"backend-{name}": (f"The backend {name}", _of_backend(name)) for name in TYPES},
    "plan-json": ("dstack plan --json", printed_plan.plan),
    "explain-json": ("dstack explain --json", printed_explain.explain),
    "ps-json": ("dstack ps --json", printed.ps),
    "pool-ps-json": ("dstack pool ps --json", printed.pool_ps),
    "offers-json": ("dstack offers --json", printed.offers),
    "gc-json": ("dstack gc --json", printed.gc),
    "cost-json": ("dstack cost --json", printed.cost),
    "events-json": ("dstack events --json", printed.events),
    "autoscale-json": ("dstack autoscale info --json", printed.autoscale),
    "backend-list-json": ("dstack backend list --json", printed_backends.backend_list),
    "backend-check-json": ("dstack backend check --json", printed_backends.backend_check),
    "aws-configure-json": ("dstack aws configure --json", printed_backends.aws_configure),
}
NAMES = tuple(_BUILDERS)


def write(folder: Path = FOLDER) -> list[Path]:
    """Write every schema; the files written."""
    written: list[Any] = []
    for name in NAMES:
        file = folder / file_of(name).name
        file.write_text(text(name), encoding="utf-8")
        written.append(file)
    return written


if __name__ == "__main__":
    write()
