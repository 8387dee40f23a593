"""Blobs in a bucket, compressed, with resumable uploads of large ones.

    ab/ab12….gz             a blob of at most one part
    ab/ab12…/00001-cd34….gz a part of a larger one, named by its own digest: what is there is whole and right
    ab/ab12….parts          its parts in order, written last
    ab/ab12….going          it is old, and about to be removed

Who removes writes `going` first, and only then asks how old the blob is; who puts an old one again looks for `going`
only after. So one of them sees the other: nothing that was put is removed, and neither waits (docs/decisions/0033).
What was sent or fetched also lies in a local cache, which is a `FolderBlobs` of this machine.
"""

from __future__ import annotations

import hashlib
import re
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from reconciler.store.blobs.folder import BlobError, FolderBlobs, Stored, is_digest
from reconciler.store.objects.base import Item, Objects, ObjectsError
from schemas.strict_json import decode_strictly

PART = 16 << 20
# One that was written this lately needs no new date to be safe from whoever expires what is old.
FRESH = 12 * 3600
CACHED = 7 * 86400
GOING = ".going"
# Between the question how old a blob is and the last request that removes it; what slept for longer gives up.
PATIENCE = 60.0
# No request of somebody who wrote `going` so long ago, by the bucket's clock, is still under way.
LONG_DEAD = 3600
TRIES = 3
GZIP = 31
PACKED = b"\x1f\x8b"
Told = Callable[[str, int, int], None]


class _Parts(msgspec.Struct):
    """Keys below the blob's own folder, in order."""

    size: int
    parts: tuple[str, ...]


