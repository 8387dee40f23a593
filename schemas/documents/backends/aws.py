"""The backend `aws`."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Annotated, Any, Literal

from schemas.documents.backends.base import CloudForm, TextMap, secret_keys
from schemas.documents.pool import CONNECT
from schemas.documents.profile import TAGS, tags
from schemas.documents.scalars import Flag, Text, Texts, text
from schemas.documents.shape import Shape, Wrong


def ranges(value: Any) -> tuple[str, ...] | str:
    """`own`, `none`, or ranges of addresses, `own` among them."""
    if value in ("own", "none"):
        return str(value)
    found: list[str] = []
    for index, item in enumerate(value if isinstance(value, list) else [value]):
        try:
            found.append("own" if item == "own" else str(ip_network(text(item), strict=False)))
        except ValueError:
            path = ((index,), f"`{text(item)}` is no address or range of addresses")
            raise (
                Wrong("", found=[path])
                if isinstance(value, list)
                else Wrong("should be `own`, `none`, or a list of ranges such as 203.0.113.0/24")
            ) from None
    return tuple(found)


Ingress = Annotated[
    tuple[str, ...] | str,
    Shape(
        ranges,
        {"anyOf": [{"enum": ["own", "none"]}, {"type": "array", "items": {"type": "string"}}, {"type": "string"}]},
    ),
]


class AwsForm(CloudForm):
    """`ingress`: who may come to port 22: `own` (who ticks, for a day), `none`, or ranges, `own` among them."""

    type: Literal["aws"]
    creds: Annotated[dict[str, str], secret_keys("access_key", "secret_key", "session_token")] | None = None
    vpc_name: Text | None = None
    vpc_ids: TextMap | None = None
    default_vpcs: Flag | None = None
    public_ips: Flag | None = None
    subnets: Texts | None = None
    zones: Texts | None = None
    security_group: Text | None = None
    ingress: Ingress | None = None
    kms_key: Text | None = None
    iam_instance_profile: Text | None = None
    tags: Annotated[dict[str, str], Shape(lambda value: dict(tags(value)), TAGS.schema)] | None = None
    os_images: TextMap | None = None
    connect: Annotated[dict[str, Any], CONNECT] | None = None
