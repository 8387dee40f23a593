"""Objects in Google Cloud Storage by its official client, with application default credentials.

obstore speaks GCS' XML interface, which no server that our tests can start answers: docs/decisions/0010.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from reconciler.store.objects.base import Busy, Item, ObjectMoved, ObjectsError, StoredObject, Unsure, Version
from reconciler.system.server_time import date_of
from schemas.location import Bucket

Answer = TypeVar("Answer")
TIMEOUT = (5, 60)
CREATE_ONLY = "x-goog-if-generation-match"
SERVER = "https://storage.googleapis.com"
SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"


class GcsObjects:
    """See `Objects`. A tag is a generation."""

    def __init__(self, where: Bucket, client: Any, *, endpoint: str) -> None:
        self.url = where.url
        self._where = where
        self._prefix = where.prefix
        self._endpoint = endpoint
        self._bucket = client.bucket(where.bucket)
        self._client = client

    def get(self, key: str) -> StoredObject | None:
        """One request: what it answers is of one generation, and its headers name that."""

        def asked() -> StoredObject:
            blob = self._blob(key)
            data = bytes(blob.download_as_bytes(timeout=TIMEOUT, checksum=None))
            if not blob.generation:
                raise ObjectsError(f"{self.url}: the answer names no generation (x-goog-generation): a proxy cut it?")
            return StoredObject(data, str(blob.generation))

        return self._maybe(asked, key)

    def download(self, key: str, into: Path) -> bool:
        def asked() -> bool:
            with into.open("wb") as target:
                self._blob(key).download_to_file(target, timeout=TIMEOUT, checksum=None)
            return True

        return self._maybe(asked, key) is not None

    def _described(self, key: str) -> Any:
        blob = self._blob(key)
        blob.reload(timeout=TIMEOUT)
        return blob

    def put(self, key: str, data: bytes, *, tag: str | None = None) -> str:
        condition = {} if tag is None else {"if_generation_match": _generation(tag), "retry": None}
        blob = self._blob(key)
        self._asked(lambda: blob.upload_from_string(data, timeout=TIMEOUT, **condition))
        return str(blob.generation)

    def stat(self, key: str) -> Item | None:
        blob = self._maybe(partial(self._described, key), key)
        return self._item(key, blob) if blob is not None else None

    def items(self, under: str) -> Iterator[Item]:
        start = self._full("")
        found = self._asked(lambda: self._listed(prefix=f"{self._full(under)}/"))
        yield from sorted(self._item(blob.name.removeprefix(start), blob) for blob in found)

    def delete(self, key: str) -> None:
        self._maybe(lambda: self._blob(key).delete(timeout=TIMEOUT), key)

    def sign_put(self, key: str, *, seconds: int) -> tuple[str, dict[str, str]]:
        """Only a service account's key signs; whoever is logged in as a person has none."""

        headers = {CREATE_ONLY: "0"}  # signed with the rest: what is there stays

        def asked() -> str:
            signed = self._blob(key).generate_signed_url(
                version="v4",
                method="PUT",
                expiration=timedelta(seconds=seconds),
                headers=headers,
                credentials=_signer(self.url) if self._endpoint else None,
                api_access_endpoint=self._endpoint or None,
            )
            return str(signed)

        try:
            return self._asked(asked), {CREATE_ONLY: "0"}
        except AttributeError:  # the library's way to say that these credentials have no key
            raise ObjectsError(f"{self.url}: these credentials cannot sign a request") from None

    def versions(self, key: str) -> list[Version]:
        found = self._asked(lambda: self._listed(prefix=self._full(key), versions=True))
        own = (blob for blob in found if blob.name == self._full(key))
        return sorted(
            (Version(str(blob.generation), self._item(key, blob).at) for blob in own),
            key=lambda one: int(one.id),
            reverse=True,
        )

    def get_version(self, key: str, id: str) -> bytes:
        blob = self._bucket.blob(self._full(key), generation=_generation(id))
        return bytes(self._asked(lambda: blob.download_as_bytes(timeout=TIMEOUT)))

    def date(self) -> int | None:
        """See `Objects.date`."""
        return date_of(self._endpoint or SERVER)

    def _full(self, key: str) -> str:
        return f"{self._prefix}/{key}" if self._prefix else key

    def _blob(self, key: str) -> Any:
        return self._bucket.blob(self._full(key))

    def _maybe(self, call: Callable[[], Answer], key: str) -> Answer | None:
        from google.api_core.exceptions import Forbidden, NotFound

        def asked() -> Answer | None:
            try:
                return call()
            except NotFound:
                # The same 404 tells a missing object and a missing bucket: listing tells them apart.
                self._lists(key)
                return None
            except Forbidden:  # as well of what is not there, where we may not list all of the bucket
                if self._lists(key):
                    raise
                return None

        return self._asked(asked)

    def _lists(self, key: str) -> bool:
        """Whether it is there. What does not start like our prefix we need not be allowed to list."""
        name = self._full(key)
        return any(blob.name == name for blob in self._listed(prefix=name, max_results=1))

    def _listed(self, **asked: Any) -> list[Any]:
        """Every page. What is well-formed and no listing (a portal's page, a cut answer) is not an empty bucket."""
        found: list[Any] = []
        for page in self._client.list_blobs(self._bucket, timeout=TIMEOUT, **asked).pages:
            said = page.raw_page
            told = all(one.get("name") and one.get("generation") for one in said.get("items", ()))
            if said.get("kind") != "storage#objects" or not told:
                raise self._cut()
            found += page
        return found

    def _item(self, key: str, blob: Any) -> Item:
        if blob.size is None or blob.updated is None:
            raise self._cut()
        return Item(key, int(blob.size), int(blob.updated.timestamp()))

    def _cut(self) -> Unsure:
        return Unsure(f"{self.url}: the answer is not whole, or not Google's: a proxy on the way?")

    def _asked(self, call: Callable[[], Answer]) -> Answer:
        """What it gives; its errors by what they mean, without the request."""
        from google.api_core.exceptions import GoogleAPICallError, RetryError
        from google.auth.exceptions import GoogleAuthError
        from requests.exceptions import RequestException

        try:
            return call()
        except GoogleAPICallError as error:
            raise _meaning(self.url, error) from None
        except GoogleAuthError as error:
            raise ObjectsError(f"{self.url}: {_credentials(error)}") from None
        except (RetryError, RequestException, ConnectionError) as error:
            raise Unsure(f"{self.url}: no answer ({type(error).__name__})") from None