class BucketBlobs:
    """See `Blobs`. `told(what, bytes done, bytes in all)` hears of every part of a large one."""

    def __init__(
        self,
        objects: Objects,
        under: str,
        *,
        cache: FolderBlobs,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
        told: Told | None = None,
        part: int = PART,
    ) -> None:
        self._objects, self._under, self._cache = objects, under, cache
        self._now, self._clock, self._told, self._part = now, clock, told, part
        self._trimmed = False
        self.address = f"{objects.url}/{under}"

    def put(self, data: bytes | Path) -> str:
        """See `Blobs.put`. What was sent of a large one before a kill is not sent again."""
        digest = self._cache.put(data)
        self._trim()
        local = self._cache.verified(digest)
        size = local.stat().st_size
        try:
            if not self._is_fresh(self._key(digest, size)):
                self._send_for_good(digest, local, size)
        except ObjectsError as error:
            raise BlobError(f"blob {digest}: cannot be stored: {error}") from None
        return digest

    def get(self, digest: str) -> bytes:
        return self.verified(digest).read_bytes()

    def path(self, digest: str) -> Path | None:
        """Fetched first, where it is not here."""
        if not is_digest(digest):
            raise BlobError(f"{digest[:80]!r} is not the digest of a blob")
        return self._cache.use(digest) or self._fetched(digest)

    def verified(self, digest: str) -> Path:
        """A damaged copy in the cache is fetched anew."""
        if self.path(digest) is None:
            raise BlobError(f"blob {digest}: not in {self.address}")
        try:
            return self._cache.verified(digest)
        except BlobError:
            self._cache.remove(digest)
            if self._fetched(digest) is None:
                raise
            return self._cache.verified(digest)

    def stored(self) -> Iterator[Stored]:
        """See `Blobs.stored`."""
        newest: dict[str, int] = {}
        for item in self._items(self._under):
            found = re.match(r"[0-9a-f]{2}/([0-9a-f]{64})(?:/|\.gz|\.parts)", item.key.removeprefix(f"{self._under}/"))
            if found:
                newest[found[1]] = max(item.at, newest.get(found[1], 0))
        yield from (Stored(digest, at) for digest, at in newest.items())

    def retire(self, digest: str, *, before: int) -> bool:
        """See `Blobs.retire`. Killed, or unsure of an answer, it leaves `going` behind."""
        going = self._start(digest) + GOING
        try:
            self._objects.put(going, b"going\n")
            ends = self._clock() + PATIENCE
            at = self._put_at(digest)
            gone = at is not None and at < before
            if gone:
                self._remove(digest, ends=ends)
            self._objects.delete(going)
        except ObjectsError as error:
            raise BlobError(f"blob {digest}: cannot be removed: {error}") from None
        return gone

    def _put_at(self, digest: str) -> int | None:
        """A part that was sent lately is of one that is put right now."""
        start = self._start(digest)
        named = [self._objects.stat(start + suffix) for suffix in (".parts", ".gz")]
        return max((item.at for item in (*named, *self._objects.items(start)) if item is not None), default=None)

    def _remove(self, digest: str, *, ends: float) -> None:
        """What names the parts goes first. None after `ends`: who slept does not know any more how old it is."""
        start = self._start(digest)
        keys = [start + suffix for suffix in (".parts", ".gz")]
        for key in (*keys, *(item.key for item in self._objects.items(start))):
            if self._clock() > ends:
                raise ObjectsError(f"{self.address}: it took too long: tomorrow's look goes on")
            self._objects.delete(key)

    def _trim(self) -> None:
        """Once a process: what the cache holds and nobody used for a week."""
        if self._trimmed:
            return
        self._trimmed = True
        for one in list(self._cache.stored()):
            if one.at < self._now() - CACHED:
                self._cache.remove(one.digest)

    # ------------------------------------------------------------ sending

    def _start(self, digest: str) -> str:
        return f"{self._under}/{digest[:2]}/{digest}"

    def _key(self, digest: str, size: int) -> str:
        return self._start(digest) + (".gz" if size <= self._part else ".parts")

    def _is_fresh(self, key: str) -> bool:
        found = self._objects.stat(key)
        return found is not None and abs(self._now() - found.at) < FRESH  # by a clock of ours that is right

    def _send_for_good(self, digest: str, local: Path, size: int) -> None:
        """Until nobody can be about to remove what was sent, and all of it is there."""
        going_key, key = self._start(digest) + GOING, self._key(digest, size)
        for _ in range(TRIES):
            parts = self._send(digest, local, size)
            going = self._objects.stat(going_key)
            sent = self._objects.stat(key)  # after `going`: where that is gone, so is what it removed
            if going is not None and sent is not None:
                if sent.at - going.at < LONG_DEAD:
                    raise BlobError(f"blob {digest}: another removes it right now, since no run needed it: try again")
                self._objects.delete(going_key)
            if sent is not None and self._has_all(digest, parts):
                return
        raise BlobError(f"blob {digest}: was removed again and again while it was stored: try again")

    def _has_all(self, digest: str, parts: list[str]) -> bool:
        there = {item.key for item in self._objects.items(self._start(digest))} if parts else set()
        return all(f"{self._start(digest)}/{name}" in there for name in parts)

    def _send(self, digest: str, local: Path, size: int) -> list[str]:
        """The names of its parts; none of one that has none."""
        if size <= self._part:
            self._objects.put(self._key(digest, size), _packed(local.read_bytes()))
            return []
        there = {item.key for item in self._objects.items(self._start(digest))}
        keys: list[str] = []
        done = 0
        with local.open("rb") as source:
            while data := source.read(self._part):
                name = f"{len(keys) + 1:05d}-{hashlib.sha256(data).hexdigest()}.gz"
                keys.append(name)
                self._tell(digest, done, size)
                if f"{self._start(digest)}/{name}" not in there:
                    self._objects.put(f"{self._start(digest)}/{name}", _packed(data))
                done += len(data)
        self._tell(digest, done, size)
        self._objects.put(self._key(digest, size), msgspec.json.encode(_Parts(size=size, parts=tuple(keys))))
        return keys

    def _tell(self, digest: str, done: int, size: int) -> None:
        if self._told is not None:
            self._told(digest[:12], done, size)

    # ------------------------------------------------------------ fetching

    def _fetched(self, digest: str) -> Path | None:
        """Into the cache; `None` where the bucket does not have it."""
        try:
            whole = self._objects.get(f"{self._start(digest)}.gz")
            if whole is not None:
                return self._cached(digest, _unpacked(whole.data, digest))
            listed = self._objects.get(f"{self._start(digest)}.parts")
            return self._joined(digest, listed.data) if listed is not None else None
        except ObjectsError as error:
            raise BlobError(f"blob {digest}: cannot be fetched: {error}") from None

    def _joined(self, digest: str, listed: bytes) -> Path:
        try:
            known = decode_strictly(listed, _Parts)
        except msgspec.MsgspecError:
            raise BlobError(f"blob {digest}: damaged: the list of its parts cannot be read") from None
        whole = self._cache.scratch(digest)
        done = 0
        try:
            with whole.open("wb") as target:
                for name in known.parts:
                    self._tell(digest, done, known.size)
                    part = self._part_of(digest, name)
                    target.write(part)
                    done += len(part)
            self._tell(digest, done, known.size)
            return self._cached(digest, whole)
        finally:
            whole.unlink(missing_ok=True)

    def _part_of(self, digest: str, name: str) -> bytes:
        """From what an interrupted fetch left here, else from the bucket."""
        own = re.fullmatch(r"\d{5}-([0-9a-f]{64})\.gz", name)
        if own is None:
            raise BlobError(f"blob {digest}: damaged: {name[:80]!r} is not a part")
        kept = self._cache.path(own[1])
        if kept is not None:
            return self._cache.get(own[1])
        found = self._objects.get(f"{self._start(digest)}/{name}")
        if found is None:
            raise BlobError(f"blob {digest}: damaged: its part {name} is gone")
        data = _unpacked(found.data, digest)
        if self._cache.put(data) != own[1]:
            raise BlobError(f"blob {digest}: damaged: its part {name} is not what was stored")
        return data

    def _cached(self, digest: str, data: bytes | Path) -> Path:
        if self._cache.put(data) != digest:
            raise BlobError(f"blob {digest}: damaged: its content is not what was stored")
        return self._cache.verified(digest)

    def _items(self, under: str) -> Iterator[Item]:
        try:
            yield from self._objects.items(under)
        except ObjectsError as error:
            raise BlobError(str(error)) from None


def _packed(data: bytes) -> bytes:
    """What is compressed already is wrapped as it is."""
    packer = zlib.compressobj(0 if data.startswith(PACKED) else 6, zlib.DEFLATED, GZIP)
    return packer.compress(data) + packer.flush()


def _unpacked(data: bytes, digest: str) -> bytes:
    try:
        return zlib.decompress(data, GZIP)
    except zlib.error:
        raise BlobError(f"blob {digest}: damaged: not a gzip file") from None
