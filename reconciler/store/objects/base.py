"""The port of an object store: objects by key below one prefix, written on a condition."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol


class ObjectsError(Exception):
    """It did not work, and would not if asked again. The message names the bucket, and holds no credential."""


class ObjectMoved(ObjectsError):
    """The condition did not hold: nothing was written."""


class Busy(ObjectsError):
    """Nothing was written; asked again it may be."""


class Unsure(ObjectsError):
    """No answer, or one that proves nothing: it may have been done, or be done yet."""


@dataclass(frozen=True, kw_only=True)
class BucketAccess:
    """Credentials and address of a backend, used for a bucket instead of the vendor's default chain."""

    session: Callable[[], Any]
    """Makes the session of the vendor's SDK. S3: a `boto3.Session`."""
    endpoint: str = ""
    """Replaces the vendor's address; "": as the environment says."""


class StoredObject(NamedTuple):
    """`tag` changes with every write: an ETag, or a generation."""

    data: bytes
    tag: str


class Item(NamedTuple):
    """`key` is below the prefix; `at` is the last write in epoch seconds, by the bucket's clock."""

    key: str
    size: int
    at: int


class Version(NamedTuple):
    """`id` is the bucket's own name for it."""

    id: str
    at: int


class Objects(Protocol):
    """Thread-safe. Reads are tried again by themselves, writes on a condition never: their caller settles them.

    `url` is the bucket and the prefix, for people. Any call may raise `ObjectsError`.
    """

    url: str

    def get(self, key: str) -> StoredObject | None:
        """None where there is no such object. A bucket that is not there is an error."""

    def download(self, key: str, into: Path) -> bool:
        """Its content into that file, never whole in memory; whether there is such an object."""

    def put(self, key: str, data: bytes, *, tag: str | None = None) -> str:
        """The new tag. Written only where the object still has `tag`, or is not there for "": else `Moved`."""

    def stat(self, key: str) -> Item | None:
        """Without its content."""

    def items(self, under: str) -> Iterator[Item]:
        """Every object below that folder, sorted by key."""

    def delete(self, key: str) -> None:
        """Not there is no error."""

    def sign_put(self, key: str, *, seconds: int) -> tuple[str, dict[str, str]]:
        """A URL, and headers, with which anybody may make that object for so long, once, and nothing else.

        One that is there is not overwritten: the condition is part of what is signed.
        """

    def versions(self, key: str) -> list[Version]:
        """The newest first; none where the bucket keeps none."""

    def get_version(self, key: str, id: str) -> bytes:
        """That version's content."""

    def date(self) -> int | None:
        """What time it is there (epoch seconds), asked now and without credentials; None where nobody says."""
