"""This machine as a backend."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from schemas.documents.backends.base import BackendForm
from schemas.documents.scalars import whole

DEFAULT_INSTANCES = 4


class LocalForm(BackendForm):
    """This machine: `instances` shares of it."""

    type: Literal["local"]
    instances: Annotated[int, whole(1, 1000)] | None = None

    def options(self) -> dict[str, Any]:
        return {"instances": DEFAULT_INSTANCES} | super().options()
