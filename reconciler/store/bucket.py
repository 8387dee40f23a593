"""The state as one compressed object in a bucket, replaced by conditional put.

There is no lock and no lease, so there is nothing to break. A write whose answer was lost is settled by
reading it back: its first line holds a nonce that no other write has.
"""

from __future__ import annotations

import random
import re
import secrets
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from reconciler.state.errors import StateMoved, StateRefused
from reconciler.store.moved_pointer import moved_to
from reconciler.store.objects.base import Busy, ObjectMoved, Objects, ObjectsError, StoredObject, Unsure, Version
from reconciler.store.statefile import Header, dumps, header_of, loads, refuse_backwards
from schemas.base import PROJECT_ID
from schemas.state import State

Answer = TypeVar("Answer")
TRIES = 8
LONGEST = 5.0
GZIP = 31  # zlib: with gzip's header, so that every tool reads it
REPAIR = "`dstack state rollback`, or `dstack state rebuild`"
SILENT = "the server of the bucket does not say what time it is: what ends for reasons of time ends by our clock alone"
LEVEL = 1  # of 50 MB: 0.13 s and 5 MB; level 6 takes three times that for 3.7 MB


class BucketStore:
    """`<prefix>/<project>.yml.gz`. A token is the object's tag: an ETag, or a generation.

    `before` is the file where the state of this checkout lay before `state:` named a bucket: while it is there
    and not sealed, an empty bucket is no new project.
    """

    def __init__(
        self,
        objects: Objects,
        project: str,
        *,
        before: Path | None = None,
        sleep: Callable[[float], None] = time.sleep,
        spread: Callable[[], float] = random.random,
    ) -> None:
        if not re.fullmatch(PROJECT_ID, project):
            raise StateRefused(f"project id {project!r}: must be 8 to 32 of a-z and 0-9; see .dstack/project.yml")
        self._objects = objects
        self._project = project
        self._key = f"{project}.yml.gz"
        self._before = before
        self._sleep, self._spread = sleep, spread
        self._seen: Header | None = None
        self._known: tuple[str, Header] | None = None
        self.address = f"{objects.url}/{self._key}"
        self.notes: list[str] = []

    def read(self) -> tuple[State | None, str]:
        """See `Store.read`. One GET."""
        found = self._get()
        if found is None:
            self._refuse_left_behind()
            return None, ""
        state = self._loaded(found.data)
        self._seen = header_of(state)
        self._known = found.tag, self._seen
        return state, found.tag

    def write(self, state: State, token: str) -> str:
        """See `Store.write`. One PUT, unless its answer is lost or others are at it."""
        if state.project != self._project:
            raise StateRefused(f"{self.address}: belongs to project {self._project}, not to {state.project}")
        self._refuse_before(state, token)
        nonce = secrets.token_hex(12)
        tag = self._put(packed(dumps(state), nonce=nonce), token, nonce=nonce)
        self._seen = header_of(state)
        self._known = tag, self._seen
        return tag

    def supersede(self, state: State, *, now: int) -> str:
        """See `Store.supersede`."""
        data = dumps(state)
        found = self._get()
        aside = ""
        if found is not None:
            aside = f"{self._key}.before-rebuild-{now}"
            self._keep(aside, found.data)
        nonce = secrets.token_hex(12)
        tag = self._put(packed(data, nonce=nonce), found.tag if found else "", nonce=nonce)
        self._seen = header_of(state)
        self._known = tag, self._seen
        return f"{self._objects.url}/{aside}" if aside else ""

    def keep_copy(self, name: str) -> str:
        """See `Store.keep_copy`."""
        found = self._get()
        copy = f"{self._key}.{name}"
        if found is not None:
            self._keep(copy, found.data)
        return f"{self._objects.url}/{copy}"

    def raw(self) -> tuple[bytes, str]:
        """The document as stored, unpacked, and its token; `(b"", "")` where there is none."""
        found = self._get()
        return (unpacked(found.data, self.address), found.tag) if found else (b"", "")

    def replace_raw(self, data: bytes, token: str) -> str:
        """Store these bytes where the token holds, whatever they say; else `StateMoved`."""
        nonce = secrets.token_hex(12)
        return self._put(packed(data, nonce=nonce), token, nonce=nonce)

    def versions(self) -> list[Version]:
        """What the bucket keeps of it, the newest first."""
        return self._called(lambda: self._objects.versions(self._key), what="listed")

    def version(self, id: str) -> bytes:
        """The document that it was, unpacked."""
        data = self._called(lambda: self._objects.get_version(self._key, id), what="read")
        return unpacked(data, f"{self.address} version {id}")

    def date(self) -> int | None:
        """See `Store.date`."""
        found = self._objects.date()
        if found is None and SILENT not in self.notes:
            self.notes.append(SILENT)
        return found

    # ------------------------------------------------------------ reading

    def _get(self) -> StoredObject | None:
        try:
            return self._objects.get(self._key)
        except ObjectsError as error:
            raise StateRefused(f"the state cannot be read: {error}") from None

    def _loaded(self, data: bytes) -> State:
        state = loads(unpacked(data, self.address), self.address)
        if state.project != self._project:
            raise StateRefused(
                f"{self.address}: is the state of project {state.project}, not of {self._project}; "
                "see `project:` in .dstack/project.yml"
            )
        refuse_backwards(self.address, self._seen, state, equal=True)
        return state

    def _refuse_left_behind(self) -> None:
        try:
            data = self._before.read_bytes() if self._before is not None else b""
        except OSError:
            return  # not there, or not ours to read
        if data and not moved_to(data):
            raise StateRefused(
                f"{self.address}: there is no state, but this checkout has one in {self._before}: write `state:` as it "
                f"was, then `dstack state migrate --to {self._objects.url}`; or move that file away"
            )

    # ------------------------------------------------------------ writing

    def _refuse_before(self, state: State, token: str) -> None:
        """Nothing older, and no other world, over what the token stands for; one that we did not read is looked up."""
        if not token:
            return
        if self._known is None or self._known[0] != token:
            found = self._get()
            if found is None or found.tag != token:
                raise StateMoved(f"{self.address}: somebody else wrote it first")
            self._known = token, header_of(self._loaded(found.data))
        refuse_backwards(self.address, self._known[1], state)

    def _put(self, data: bytes, token: str, *, nonce: str) -> str:
        """The new tag. Tries until it is known what became of it."""
        why, doubtful = "", False
        for attempt in range(TRIES):
            if attempt:
                self._sleep(min(LONGEST, 0.1 * 2**attempt) * (0.5 + self._spread()))
            try:
                if doubtful and (landed := self._landed(token, nonce=nonce)):
                    return landed
                return self._objects.put(self._key, data, tag=token)
            except ObjectMoved:
                if not doubtful:  # else it may be our own first try that came in the way
                    raise StateMoved(f"{self.address}: somebody else wrote it first") from None
            except Busy as error:
                why = str(error)
            except Unsure as error:
                why, doubtful = str(error), True
            except ObjectsError as error:
                raise StateRefused(f"the state cannot be written: {error}; the old one is intact") from None
        known = "whether it was written is not known" if doubtful else "nothing was written"
        raise StateRefused(f"the state cannot be written: {why}; {known}: the next command finds out")

    def _landed(self, token: str, *, nonce: str) -> str:
        """The tag, where it was ours that was written; "" where what we replace still lies there."""
        found = self._objects.get(self._key)
        if found is not None and nonce_of(found.data) == nonce:
            return found.tag
        if (found.tag if found else "") != token:
            raise StateMoved(f"{self.address}: somebody else wrote it first")
        return ""

    def _keep(self, aside: str, data: bytes) -> None:
        try:
            self._objects.put(aside, data, tag="")
        except ObjectMoved:
            return  # of that second already: a try before this one
        except ObjectsError as error:
            raise StateRefused(f"{self.address}: what is there cannot be kept: {error}; nothing was written") from None

    def _called(self, call: Callable[[], Answer], *, what: str) -> Answer:
        try:
            return call()
        except ObjectsError as error:
            raise StateRefused(f"{self.address}: its versions cannot be {what}: {error}") from None


def packed(data: bytes, *, nonce: str) -> bytes:
    """As it is stored: one gzip file, a comment with the writer's nonce, then the document."""
    packer = zlib.compressobj(LEVEL, zlib.DEFLATED, GZIP)
    return packer.compress(f"# dstack {nonce}\n".encode()) + packer.compress(data) + packer.flush()


def unpacked(data: bytes, source: str) -> bytes:
    """The document alone. `StateRefused` for what is no gzip file of ours."""
    unpacker = zlib.decompressobj(GZIP)
    try:
        text = unpacker.decompress(data) + unpacker.flush()
    except zlib.error:
        raise StateRefused(f"{source}: damaged: not a gzip file; {REPAIR}") from None
    if not unpacker.eof:
        raise StateRefused(f"{source}: truncated; {REPAIR}")
    return text.split(b"\n", 1)[1] if text.startswith(b"#") and b"\n" in text else text


def nonce_of(data: bytes) -> str:
    """Whose write it was; "" for what is not one of ours. Reads the first line alone."""
    try:
        first = zlib.decompressobj(GZIP).decompress(data, 200)
    except zlib.error:
        return ""
    found = re.match(rb"# dstack ([0-9a-f]+)\n", first)
    return found[1].decode() if found else ""
