"""The backend `lambda`."""

from __future__ import annotations

from typing import Literal

from schemas.documents.backends.aws import Ingress
from schemas.documents.backends.base import ApiKeyForm


class LambdaForm(ApiKeyForm):
    """`ingress`: who may come to port 22: `own` (who ticks, for a day), `none`, or ranges, `own` among them."""

    type: Literal["lambda"]
    ingress: Ingress | None = None
