"""Objects in Azure Blob. Credentials as every Azure tool finds them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from reconciler.objects_obstore import ObstoreObjects, client_options
from schemas.location import Bucket

if TYPE_CHECKING:
    from obstore.store import AzureStore, RetryConfig


KEYS = {
    "account_key": ("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ACCESS_KEY", "AZURE_STORAGE_MASTER_KEY"),
    "sas_key": ("AZURE_STORAGE_SAS_KEY", "AZURE_STORAGE_SAS_TOKEN"),
    "token": ("AZURE_STORAGE_TOKEN",),
}


def azure_objects(where: Bucket, *, environ: Mapping[str, str]) -> ObstoreObjects:
    """Objects of a container of Azure Blob. Keys, SAS, service principals, managed identities: from AZURE_*."""
    from obstore.store import AzureStore

    endpoint = environ.get("AZURE_STORAGE_ENDPOINT") or environ.get("AZURE_ENDPOINT") or ""
    config: dict[str, Any] = {"account_name": where.account}
    for name, said in KEYS.items():
        if value := next((environ[one] for one in said if environ.get(one)), ""):
            config[name] = value
    if endpoint:
        config["endpoint"] = endpoint

    def opened(retries: RetryConfig) -> AzureStore:
        return AzureStore(
            where.bucket,
            prefix=where.prefix or None,
            config=config,  # type: ignore[arg-type]
            client_options=client_options(http=endpoint.startswith("http://")),
            retry_config=retries,
            credential_provider=_azure_chain(environ),
        )

    server = endpoint or f"https://{where.account}.blob.core.windows.net"
    return ObstoreObjects(where.url, opened, server=server, headers={"x-ms-blob-type": "BlockBlob"})


def _azure_chain(environ: Mapping[str, str]) -> Any:
    """azure-identity's, which also knows `az login` and managed identities, where no key is in the environment."""
    if any(environ.get(name) for names in KEYS.values() for name in names):
        return None
    from obstore.auth.azure import AzureCredentialProvider

    return AzureCredentialProvider()
