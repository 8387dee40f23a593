"""Objects in S3 and Azure Blob Storage by obstore."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from reconciler.store.objects.base import Busy, Item, ObjectMoved, ObjectsError, StoredObject, Unsure
from reconciler.system.server_time import date_of

if TYPE_CHECKING:
    from obstore.store import AzureStore, ClientConfig, RetryConfig, S3Store

Answer = TypeVar("Answer")
CONNECT = timedelta(seconds=5)
SILENCE = timedelta(seconds=30)
WHOLE = timedelta(minutes=10)
NEVER: RetryConfig = {"max_retries": 0, "retry_timeout": timedelta(seconds=1)}
OFTEN: RetryConfig = {"max_retries": 6, "retry_timeout": timedelta(seconds=45)}
CONFLICTS = ("409", "429")
NO_BUCKET = ("NoSuchBucket", "ContainerNotFound", "NoSuchContainer")


class _Missing(ObjectsError):
    """There is no such object."""


class _Denied(ObjectsError):
    """Not allowed; or not there, and we may not list all of the bucket: S3 tells no difference."""


class ObstoreObjects:
    """Most of `Objects`: what is signed, and what versions there are, is each cloud's own.

    `open(retries)` gives a client below the prefix; `server` is where the bucket lies, as a URL.
    """

    def __init__(self, url: str, open: Callable[[RetryConfig], S3Store | AzureStore], *, server: str) -> None:
        self.url = url
        self._server = server
        self._reads = open(OFTEN)
        self._writes = open(NEVER)

    def get(self, key: str) -> StoredObject | None:
        import obstore

        def asked() -> StoredObject:
            found = obstore.get(self._reads, key)
            return StoredObject(bytes(found.bytes()), str(found.meta["e_tag"]))

        return self._maybe(asked, key)

    def download(self, key: str, into: Path) -> bool:
        import obstore

        def asked() -> bool:
            with into.open("wb") as target:
                for part in obstore.get(self._reads, key).stream():
                    target.write(part)
            return True

        return self._maybe(asked, key) is not None

    def put(self, key: str, data: bytes, *, tag: str | None = None) -> str:
        import obstore

        mode: Any = "overwrite" if tag is None else {"e_tag": tag} if tag else "create"
        client = self._reads if tag is None else self._writes
        return self._asked(lambda: str(obstore.put(client, key, data, mode=mode, use_multipart=False)["e_tag"]))

    def stat(self, key: str) -> Item | None:
        import obstore

        def asked() -> Item:
            found = obstore.head(self._reads, key)
            return Item(key, found["size"], int(found["last_modified"].timestamp()))

        return self._maybe(asked, key)

    def items(self, under: str) -> Iterator[Item]:
        import obstore

        def asked() -> list[Item]:
            batches = obstore.list(self._reads, under)
            return [
                Item(str(one["path"]), int(one["size"]), int(one["last_modified"].timestamp()))
                for batch in batches
                for one in batch
            ]

        yield from sorted(self._asked(asked))

    def delete(self, key: str) -> None:
        import obstore

        self._maybe(lambda: obstore.delete(self._reads, key), key)

    def date(self) -> int | None:
        """See `Objects.date`."""
        return date_of(self._server)

    def _maybe(self, call: Callable[[], Answer], key: str) -> Answer | None:
        """None where there is no such object: by the answer, or by a list of what lies beside it."""
        try:
            return self._asked(call)
        except _Missing:
            return None
        except _Denied:
            if self._lists_without(key):
                return None
            raise

    def _lists_without(self, key: str) -> bool:
        """Whether we may list its folder, and it is not in it."""
        import obstore

        folder = key.rpartition("/")[0]
        try:
            listed = self._asked(lambda: obstore.list_with_delimiter(self._reads, folder or None))
        except ObjectsError:
            return False
        return all(str(one["path"]) != key for one in listed["objects"])

    def _asked(self, call: Callable[[], Answer]) -> Answer:
        """What it gives; its errors by what they mean, without the request, which may carry a signature."""
        from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

        try:
            return call()
        except FileNotFoundError as error:
            code, said = _said(str(error))
            if code in NO_BUCKET:
                raise ObjectsError(
                    f"{self.url}: there is no such bucket ({said}): make it, or mend the address"
                ) from None
            raise _Missing(f"{self.url}: {said}") from None
        except (AlreadyExistsError, PreconditionError) as error:
            raise ObjectMoved(f"{self.url}: {_said(str(error))[1]}") from None
        except BaseError as error:
            raise self._meaning(error) from None

    def _meaning(self, error: Exception) -> ObjectsError:
        text = str(error)
        status = re.search(r"status code: (\d{3})", text)
        code, said = _said(text)
        if status is None or status[1].startswith("5") or status[1] == "408":
            return Unsure(f"{self.url}: {said}")
        if status[1] in CONFLICTS:
            return Busy(f"{self.url}: {said}")
        hint = HINTS.get(code, "")
        meaning = _Denied if status[1] == "403" and code in ("", "AccessDenied") else ObjectsError
        return meaning(f"{self.url}: {said}{f'; {hint}' if hint else ''}")


HINTS = {
    "AccessDenied": "see docs/shared-state.md for the rights that it takes; S3 says the same of an object that is not "
    "there, where listing is not allowed",
    "PermanentRedirect": "the bucket is in another region: set AWS_REGION",
    "AuthorizationHeaderMalformed": "the bucket is in another region: set AWS_REGION",
    "ExpiredToken": "log in again",
}


def _said(text: str) -> tuple[str, str]:
    """The vendor's code, and its own words; of a connection, what became of it. Never the request."""
    code, message = (re.search(rf"<{name}>\s*([^<]*?)\s*</{name}>", text) for name in ("Code", "Message"))
    if code:
        words = re.sub(r"\s+", " ", message[1].split("\n")[0]) if message else ""
        return code[1], f"{code[1]}: {words}" if words else code[1]
    status = re.search(r"status code: (\d{3}[A-Za-z ]*)", text)
    if status:
        return "", f"it answered {status[1].strip()}"
    for word, meaning in _CUT.items():
        if word in text:
            return "", meaning
    return "", "no answer"


_CUT = {
    "Connection refused": "the connection was refused",
    "ConnectionRefused": "the connection was refused",
    "Connection reset": "the connection was cut",
    "ConnectionReset": "the connection was cut",
    "IncompleteMessage": "the connection was cut",
    "dns error": "its name cannot be resolved",
    "certificate": "its certificate is not trusted",
    "timed out": "no answer in time",
    "TimedOut": "no answer in time",
    "credential": "no credentials were found, or they have expired: log in again",
}


def client_options(*, http: bool) -> ClientConfig:
    return {"allow_http": http, "connect_timeout": CONNECT, "read_timeout": SILENCE, "timeout": WHOLE}
