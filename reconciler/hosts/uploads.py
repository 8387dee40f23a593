"""Presign requests by which a host uploads a job's result to the bucket, and read what was uploaded."""

from __future__ import annotations

import gzip
import tarfile
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from reconciler.hosts.artifacts import LIMIT, repack
from reconciler.hosts.report import UnreadableReport, parse_end
from reconciler.store.objects.base import Objects, ObjectsError
from reconciler.system.private_folder import make_private
from schemas.base import Seconds
from schemas.delivery import PARTS, Delivery
from schemas.instance import JobReport

LONGEST = 7 * 86400  # no cloud lets a request hold for longer
LARGEST_END = 1 << 20
CHUNK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Delivered:
    """A result that a host put: files here, the caller's to remove."""

    end: JobReport
    log: Path | None = None
    artifacts: Path | None = None
    notes: tuple[str, ...] = ()

    def discard(self) -> None:
        for path in (self.log, self.artifacts):
            if path is not None:
                path.unlink(missing_ok=True)


class Deliveries:
    """`<under>/<job>/end`, `log`, `artifacts`. `scratch` is for temporary files.

    Whoever may run a job may put what he likes: no part larger than `limit` bytes, packed or not, is taken.
    """

    def __init__(self, objects: Objects, under: str, *, scratch: Path, limit: int = LIMIT) -> None:
        self._objects, self._under, self._scratch, self._limit = objects, under, scratch, limit

    def requests(self, job: str, seconds: Seconds | None) -> tuple[Delivery, ...]:
        """One for each part, for so long; None for a job without an end. None at all where they cannot be signed."""
        time = LONGEST if seconds is None else min(LONGEST, max(1, seconds))
        try:
            signed = [(part, *self._objects.sign_put(self._key(job, part), seconds=time)) for part in PARTS]
        except ObjectsError:
            return ()  # whoever may read and write need not be able to sign; the host is asked, as ever
        return tuple(Delivery(part=part, url=url, headers=tuple(headers.items())) for part, url, headers in signed)

    def result(self, job: str) -> Delivered | None:
        """What the host put; `None` where it put no end, or the bucket cannot be asked.

        A part that cannot be had is left out, and a note says so: how the job ended is known all the same.
        """
        try:
            there = self._is_there(job, "end", limit=LARGEST_END)
            end = self._objects.get(self._key(job, "end")) if there else None
            if end is None:
                return None
            report = parse_end(end.data, job=job)
        except (ObjectsError, UnreadableReport, _TooLarge):
            return None
        log, notes = self._file(job, "log")
        artifacts, more = self._artifacts(job)
        return Delivered(end=report, log=log, artifacts=artifacts, notes=(*notes, *more))

    def expire(self, *, before: int) -> None:
        """Remove what was put before that time: it was collected, or nobody asks any more."""
        for item in list(self._objects.items(self._under)):
            if item.at < before:
                self._objects.delete(item.key)

    def _key(self, job: str, part: str) -> str:
        return f"{self._under}/{job}/{part}"

    def _is_there(self, job: str, part: str, *, limit: int) -> bool:
        """What is too large is not asked for."""
        found = self._objects.stat(self._key(job, part))
        if found is not None and found.size > limit:
            raise _TooLarge(f"{found.size} bytes are more than {limit}")
        return found is not None

    def _file(self, job: str, part: str) -> tuple[Path | None, tuple[str, ...]]:
        path = None
        try:
            if self._is_there(job, part, limit=self._limit):
                path = self._fresh()
                if self._objects.download(self._key(job, part), path):
                    return path, ()
            notes: tuple[str, ...] = ()
        except (ObjectsError, OSError, _TooLarge) as error:
            notes = (f"{part} could not be fetched: {error}; see {self._objects.url}/{self._key(job, part)}",)
        if path is not None:
            path.unlink(missing_ok=True)
        return None, notes

    def _artifacts(self, job: str) -> tuple[Path | None, tuple[str, ...]]:
        """Packed anew: nothing that a job wrote is unpacked as it is."""
        sent, notes = self._file(job, "artifacts")
        if sent is None:
            return None, notes
        made: list[Path] = [sent]
        packed = None
        try:
            made.append(self._fresh())
            whole = _unpack(sent, into=made[-1], limit=self._limit)
            made.append(self._fresh())
            packed, found = repack(made[1], into=made[-1], limit=self._limit)
            notes = (*found, *(() if whole else (f"artifacts are incomplete: more than {self._limit} bytes",)))
        except (OSError, EOFError, zlib.error, tarfile.TarError, ValueError) as error:
            notes = (f"artifacts could not be read: {error}",)
        finally:
            for path in made:
                if path != packed:
                    path.unlink(missing_ok=True)
        return packed, notes

    def _fresh(self) -> Path:
        make_private(self._scratch)
        handle, name = tempfile.mkstemp(prefix=".dstack-", suffix=".tmp", dir=self._scratch)
        open(handle, "wb").close()
        return Path(name)


class _TooLarge(Exception):
    """What a host put is larger than anything that it was asked for."""


def _unpack(source: Path, *, into: Path, limit: int) -> bool:
    """The first `limit` bytes of a gzip file; whether that was all."""
    left = limit
    with gzip.open(source) as packed, into.open("wb") as target:
        while left and (data := packed.read(min(CHUNK, left))):
            target.write(data)
            left -= len(data)
        return bool(left) or not packed.read(1)
