"""The cloud backends. A credential is a reference, never a value."""

from __future__ import annotations

import re
from ipaddress import ip_network
from typing import Annotated, Any, Literal

from schemas.documents.backends.base import BackendForm
from schemas.documents.pool import CONNECT
from schemas.documents.profile import TAGS, tags
from schemas.documents.scalars import Flag, Port, Text, Texts, text
from schemas.documents.shape import KEY, Form, Shape, Wrong, form, inlined, kind_of, unknown_key

REFERENCE = r"\$\{\{ *(?:env|secrets)\.[A-Za-z_][A-Za-z0-9_]* *\}\}"


def credential(value: Any) -> str:
    """`${{ secrets.NAME }}` or `${{ env.NAME }}` only: documents are committed."""
    if isinstance(value, str) and re.fullmatch(REFERENCE, value.strip()):
        return value.strip()
    raise Wrong("a credential is not written in the documents: use `${{ secrets.NAME }}` or `${{ env.NAME }}`")


Credential = Annotated[str, Shape(credential, {"type": "string", "pattern": f"^ *{REFERENCE} *$"})]


def secret_keys(*keys: str) -> Shape:
    """`creds` with these secret keys; `type` says how; `profile` and `filename` are no secrets."""

    def read(value: Any) -> dict[str, str]:
        if not isinstance(value, dict):
            raise Wrong(f"should be a mapping, not {kind_of(value)}")
        found: list[tuple[tuple[str | int, ...], str]] = []
        given: dict[str, str] = {}
        for key, item in value.items():
            try:
                given[key] = _cred(key, item, keys)
            except Wrong as wrong:
                found += [((key, *path), message) for path, message in wrong.found]
        if found:
            raise Wrong("", found=found)
        return given

    plain_keys = {key: {"type": ["string", "number", "boolean"]} for key in _PLAIN}
    secrets = {key: {"type": "string", "pattern": f"^ *{REFERENCE} *$"} for key in keys}
    return Shape(read, {"type": "object", "properties": {**plain_keys, **secrets}, "additionalProperties": False})


_PLAIN = ("type", "profile", "filename", "role_arn", "external_id")


def _cred(key: str, item: Any, keys: tuple[str, ...]) -> str:
    if key in _PLAIN:
        return text(item)
    if key in keys:
        return credential(item)
    raise Wrong(unknown_key(key, (*_PLAIN, *keys)), KEY)


def _text_map(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise Wrong(f"should be a mapping of texts, not {kind_of(value)}")
    return {str(key): str(item) for key, item in value.items()}


TextMap = Annotated[dict[str, str], Shape(_text_map, {"type": "object", "additionalProperties": {"type": "string"}})]


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


class AwsForm(BackendForm):
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


class GcpForm(BackendForm):
    type: Literal["gcp"]
    project_id: Text
    creds: Annotated[dict[str, str], secret_keys("data")] | None = None
    vpc_name: Text | None = None
    vpc_project_id: Text | None = None
    public_ips: Flag | None = None
    nat_check: Flag | None = None
    vm_service_account: Text | None = None
    tags: TextMap | None = None


class AzureForm(BackendForm):
    type: Literal["azure"]
    tenant_id: Text
    subscription_id: Text
    creds: Annotated[dict[str, str], secret_keys("client_id", "client_secret")] | None = None
    resource_group: Text | None = None
    vpc_ids: TextMap | None = None
    public_ips: Flag | None = None
    vm_managed_identity: Text | None = None
    tags: TextMap | None = None


class NetworkingForm(Form):
    ssh_host: Text | None = None
    ssh_port: Port | None = None


class KubernetesForm(BackendForm):
    type: Literal["kubernetes"]
    kubeconfig: Annotated[dict[str, str], secret_keys("data")] | None = None
    context: Text | None = None
    namespace: Text | None = None
    networking: (
        Annotated[NetworkingForm, Shape(lambda value: form(NetworkingForm, value), lambda: inlined(NetworkingForm))]
        | None
    ) = None


_OCI = secret_keys("user", "tenancy", "key_content", "pass_phrase", "fingerprint", "region")


class OciForm(BackendForm):
    type: Literal["oci"]
    creds: Annotated[dict[str, str], _OCI] | None = None
    compartment_id: Text | None = None


class ApiKeyForm(BackendForm):
    """A cloud that one API key opens."""

    creds: Annotated[dict[str, str], secret_keys("api_key", "api_token", "client_id", "client_secret")] | None = None


class LambdaForm(ApiKeyForm):
    type: Literal["lambda"]


class RunpodForm(ApiKeyForm):
    type: Literal["runpod"]
    community_cloud: Flag | None = None


class VastaiForm(ApiKeyForm):
    type: Literal["vastai"]


class TensordockForm(ApiKeyForm):
    type: Literal["tensordock"]


class CudoForm(ApiKeyForm):
    type: Literal["cudo"]
    project_id: Text | None = None


class DatacrunchForm(ApiKeyForm):
    type: Literal["datacrunch"]


class NebiusForm(ApiKeyForm):
    type: Literal["nebius"]


class VultrForm(ApiKeyForm):
    type: Literal["vultr"]


CLOUD_FORMS: dict[str, type[BackendForm]] = {
    "aws": AwsForm,
    "gcp": GcpForm,
    "azure": AzureForm,
    "kubernetes": KubernetesForm,
    "oci": OciForm,
    "lambda": LambdaForm,
    "runpod": RunpodForm,
    "vastai": VastaiForm,
    "tensordock": TensordockForm,
    "cudo": CudoForm,
    "datacrunch": DatacrunchForm,
    "nebius": NebiusForm,
    "vultr": VultrForm,
}
