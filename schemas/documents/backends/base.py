"""`backends`: one schema for each type. The clouds' are in `cloud`, read only when one is declared."""

from __future__ import annotations

from typing import Annotated, Literal

from schemas.documents.scalars import Name, Texts, whole
from schemas.documents.shape import Form


class BackendForm(Form):
    """What every backend has."""

    name: Name | None = None
    regions: Texts | None = None


class LocalForm(BackendForm):
    """This machine: `instances` shares of it."""

    type: Literal["local"]
    instances: Annotated[int, whole(1, 1000)] | None = None


TYPES = (
    "local",
    "aws",
    "gcp",
    "azure",
    "kubernetes",
    "oci",
    "lambda",
    "runpod",
    "vastai",
    "tensordock",
    "cudo",
    "datacrunch",
    "nebius",
    "vultr",
)
OTHER_TYPES = ("dstack", "remote")
"""Types that older run configurations may name, which no project can declare."""


def backend_form(name: str) -> type[BackendForm] | None:
    """The form of a type, `None` for an unknown one."""
    if name == "local":
        return LocalForm
    if name not in TYPES:
        return None
    from schemas.documents.cloud import CLOUD_FORMS

    return CLOUD_FORMS[name]
