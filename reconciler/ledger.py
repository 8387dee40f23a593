"""The ledger beside the state: one JSON line an entry, one file a month, only ever appended to.

A writer killed half-way leaves at most one torn line, which readers skip and the next writer
closes. It then tells the same entries again under the same ids: none is lost, none counts twice.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from reconciler.private import make_private
from reconciler.store import StateRefused
from schemas.ledger import Entry

_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Entry)


def append(folder: Path, entries: Iterable[Entry]) -> None:
    """One write a month's file, synced. Nothing to tell touches nothing."""
    months: dict[str, list[bytes]] = {}
    for entry in entries:
        months.setdefault(_month(entry.at), []).append(_ENCODER.encode(entry))
    try:
        for month, lines in sorted(months.items()):
            make_private(folder)
            _append(folder / f"{month}.jsonl", b"\n".join(lines) + b"\n")
    except OSError as error:
        raise StateRefused(f"{folder}: the ledger cannot be written: {error.strerror}") from error


def read(folder: Path, *, since: int = 0) -> Iterator[Entry]:
    """Entries of that time or later, each once, in the order of their writing by month."""
    seen: set[str] = set()
    for path in _files(folder, since=since):
        try:
            data = path.read_bytes()
        except OSError as error:
            raise StateRefused(f"{path}: cannot be read: {error.strerror}") from error
        for entry in filter(None, map(_decoded, data.split(b"\n"))):
            if entry.at >= since and entry.id not in seen:
                seen.add(entry.id)
                yield entry


def _month(at: int) -> str:
    return time.strftime("%Y-%m", time.gmtime(at))


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
    return [folder / name for name in months if name[:7] >= _month(since)]


def _decoded(line: bytes) -> Entry | None:
    try:
        return _DECODER.decode(line) if line else None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
