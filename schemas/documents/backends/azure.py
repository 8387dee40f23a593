"""The backend `azure`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from schemas.documents.backends.aws import Ingress
from schemas.documents.backends.base import CloudForm, TextMap, secret_keys
from schemas.documents.scalars import Flag, Text


class AzureForm(CloudForm):
    """`ingress`: who may come to port 22: `own` (who ticks, for a day), `none`, or ranges, `own` among them."""

    type: Literal["azure"]
    tenant_id: Annotated[Text, Field(description="the id of your Microsoft Entra tenant")]
    subscription_id: Annotated[Text, Field(description="the id of the Azure subscription that pays")]
    creds: Annotated[dict[str, str], secret_keys("client_id", "client_secret")] | None = None
    resource_group: Text | None = None
    vpc_ids: TextMap | None = None
    public_ips: Flag | None = None
    vm_managed_identity: Text | None = None
    tags: TextMap | None = None
    ingress: Ingress | None = None
    os_images: TextMap | None = None
