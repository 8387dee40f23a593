"""Objects in Azure Blob Storage, with the credentials of Azure's default chain."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from reconciler.store.objects.base import ObjectsError, Version
from reconciler.store.objects.obstore import ObstoreObjects, client_options
from schemas.location import Bucket

if TYPE_CHECKING:
    from obstore.store import AzureStore, RetryConfig

Answer = TypeVar("Answer")
KEYS = {
    "account_key": ("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ACCESS_KEY", "AZURE_STORAGE_MASTER_KEY"),
    "sas_key": ("AZURE_STORAGE_SAS_KEY", "AZURE_STORAGE_SAS_TOKEN"),
    "token": ("AZURE_STORAGE_TOKEN",),
}


def azure_objects(where: Bucket, *, environ: Mapping[str, str]) -> AzureObjects:
    """Objects of a container of Azure Blob. Keys, SAS, service principals, managed identities: from AZURE_*."""
    from obstore.store import AzureStore

    endpoint = environ.get("AZURE_STORAGE_ENDPOINT") or environ.get("AZURE_ENDPOINT") or ""
    given = {
        name: value
        for name, said in KEYS.items()
        if (value := next((environ[one] for one in said if environ.get(one)), ""))
    }
    config: dict[str, Any] = {"account_name": where.account, **given, **({"endpoint": endpoint} if endpoint else {})}

    def opened(retries: RetryConfig) -> AzureStore:
        return AzureStore(
            where.bucket,
            prefix=where.prefix or None,
            config=config,  # type: ignore[arg-type]
            client_options=client_options(http=endpoint.startswith("http://")),
            retry_config=retries,
            credential_provider=None if given else _azure_chain(),
        )

    server = endpoint or f"https://{where.account}.blob.core.windows.net"
    return AzureObjects(where, opened, server=server, given=given)


def _azure_chain() -> Any:
    """azure-identity's, which also knows `az login` and managed identities, where no key is in the environment."""
    from obstore.auth.azure import AzureCredentialProvider

    return AzureCredentialProvider()


class AzureObjects(ObstoreObjects):
    """What Azure has and obstore does not, by Azure's own client: old versions, and requests that only create."""

    def __init__(
        self, where: Bucket, open: Callable[[RetryConfig], AzureStore], *, server: str, given: Mapping[str, str]
    ) -> None:
        super().__init__(where.url, open, server=server)
        self._where, self._given = where, given

    def sign_put(self, key: str, *, seconds: int) -> tuple[str, dict[str, str]]:
        """See `Objects.sign_put`. The right to create is not that to write: what is there stays."""
        name = self._full(key)
        signed = self._called(lambda: self._sas(name, ends=datetime.now(UTC) + timedelta(seconds=seconds)))
        url = f"{self._server.rstrip('/')}/{quote(f'{self._where.bucket}/{name}')}?{signed}"
        return url, {"x-ms-blob-type": "BlockBlob"}

    def versions(self, key: str) -> list[Version]:
        """See `Objects.versions`. Their ids are moments; the present one is among them."""
        name = self._full(key)
        listed = self._called(lambda: list(self._container().list_blobs(name_starts_with=name, include=["versions"])))
        found = [
            Version(str(one.version_id), int(one.last_modified.timestamp()))
            for one in listed
            if one.name == name and one.version_id
        ]
        return sorted(found, key=lambda one: one.id, reverse=True)

    def get_version(self, key: str, id: str) -> bytes:
        blob = self._container().get_blob_client(self._full(key))
        return self._called(lambda: bytes(blob.download_blob(version_id=id).readall()))

    def _sas(self, name: str, *, ends: datetime) -> str:
        from azure.storage.blob import BlobSasPermissions, generate_blob_sas

        if "sas_key" in self._given:
            raise ObjectsError(f"{self.url}: a SAS cannot sign a request")
        key: dict[str, Any] = {"account_key": self._given.get("account_key")}
        if not key["account_key"]:  # who is logged in signs with a key of the service's, for seven days at most
            key = {"user_delegation_key": self._service().get_user_delegation_key(datetime.now(UTC), ends)}
        where, may = self._where, BlobSasPermissions(create=True)
        return str(generate_blob_sas(where.account, where.bucket, name, permission=may, expiry=ends, **key))

    def _container(self) -> Any:
        return self._service().get_container_client(self._where.bucket)

    def _service(self) -> Any:
        from azure.storage.blob import BlobServiceClient

        given = self._given
        credential = given.get("account_key") or given.get("sas_key")
        if not credential:
            from azure.identity import DefaultAzureCredential

            credential = DefaultAzureCredential()
        return BlobServiceClient(self._server, credential=credential, connection_timeout=5, read_timeout=60)

    def _full(self, key: str) -> str:
        return f"{self._where.prefix}/{key}" if self._where.prefix else key

    def _called(self, call: Callable[[], Answer]) -> Answer:
        """What it gives; its errors in the service's own words, without the request."""
        from azure.core.exceptions import AzureError, HttpResponseError

        try:
            return call()
        except HttpResponseError as error:
            code = getattr(error, "error_code", None) or error.reason
            raise ObjectsError(f"{self.url}: {code or error.status_code}") from None
        except AzureError as error:
            raise ObjectsError(f"{self.url}: no answer ({type(error).__name__})") from None
