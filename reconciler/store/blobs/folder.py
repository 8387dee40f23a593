"""Content-addressed blobs in a folder: files, logs and artifacts of runs. Written once, never changed."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from reconciler.system.private_folder import make_private

CHUNK = 1 << 20
# A temporary file this old has no writer any more, even on a machine that slept.
STALE = 24 * 3600


class BlobError(Exception):
    """Not there, damaged, or not to be written. The message names the digest or the path."""


class Stored(NamedTuple):
    """`at` is when it was put last, in epoch seconds."""

    digest: str
    at: int


class Blobs(Protocol):
    """A digest is 64 hex digits: the sha256 of the content."""

    def put(self, data: bytes | Path) -> str:
        """Store it (a file is copied); its digest. Storing the same again is cheap and changes nothing."""

    def get(self, digest: str) -> bytes:
        """The content, verified; else `BlobError`."""

    def path(self, digest: str) -> Path | None:
        """A local file with the content; `None` where there is no such blob. Not verified; never to be written."""

    def verified(self, digest: str) -> Path:
        """`path`, of exactly that content; else `BlobError`."""

    def stored(self) -> Iterator[Stored]:
        """Everything there is."""

    def retire(self, digest: str, *, before: int) -> bool:
        """Remove it, for whoever knows that nothing needs it, unless it was put at `before` (epoch seconds) or later.

        One that is put at the same moment is either not removed or stored again when `put` returns. Whether it went.
        """


class FolderBlobs:
    """`<folder>/<first two digits>/<digest>`, 0600. Readers see a whole blob or none."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, data: bytes | Path) -> str:
        """See `Blobs.put`. It survives a loss of power once it returns."""
        try:
            return self._put(data)
        except OSError as error:
            raise BlobError(f"{self._folder}: cannot be written: {error.strerror}") from error

    def get(self, digest: str) -> bytes:
        path = self.path(digest)
        if path is None:
            raise BlobError(f"blob {digest}: not in {self._folder}")
        try:
            data = path.read_bytes()
        except OSError as error:
            raise BlobError(f"{path}: cannot be read: {error.strerror}") from error
        if hashlib.sha256(data).hexdigest() != digest:
            raise BlobError(f"{path}: damaged: its content is not what was stored")
        return data

    def path(self, digest: str) -> Path | None:
        found = self._place(digest)
        return found if found.is_file() else None

    def verified(self, digest: str) -> Path:
        """See `Blobs.verified`."""
        found = self.path(digest)
        if found is None:
            raise BlobError(f"blob {digest}: not in {self._folder}")
        try:
            intact = _intact(found, digest)
        except OSError as error:
            raise BlobError(f"{found}: cannot be read: {error.strerror}") from error
        if not intact:
            raise BlobError(f"{found}: damaged: its content is not what was stored")
        return found

    def stored(self) -> Iterator[Stored]:
        """See `Blobs.stored`."""
        for path in self._folder.glob("[0-9a-f][0-9a-f]/*"):
            with contextlib.suppress(FileNotFoundError):  # another removed it
                if is_digest(path.name):
                    yield Stored(path.name, int(path.stat().st_mtime))

    def retire(self, digest: str, *, before: int) -> bool:
        """See `Blobs.retire`."""
        place = self._place(digest)
        try:
            with self._locked(fcntl.LOCK_EX):
                if place.stat().st_mtime >= before:
                    return False
                place.unlink()
                return True
        except FileNotFoundError:
            return False
        except OSError as error:
            raise BlobError(f"blob {digest}: cannot be removed: {error.strerror}") from error

    def use(self, digest: str) -> Path | None:
        """`path`; it counts as put now, and so does not expire."""
        found = self.path(digest)
        if found is not None:
            os.utime(found)
        return found

    def scratch(self, name: str) -> Path:
        """Of a temporary file that nobody else has, in the folder that `sweep` cleans."""
        make_private(self._folder)
        return self._folder / f".{name[:16]}-{secrets.token_hex(8)}.tmp"

    def digests(self) -> frozenset[str]:
        """Everything stored."""
        return frozenset(path.name for path in self._folder.glob("[0-9a-f][0-9a-f]/*") if is_digest(path.name))

    def remove(self, digest: str) -> None:
        """However new it is: of a cache, or damaged. Not there is no error."""
        try:
            self._place(digest).unlink(missing_ok=True)
        except OSError as error:
            raise BlobError(f"blob {digest}: cannot be removed: {error.strerror}") from error

    def _place(self, digest: str) -> Path:
        if not is_digest(digest):
            raise BlobError(f"{digest[:80]!r} is not the digest of a blob")
        return self._folder / digest[:2] / digest

    def _put(self, data: bytes | Path) -> str:
        make_private(self._folder)
        temporary = self._folder / f".{secrets.token_hex(8)}.tmp"
        try:
            digest = _copy(data, temporary)
            self.sweep(now=temporary.stat().st_mtime)  # the clock that dates the others, whatever ours says
            target = self._place(digest)
            with self._locked(fcntl.LOCK_SH):
                if _intact(target, digest):
                    os.utime(target)  # put again: what is old expires
                else:
                    make_private(target.parent)
                    temporary.replace(target)
                    _sync(target.parent)
                    _sync(self._folder)
        finally:
            temporary.unlink(missing_ok=True)
        return digest

    @contextlib.contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        """Of all that put, against one that retires. The kernel releases it with its process."""
        handle = os.open(self._folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, how)
            yield
        finally:
            os.close(handle)

    def sweep(self, *, now: float) -> None:
        """Remove what the dead left here: half-written blobs, temporary files of others. Each `put` does it."""
        for leftover in self._folder.glob(".*.tmp"):
            with contextlib.suppress(FileNotFoundError):  # its writer was alive, or another swept it
                if leftover.stat().st_mtime < now - STALE:
                    leftover.unlink()


def is_digest(text: str) -> bool:
    return re.fullmatch("[0-9a-f]{64}", text) is not None


def _copy(data: bytes | Path, target: Path) -> str:
    """The digest of what was written, so that a source that changes meanwhile cannot lie."""
    digest = hashlib.sha256()
    handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "wb") as file:
        for part in _parts(data):
            digest.update(part)
            file.write(part)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _parts(data: bytes | Path) -> Iterator[bytes]:
    if isinstance(data, bytes):
        yield data
        return
    with data.open("rb") as source:
        while part := source.read(CHUNK):
            yield part


def _intact(path: Path, digest: str) -> bool:
    """Whether it is stored already and undamaged: a damaged one is replaced by the good copy at hand."""
    if not path.is_file():
        return False
    found = hashlib.sha256()
    for part in _parts(path):
        found.update(part)
    return found.hexdigest() == digest


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
