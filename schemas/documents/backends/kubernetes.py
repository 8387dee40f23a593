"""The backend `kubernetes`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from schemas.documents.backends.base import CloudForm, secret_keys
from schemas.documents.pool import CONNECT
from schemas.documents.scalars import HostName, Port, Text, Texts, price, text
from schemas.documents.shape import Form, Schema, Shape, Wrong, form, inlined, kind_of

_SECRETS = secret_keys("data")


class NetworkingForm(Form):
    ssh_host: HostName | None = None
    ssh_port: Port | None = None


def _kubeconfig(value: Any) -> Any:
    """A path, or dstack's `{filename: PATH}` and `{data: REFERENCE}`."""
    return _SECRETS.read(value) if isinstance(value, dict) else text(value)


def _tolerations(value: Any) -> list[dict[str, str]]:
    known = ("key", "operator", "value", "effect")
    if not isinstance(value, list) or not all(isinstance(one, dict) and set(one) <= set(known) for one in value):
        raise Wrong(f"should be a list of mappings with {', '.join(f'`{key}`' for key in known)}, not {kind_of(value)}")
    return [{str(key): text(item) for key, item in one.items()} for one in value]


def _prices(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise Wrong(f"should be a mapping such as {{cpu: 0.04, memory: 0.005, H100: 2.50}}, not {kind_of(value)}")
    return {str(key): str(price(item)) for key, item in value.items()}


def _connect(value: Any) -> dict[str, Any]:
    """`pod-ip` is what clouds call `direct`."""
    found: dict[str, Any] = CONNECT.read("direct" if value == "pod-ip" else value)
    return found


def _connect_schema() -> Schema:
    known = CONNECT.schema
    return {"anyOf": [{"const": "pod-ip"}, known() if callable(known) else known]}


_TOLERATION = {
    "type": "object",
    "properties": {key: {"type": ["string", "number", "boolean"]} for key in ("key", "operator", "value", "effect")},
    "additionalProperties": False,
}


class KubernetesForm(CloudForm):
    """`contexts`: a region each. `prices`: $/h of one CPU, one GB of memory, one GPU of a model."""

    type: Literal["kubernetes"]
    kubeconfig: Annotated[Any, Shape(_kubeconfig, {"anyOf": [{"type": "string"}, _SECRETS.schema]})] | None = None
    context: Text | None = None
    contexts: Texts | None = None
    namespace: Text | None = None
    service_account: Text | None = None
    image_pull_secrets: Texts | None = None
    tolerations: (
        Annotated[list[dict[str, str]], Shape(_tolerations, {"type": "array", "items": _TOLERATION})] | None
    ) = None
    prices: (
        Annotated[
            dict[str, str],
            Shape(_prices, {"type": "object", "additionalProperties": {"type": ["number", "string"]}}),
        ]
        | None
    ) = None
    connect: Annotated[dict[str, Any], Shape(_connect, _connect_schema)] | None = None
    networking: (
        Annotated[NetworkingForm, Shape(lambda value: form(NetworkingForm, value), lambda: inlined(NetworkingForm))]
        | None
    ) = None

    @property
    def places(self) -> tuple[str, ...]:
        """A region for each context."""
        return self.regions or tuple(dict.fromkeys([*(self.contexts or ()), *([self.context] if self.context else [])]))

    def options(self) -> dict[str, Any]:
        """A pod's address leads nowhere from outside of its cluster, so that `exec` is the usual way."""
        return {"connect": {"mode": "program", "name": "exec"}, **super().options()}
