"""Keep artifacts in a store of their own, and find older ones beside the other blobs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from reconciler.store.blobs.folder import Blobs, Stored


class BlobsApart:
    """See `Blobs`: written to `apart`, read from there or else from `beside`."""

    def __init__(self, apart: Blobs, *, beside: Blobs) -> None:
        self._apart, self._beside = apart, beside

    def put(self, data: bytes | Path) -> str:
        return self._apart.put(data)

    def get(self, digest: str) -> bytes:
        return self._of(digest).get(digest)

    def path(self, digest: str) -> Path | None:
        return self._apart.path(digest) or self._beside.path(digest)

    def verified(self, digest: str) -> Path:
        return self._of(digest).verified(digest)

    def stored(self) -> Iterator[Stored]:
        """Of the store apart alone: the other one is listed by itself."""
        return self._apart.stored()

    def retire(self, digest: str, *, before: int) -> bool:
        return self._apart.retire(digest, before=before)

    def _of(self, digest: str) -> Blobs:
        return self._apart if self._apart.path(digest) is not None else self._beside
