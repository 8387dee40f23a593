"""What the forms of backends share. A credential is a reference, never a value."""

from __future__ import annotations

import re
from typing import Annotated, Any
from urllib.parse import urlsplit

from schemas.documents.scalars import Name, Texts, text
from schemas.documents.shape import KEY, Form, Shape, Wrong, kind_of, unknown_key
from schemas.endpoint import leads_here

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


def endpoint(value: Any) -> str:
    """`https://HOST[:PORT]`, or `http://` to this machine: its scheme, host and port replace those of the vendor's."""
    said = text(value).strip().rstrip("/")
    try:
        parts = urlsplit(said)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise Wrong(f"{kind_of(value)} is no address, such as https://ec2.example.com") from None
    if parts.scheme not in ("https", "http") or not host or not re.fullmatch(r"[!-~]+", said):
        raise Wrong(f"{kind_of(value)} is no address, such as https://ec2.example.com")
    if parts.path or parts.query or parts.fragment or parts.username is not None:
        raise Wrong("should be a scheme, a host and a port alone: the paths are the vendor's")
    if parts.scheme == "http" and not leads_here(said):
        raise Wrong("should begin with https: credentials would travel unencrypted (http is for this machine alone)")
    return said


Endpoint = Annotated[str, Shape(endpoint, {"type": "string", "pattern": "^ *https?://[^/?#@ ]+/? *$"})]


ApiKey = Annotated[dict[str, str], secret_keys("api_key", "api_token", "client_id", "client_secret")]


class BackendForm(Form):
    """What every backend has."""

    name: Name | None = None
    regions: Texts | None = None

    @property
    def places(self) -> tuple[str, ...]:
        """Its regions, as far as the configuration names them."""
        return self.regions or ()

    def options(self) -> dict[str, Any]:
        """Every other key that is said, and what counts where one is not."""
        return {
            key: value for key, value in self.model_dump().items()
            if key not in ("name", "type", "regions") and value is not None
        }  # fmt: skip


class CloudForm(BackendForm):
    """A cloud or a cluster that this program can speak to, or will: at an address that can be chosen."""

    endpoint: Endpoint | None = None


class ApiKeyForm(CloudForm):
    """A cloud that one API key opens."""

    creds: ApiKey | None = None
