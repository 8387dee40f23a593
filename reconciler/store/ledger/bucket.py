"""The ledger in a bucket: small objects that are never changed, in one folder per month.

Its name is the digest of its content, so that a writer killed half-way tells the same again under the same name, and
writers at once never meet. When a month has many of them they are merged into one, which is written before they go:
whoever reads meanwhile finds an entry twice, and counts it once.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from reconciler.state.errors import StateRefused
from reconciler.store.ledger.folder import by_month, lines, month_of, once, parsed
from reconciler.store.objects.base import Item, Objects, ObjectsError, StoredObject
from schemas.ledger import Entry

Answer = TypeVar("Answer")
MANY = 64
READERS = 16
GZIP = 31


class BucketLedger:
    """`<under>/2026-11/<digest>.jsonl.gz`."""

    def __init__(self, objects: Objects, under: str, *, many: int = MANY) -> None:
        self._objects, self._under, self._many = objects, under, many

    def append(self, entries: Iterable[Entry]) -> None:
        """See `Ledger.append`. One PUT a month."""
        for month, told in sorted(by_month(entries).items()):
            self._asked(partial(self._write, month, lines(told)), what="written")

    def read(self, *, since: int = 0) -> Iterator[Entry]:
        """See `Ledger.read`. One LIST, and a GET for each telling that was not merged yet."""
        return once(self._read(since=since), since=since)

    def merge(self) -> int:
        """Make one object of the many of a month. How many went. Killed anywhere, nothing is lost."""
        gone = 0
        for month, items in self._months(since=0).items():
            if len(items) > self._many:
                gone += self._asked(partial(self._merge, month, items), what="merged")
        return gone

    def _write(self, month: str, text: bytes) -> str:
        """The key. The same text again is the same object."""
        key = f"{self._under}/{month}/{hashlib.sha256(text).hexdigest()[:32]}.jsonl.gz"
        packer = zlib.compressobj(6, zlib.DEFLATED, GZIP)
        self._objects.put(key, packer.compress(text) + packer.flush())
        return key

    def _merge(self, month: str, items: list[Item]) -> int:
        texts = self._texts(items)
        merged = self._write(
            month,
            lines(once((entry for text in texts for entry in parsed(text, source=f"{self._under}/{month}")), since=0)),
        )
        for item in items:
            if item.key != merged:
                self._objects.delete(item.key)
        return len(items)

    def _read(self, *, since: int) -> Iterator[Entry]:
        for month, items in self._months(since=since).items():
            for text in self._asked(partial(self._texts, items), what="read"):
                yield from parsed(text, source=f"{self._under}/{month}")

    def _months(self, *, since: int) -> dict[str, list[Item]]:
        """month -> its objects, in the order of their writing."""
        found: dict[str, list[Item]] = {}
        for item in self._asked(lambda: list(self._objects.items(self._under)), what="read"):
            month = re.fullmatch(r"(\d{4}-\d{2})/[0-9a-f]{32}\.jsonl\.gz", item.key.removeprefix(f"{self._under}/"))
            if month and month[1] >= month_of(since):
                found.setdefault(month[1], []).append(item)
        return {month: sorted(items, key=lambda item: (item.at, item.key)) for month, items in sorted(found.items())}

    def _texts(self, items: list[Item]) -> list[bytes]:
        """One that a merge took away meanwhile is in what it made: then all of it is looked for again by the caller."""
        with ThreadPoolExecutor(READERS) as readers:
            found = list(readers.map(lambda item: self._objects.get(item.key), items))
        if any(one is None for one in found):
            return self._again(items)
        return [_unpacked(one) for one in found if one is not None]

    def _again(self, items: list[Item]) -> list[bytes]:
        """After a merge: the month as it is now."""
        folder = items[0].key.rsplit("/", 1)[0]
        now = list(self._objects.items(folder))
        return [_unpacked(one) for item in now if (one := self._objects.get(item.key)) is not None]

    def _asked(self, call: Callable[[], Answer], *, what: str) -> Answer:
        try:
            return call()
        except ObjectsError as error:
            raise StateRefused(f"the ledger cannot be {what}: {error}") from None


def _unpacked(found: StoredObject) -> bytes:
    """What is no gzip file is not ours, and tells nothing."""
    try:
        return zlib.decompress(found.data, GZIP)
    except zlib.error:
        return b""
