"""The backend `kubernetes`."""

from __future__ import annotations

from typing import Annotated, Literal

from schemas.documents.backends.base import CloudForm, secret_keys
from schemas.documents.scalars import HostName, Port, Text
from schemas.documents.shape import Form, Shape, form, inlined


class NetworkingForm(Form):
    ssh_host: HostName | None = None
    ssh_port: Port | None = None


class KubernetesForm(CloudForm):
    type: Literal["kubernetes"]
    kubeconfig: Annotated[dict[str, str], secret_keys("data")] | None = None
    context: Text | None = None
    namespace: Text | None = None
    networking: (
        Annotated[NetworkingForm, Shape(lambda value: form(NetworkingForm, value), lambda: inlined(NetworkingForm))]
        | None
    ) = None
