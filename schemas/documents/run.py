"""Run configurations: `type: task`, `service` and `dev-environment`.

Everything that dstack 0.18 accepts is accepted; what has no effect here, or none yet, is
told when the documents are compiled.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from schemas.documents.env import Env
from schemas.documents.ports import port_schema, read_port, read_service_port, service_port_schema
from schemas.documents.profile import ProfileKeys
from schemas.documents.resources import Resources
from schemas.documents.scalars import TEXT_SCHEMA, Flag, Name, Names, Text, Texts, text, whole
from schemas.documents.shape import Form, Schema, Shape, Wrong, each, form, inlined, kind_of, one_of
from schemas.documents.span import COUNT_SPAN_SCHEMA, Duration, OffDuration, count_span
from schemas.documents.volumes import volume, volume_schema
from schemas.resources import Span

TYPES = ("task", "service", "dev-environment")


class RegistryAuthForm(Form):
    username: Text | None = None
    password: Text


class ProbeForm(Form):
    """How a service is watched: an HTTP path or a command."""

    path: Text | None = None
    command: Text | None = None
    interval: Duration | None = None
    timeout: Duration | None = None
    ready_after: Annotated[int, whole(1, 1000)] | None = None
    fail_after: Annotated[int, whole(1, 1000)] | None = None


def read_probe(value: Any) -> ProbeForm:
    if isinstance(value, str):
        value = {"path": value} if value.startswith("/") else {"command": value}
    asked = form(ProbeForm, value)
    if (asked.path is None) == (asked.command is None):
        raise Wrong("a probe has either a `path` or a `command`")
    return asked


def _probe_schema() -> Schema:
    return {
        "anyOf": [
            {"type": "string"},
            {
                **inlined(ProbeForm),
                "oneOf": [
                    {"required": [one], "properties": {one: {"type": ["string", "number", "boolean"]}}}
                    for one in ("path", "command")
                ],
            },
        ]
    }


class ScalingForm(Form):
    metric: Annotated[str, one_of("rps", what="a metric")]
    target: Annotated[Any, Shape(lambda value: _number(value), {"type": "number"})]
    scale_up_delay: Duration | None = None
    scale_down_delay: Duration | None = None


def _number(value: Any) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    raise Wrong(f"should be a number, not {kind_of(value)}")


class ModelForm(Form):
    """An endpoint's model, as dstack 0.18 has it; there is no gateway here."""

    type: Annotated[str, one_of("chat", what="a type of model")] | None = None
    name: Text
    format: Annotated[str, one_of("openai", "tgi", what="a model format")]
    chat_template: Text | None = None
    eos_token: Text | None = None
    prefix: Text | None = None


def _model(value: Any) -> Any:
    return form(ModelForm, value) if isinstance(value, dict) else text(value)


def read_python(value: Any) -> str:
    written = "3.10" if text(value) == "3.1" else text(value)
    versions = ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.14")
    if written not in versions:
        raise Wrong(f"Python `{written}` is not one of {', '.join(versions)}")
    return written


_PYTHON: Schema = {
    "anyOf": [
        {"enum": ["3.1", "3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.14"]},
        {"enum": [3.1, 3.8, 3.9, 3.11, 3.12, 3.13, 3.14]},
    ]
}


def _user(value: Any) -> str:
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise Wrong(f"{kind_of(value)} is not a user: `NAME`, `ID`, `NAME:GROUP` or `ID:GROUP`")
    parts = text(value).split(":")
    if len(parts) > 2 or not all(parts) or any(part.startswith("-") for part in parts):
        raise Wrong(f"`{text(value)}` is not a user: `NAME`, `ID`, `NAME:GROUP` or `ID:GROUP`")
    return text(value)


def _gateway(value: Any) -> str | bool:
    if value is True:
        raise Wrong("should be a gateway's name or false, not true")
    return value if value is False else text(value)


def inside(value: Any) -> str:
    """A path or glob of the project's folder, that does not leave it."""
    path = text(value)
    if not path or path.startswith(("/", "~")) or ".." in path.split("/"):
        raise Wrong(f"`{path}` leaves the project's folder" if path else "the path is empty")
    return path