def _meaning(url: str, error: Any) -> ObjectsError:
    code, said = int(error.code or 0), str(error.message).split(": ", 1)[-1].split("\n")[0][:300]
    match code:
        case 412:
            return ObjectMoved(f"{url}: {said}")
        case 409 | 429:
            return Busy(f"{url}: {said}")
        case 404:
            return ObjectsError(f"{url}: there is no such bucket ({said}): make it, or mend the address")
        case _ if code >= 500 or code in (0, 408):
            return Unsure(f"{url}: {said}")
    return ObjectsError(f"{url}: {said}")


def _credentials(error: Exception) -> str:
    return (
        f"no Google credentials that work here ({type(error).__name__}): `gcloud auth application-default login`, or "
        "set GOOGLE_APPLICATION_CREDENTIALS"
    )


def _generation(tag: str) -> int:
    """0 is what Google calls an object that is not there; a foreign tag is one that none has."""
    return int(tag) if tag.isdigit() else 0 if not tag else 1


def _signer(url: str) -> Any:
    """Whoever may sign, where the client itself is a test's and has no key. No machine is asked for its identity."""
    from google.auth import default

    if not os.environ.get("GOOGLE_APPLICATION_CREDENTIALS"):
        raise ObjectsError(f"{url}: there is no key to sign with: GOOGLE_APPLICATION_CREDENTIALS is not set")
    return default()[0]


def gcs_objects(where: Bucket, *, environ: Mapping[str, str]) -> GcsObjects:
    """Objects of a bucket of Google Cloud Storage, or of a server that speaks like it (`STORAGE_EMULATOR_HOST`)."""
    from google.auth import default
    from google.auth.credentials import AnonymousCredentials
    from google.auth.exceptions import GoogleAuthError
    from google.cloud.storage import Client

    # Else it asks for the bucket as well, in the background, for traces that nobody takes: with rights of its own.
    os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
    endpoint = environ.get("STORAGE_EMULATOR_HOST", "")
    try:
        credentials = AnonymousCredentials() if endpoint else default(scopes=[SCOPE])[0]
    except GoogleAuthError as error:
        raise ObjectsError(f"{where.url}: {_credentials(error)}") from None
    # No call of ours is about a project.
    client = Client(
        project="none", credentials=credentials, client_options={"api_endpoint": endpoint} if endpoint else None
    )
    return GcsObjects(where, client, endpoint=endpoint)
