"""The ledger in a folder: one JSON line per entry, one file per month, append-only.

A writer killed half-way leaves at most one torn line, which readers skip and the next writer
closes. It then tells the same entries again under the same ids: none is lost, none counts twice.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

import msgspec

from reconciler.state.errors import StateRefused
from reconciler.system.private_folder import make_private
from schemas.ledger import Entry
from schemas.strict_json import duplicate_key

_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Entry)


class Ledger(Protocol):
    """Entries beside the state, by month. A reader sees each once, whoever told it how often."""

    def append(self, entries: Iterable[Entry]) -> None:
        """Nothing to tell touches nothing. When it returns, they survive a loss of power. Raises `StateRefused`."""

    def read(self, *, since: int = 0) -> Iterator[Entry]:
        """Entries of that time or later, each once, in the order of their writing by month. Raises `StateRefused`."""

    def merge(self) -> int:
        """Make what was told in many pieces cheap to read; how many pieces went. Loses nothing, killed anywhere."""


class Telling:
    """Appends to a ledger what it has not appended before: within one process nothing is told twice."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._told: set[str] = set()

    def __call__(self, entries: Iterable[Entry]) -> None:
        new = [entry for entry in entries if entry.id not in self._told]
        if new:
            self._ledger.append(new)
            self._told.update(entry.id for entry in new)


class FolderLedger:
    """`<folder>/2026-11.jsonl`, 0600."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def append(self, entries: Iterable[Entry]) -> None:
        """See `Ledger.append`. One write a month's file."""
        try:
            for month, told in sorted(by_month(entries).items()):
                make_private(self._folder)
                _append(self._folder / f"{month}.jsonl", lines(told))
        except OSError as error:
            raise StateRefused(f"{self._folder}: the ledger cannot be written: {error.strerror}") from error

    def read(self, *, since: int = 0) -> Iterator[Entry]:
        """See `Ledger.read`."""
        return once(self._read(since=since), since=since)

    def merge(self) -> int:
        """A file a month is as cheap as it gets."""
        return 0

    def _read(self, *, since: int) -> Iterator[Entry]:
        for path in _files(self._folder, since=since):
            try:
                data = path.read_bytes()
            except OSError as error:
                raise StateRefused(f"{path}: cannot be read: {error.strerror}") from error
            yield from parsed(data, source=str(path))


def by_month(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    """`2026-11` -> its entries, in their order."""
    months: dict[str, list[Entry]] = {}
    for entry in entries:
        months.setdefault(month_of(entry.at), []).append(entry)
    return months


def month_of(at: int) -> str:
    return time.strftime("%Y-%m", time.gmtime(at))


def lines(entries: Iterable[Entry]) -> bytes:
    """One JSON line each."""
    return b"".join(_ENCODER.encode(entry) + b"\n" for entry in entries)


def parsed(data: bytes, *, source: str) -> Iterator[Entry]:
    """What is not a whole entry is skipped: its writer was killed, and told it again.

    Raises `StateRefused` for an entry with a key twice, which no writer of ours made.
    """
    for number, line in enumerate(data.split(b"\n"), start=1):
        if (entry := _decoded(line)) is None:
            continue
        if why := duplicate_key(line, again=_ENCODER.encode(entry)):
            raise StateRefused(f"{source}:{number}: damaged: {why}; keep the right one of the two")
        yield entry


def once(entries: Iterable[Entry], *, since: int) -> Iterator[Entry]:
    """Those of that time or later, each the first time that it is told."""
    seen: set[str] = set()
    for entry in entries:
        if entry.at >= since and entry.id not in seen:
            seen.add(entry.id)
            yield entry


def _append(path: Path, data: bytes) -> None:
    handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        if _torn(handle):
            data = b"\n" + data
        if os.write(handle, data) != len(data):
            raise OSError(28, "No space left on device")
        os.fsync(handle)
    finally:
        os.close(handle)


def _torn(handle: int) -> bool:
    """Whether the last writer was killed inside a line. An empty line too many harms nobody."""
    size = os.fstat(handle).st_size
    return size > 0 and os.pread(handle, 1, size - 1) != b"\n"


def _files(folder: Path, *, since: int) -> list[Path]:
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        return []
    months = (name for name in names if re.fullmatch(r"\d{4}-\d{2}\.jsonl", name))
    return [folder / name for name in months if name[:7] >= month_of(since)]


def _decoded(line: bytes) -> Entry | None:
    try:
        return _DECODER.decode(line) if line else None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