_INSIDE: Schema = {"type": ["string", "number", "boolean"], "pattern": r"^(?![/~])(?!(?:.*/)?\.\.(?:/|$))[\s\S]+$"}
Paths = Annotated[tuple[str, ...], each(inside, _INSIDE)]


class RunForm(ProfileKeys):
    """What every type of run has."""

    name: Name | None = None
    profile: Text | None = None
    image: Text | None = None
    user: (
        Annotated[
            str,
            Shape(
                _user,
                {
                    "anyOf": [
                        {"type": "string", "pattern": "^[^:-][^:]*(:[^:-][^:]*)?$"},
                        {"type": "integer", "minimum": 0},
                    ]
                },
            ),
        ]
        | None
    ) = None
    privileged: Flag | None = None
    entrypoint: Text | None = None
    registry_auth: (
        Annotated[
            RegistryAuthForm, Shape(lambda value: form(RegistryAuthForm, value), lambda: inlined(RegistryAuthForm))
        ]
        | None
    ) = None
    python: Annotated[str, Shape(read_python, _PYTHON)] | None = None
    nvcc: Flag | None = None
    single_branch: Flag | None = None
    home_dir: Text | None = None
    env: Env | None = None
    setup: Texts | None = None
    working_dir: Text | None = None
    files: Paths | None = None
    resources: Resources | None = None
    volumes: Annotated[tuple[str, ...], each(volume, volume_schema)] | None = None
    needs_services: Names | None = None
    priority: Annotated[int, whole(0, 100)] | None = None
    artifacts: Paths | None = None
    artifacts_every: Duration | None = None
    restore: Annotated[Literal["artifacts", "none"], one_of("artifacts", "none", what="what is restored")] | None = None
    rerun: Annotated[int, whole(0)] | None = None
    hold: Duration | None = None
    formerly: Names | None = None
    stop_criteria: (
        Annotated[Literal["all-done", "master-done"], one_of("all-done", "master-done", what="a stop criterion")] | None
    ) = None


class PortsForm(RunForm):
    ports: Annotated[tuple[str, ...], each(read_port, port_schema)] | None = None


class TaskForm(PortsForm):
    """Commands that end."""

    type: Literal["task"]
    nodes: Annotated[int, whole(1, 10_000)] | None = None
    commands: Texts | None = None


class DevEnvironmentForm(PortsForm):
    """A machine to work on."""

    type: Literal["dev-environment"]
    ide: Annotated[str, one_of("vscode", "cursor", "windsurf", what="an IDE")]
    version: Text | None = None
    init: Texts | None = None
    inactivity_duration: OffDuration | None = None


def _replicas(value: Any) -> Span:
    span = count_span(value)
    if span.max is None:
        raise Wrong("the highest number of replicas is missing: such as `0..4`")
    return span


class ServiceForm(PortsForm):
    """Commands that stay."""

    type: Literal["service"]
    commands: Texts | None = None
    port: Annotated[str, Shape(read_service_port, service_port_schema)] | None = None
    replicas: Annotated[Span, Shape(_replicas, COUNT_SPAN_SCHEMA)] | None = None
    probe: Annotated[ProbeForm, Shape(read_probe, _probe_schema)] | None = None
    gateway: (
        Annotated[Any, Shape(_gateway, {"anyOf": [TEXT_SCHEMA, {"enum": [False]}], "not": {"enum": [True]}})] | None
    ) = None
    strip_prefix: Flag | None = None
    model: Annotated[Any, Shape(_model, lambda: {"anyOf": [TEXT_SCHEMA, inlined(ModelForm)]})] | None = None
    https: Flag | None = None
    auth: Flag | None = None
    scaling: (
        Annotated[ScalingForm, Shape(lambda value: form(ScalingForm, value), lambda: inlined(ScalingForm))] | None
    ) = None


RUN_FORMS: dict[str, type[RunForm]] = {"task": TaskForm, "service": ServiceForm, "dev-environment": DevEnvironmentForm}
AnyRun = Annotated[TaskForm | ServiceForm | DevEnvironmentForm, Field(discriminator="type")]
