"""Objects in S3 or a compatible server, with the credentials of AWS's default chain."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from reconciler.store.objects.base import BucketAccess, ObjectsError, Version
from reconciler.store.objects.obstore import ObstoreObjects, client_options
from schemas.location import Bucket

if TYPE_CHECKING:
    from obstore.store import RetryConfig, S3Store

Answer = TypeVar("Answer")
KEYS = {
    "AWS_ACCESS_KEY_ID": "access_key_id", "AWS_SECRET_ACCESS_KEY": "secret_access_key", "AWS_SESSION_TOKEN": "token",
}  # fmt: skip


def s3_objects(where: Bucket, *, environ: Mapping[str, str], access: BucketAccess | None = None) -> S3Objects:
    """Objects of a bucket of S3, or of a server that speaks like it (`AWS_ENDPOINT_URL`, or the endpoint of `access`).

    `access`: credentials of a backend; without it those of AWS's default chain.
    """
    from obstore.store import S3Store

    own = access.endpoint if access else ""
    endpoint = own or environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL") or ""
    region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or ""
    provider = _aws_chain(where, environ, access)
    config: dict[str, Any] = {"region": region or (provider.config.get("region") if provider else "") or "us-east-1"}
    if provider is None:
        config |= {name: environ[said] for said, name in KEYS.items() if environ.get(said)}
    if endpoint:
        config |= {"endpoint": endpoint, "virtual_hosted_style_request": False}

    def opened(retries: RetryConfig) -> S3Store:
        return S3Store(
            where.bucket,
            prefix=where.prefix or None,
            config=config,  # type: ignore[arg-type]
            client_options=client_options(http=endpoint.startswith("http://")),
            retry_config=retries,
            credential_provider=provider,
        )

    server = endpoint or f"https://s3.{config['region']}.amazonaws.com"
    keys = partial(_keys, where, environ, access)
    return S3Objects(
        where,
        opened,
        endpoint=endpoint,
        server=server,
        region=str(config["region"]),
        keys=keys,
        session=partial(_session, access),
    )


def _session(access: BucketAccess | None) -> Any:
    """The backend's `boto3.Session`, or that of the default chain."""
    from boto3 import Session

    return access.session() if access else Session()


def _aws_chain(where: Bucket, environ: Mapping[str, str], access: BucketAccess | None) -> Any:
    """boto3's, which knows profiles, SSO and roles; it costs 100 ms that keys in the environment need not pay."""
    if (
        access is None
        and environ.get("AWS_ACCESS_KEY_ID")
        and environ.get("AWS_SECRET_ACCESS_KEY")
        and not environ.get("AWS_PROFILE")
    ):
        return None
    from botocore.exceptions import BotoCoreError
    from obstore.auth.boto3 import Boto3CredentialProvider

    try:
        return Boto3CredentialProvider(_session(access))
    except BotoCoreError as error:
        raise ObjectsError(f"{where.url}: {error}") from None
    except ValueError:
        raise ObjectsError(
            f"{where.url}: no AWS credentials here: set AWS_PROFILE (then `aws sso login` or `aws configure`), or "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give this machine a role"
        ) from None


def _keys(where: Bucket, environ: Mapping[str, str], access: BucketAccess | None) -> Any:
    """To sign with: botocore's credentials, as they are now."""
    from botocore.credentials import Credentials

    if _aws_chain(where, environ, access) is None:
        given = (environ.get(name) for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"))
        return Credentials(*given)
    found = _session(access).get_credentials()
    if found is None:
        raise ObjectsError(f"{where.url}: no AWS credentials here to sign with")
    return found.get_frozen_credentials()


class S3Objects(ObstoreObjects):
    """What S3 has and obstore does not: old versions, which boto3 lists for a rollback, and headers that are signed."""

    def __init__(
        self,
        where: Bucket,
        open: Callable[[RetryConfig], S3Store],
        *,
        endpoint: str,
        server: str,
        region: str,
        keys: Callable[[], Any],
        session: Callable[[], Any],
    ) -> None:
        super().__init__(where.url, open, server=server)
        self._where, self._endpoint, self._region, self._keys = where, endpoint, region, keys
        self._session = session

    def sign_put(self, key: str, *, seconds: int) -> tuple[str, dict[str, str]]:
        """See `Objects.sign_put`. The condition is part of what is signed: without it the request is refused."""
        from botocore.auth import S3SigV4QueryAuth
        from botocore.awsrequest import AWSRequest
        from botocore.exceptions import BotoCoreError

        url = f"{self._server.rstrip('/')}/{quote(f'{self._where.bucket}/{self._full(key)}')}"
        headers = {"If-None-Match": "*"}
        request = AWSRequest("PUT", url, headers=headers)
        try:
            S3SigV4QueryAuth(self._keys(), "s3", self._region, expires=seconds).add_auth(request)
        except BotoCoreError as error:
            raise ObjectsError(f"{self.url}: {error}") from None
        return str(request.url), headers

    def versions(self, key: str) -> list[Version]:
        pages = self._boto(lambda client: list(client.get_paginator("list_object_versions").paginate(
            Bucket=self._where.bucket, Prefix=self._full(key))))  # fmt: skip
        found = [
            Version(one["VersionId"], int(one["LastModified"].timestamp()))
            for page in pages
            for one in page.get("Versions", ())
            if one["Key"] == self._full(key) and one["VersionId"] != "null"
        ]
        return sorted(found, key=lambda one: one.at, reverse=True)

    def get_version(self, key: str, id: str) -> bytes:
        return self._boto(lambda client: bytes(client.get_object(
            Bucket=self._where.bucket, Key=self._full(key), VersionId=id)["Body"].read()))  # fmt: skip

    def _full(self, key: str) -> str:
        return f"{self._where.prefix}/{key}" if self._where.prefix else key

    def _boto(self, call: Callable[[Any], Answer]) -> Answer:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return call(self._session().client("s3", endpoint_url=self._endpoint or None))
        except ClientError as error:
            said = error.response.get("Error", {})
            raise ObjectsError(f"{self.url}: {said.get('Code', '')}: {said.get('Message', '')}") from None
        except BotoCoreError as error:
            raise ObjectsError(f"{self.url}: {error}") from None
