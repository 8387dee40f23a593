"""The backend `gcp`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from schemas.documents.backends.base import CloudForm, TextMap, secret_keys
from schemas.documents.scalars import Flag, Text


class GcpForm(CloudForm):
    type: Literal["gcp"]
    project_id: Annotated[Text, Field(description="the id of your project in Google Cloud")]
    creds: Annotated[dict[str, str], secret_keys("data")] | None = None
    vpc_name: Text | None = None
    vpc_project_id: Text | None = None
    public_ips: Flag | None = None
    nat_check: Flag | None = None
    vm_service_account: Text | None = None
    tags: TextMap | None = None
