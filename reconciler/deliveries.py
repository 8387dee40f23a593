"""Requests with which a host puts a job's result into the bucket, and what it put there, read again."""

from __future__ import annotations

import gzip
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from reconciler.artifacts import repack
from reconciler.host_report import Unreadable, parse_end
from reconciler.objects import Objects, ObjectsError
from reconciler.private import make_private
from schemas.base import Seconds
from schemas.delivery import PARTS, Delivery
from schemas.instance import JobReport

LONGEST = 7 * 86400  # no cloud lets a request hold for longer


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
    """`<under>/<job>/end`, `log`, `artifacts`. `scratch` is for temporary files."""

    def __init__(self, objects: Objects, under: str, *, scratch: Path) -> None:
        self._objects, self._under, self._scratch = objects, under, scratch

    def requests(self, job: str, seconds: Seconds | None) -> tuple[Delivery, ...]:
        """One for each part, for so long; None for a job without an end. None at all where they cannot be signed."""
        time = LONGEST if seconds is None else min(LONGEST, max(1, seconds))
        try:
            signed = [(part, *self._objects.sign_put(self._key(job, part), seconds=time)) for part in PARTS]
        except ObjectsError:
            return ()  # whoever may read and write need not be able to sign; the host is asked, as ever
        return tuple(Delivery(part=part, url=url, headers=tuple(headers.items())) for part, url, headers in signed)

    def result(self, job: str) -> Delivered | None:
        """What the host put; `None` where it put no end, or the bucket cannot be asked."""
        try:
            end = self._objects.get(self._key(job, "end"))
            if end is None:
                return None
            report = parse_end(end.data, job=job)
            artifacts, notes = self._artifacts(job)
            return Delivered(end=report, log=self._file(job, "log"), artifacts=artifacts, notes=notes)
        except (ObjectsError, Unreadable):
            return None

    def expire(self, *, before: int) -> None:
        """Remove what was put before that time: it was collected, or nobody asks any more."""
        for item in list(self._objects.items(self._under)):
            if item.at < before:
                self._objects.delete(item.key)

    def _key(self, job: str, part: str) -> str:
        return f"{self._under}/{job}/{part}"

    def _file(self, job: str, part: str) -> Path | None:
        found = self._objects.get(self._key(job, part))
        if found is None:
            return None
        path = self._fresh()
        path.write_bytes(found.data)
        return path

    def _artifacts(self, job: str) -> tuple[Path | None, tuple[str, ...]]:
        """Packed anew: nothing that a job wrote is unpacked as it is."""
        sent = self._file(job, "artifacts")
        if sent is None:
            return None, ()
        raw = self._fresh()
        try:
            with gzip.open(sent) as source, raw.open("wb") as target:
                shutil.copyfileobj(source, target)
            packed, notes = repack(raw, into=self._fresh())
        except (OSError, EOFError) as error:
            return None, (f"artifacts could not be read: {error}",)
        finally:
            raw.unlink()
            sent.unlink()
        return packed, tuple(notes)

    def _fresh(self) -> Path:
        make_private(self._scratch)
        handle, name = tempfile.mkstemp(prefix=".dstack-", suffix=".tmp", dir=self._scratch)
        open(handle, "wb").close()
        return Path(name)

