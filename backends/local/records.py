"""The record of a local instance: its folder and files. A folder appears and ends atomically.

<base>/<project>/<lineage>/<instance id>/
    instance.json   what it is; written before the folder gets its name
    host/           the runner's: jobs, claims … (its `ending` marker forbids further starts)
    ended.json      it is over; nothing else of it is left
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from backends.errors import LackingHere, TryLater
from schemas.base import Value
from schemas.resources import Resources
from schemas.strict_json import decode_strictly

_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,80}\Z")


class Record(Value, frozen=True, kw_only=True):
    """`slot` is its number among the machine's shares; `state_address` where the state lay that it belongs to."""

    id: str
    launch: str
    pool: str
    name: str
    project: str
    lineage: str
    generation: int
    instance_type: str
    state_address: str
    created_at: int
    slot: int
    resources: Resources


class Ended(Value, frozen=True, kw_only=True):
    at: int
    reason: str = ""


def is_id(text: str) -> bool:
    """Safe as the name of a folder."""
    return bool(_ID.match(text))


def folders(lineage: Path) -> list[Path]:
    """Every instance's folder, living or ended, by id. An absent lineage has none."""
    try:
        return sorted(path for path in lineage.iterdir() if is_id(path.name) and path.is_dir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise TryLater(f"cannot list {lineage}: {error}") from error


def make(lineage: Path, record: Record) -> None:
    """The whole folder at once, or nothing. One that exists is left as it is."""
    staged = lineage / f".{record.id}.{uuid.uuid4().hex}"
    try:
        make_private(staged / "host")
        with (staged / "instance.json").open("wb") as file:
            file.write(msgspec.json.encode(record))
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.rename(staged, lineage / record.id)
    except OSError as error:
        if not (lineage / record.id / "instance.json").exists():
            raise LackingHere(f"cannot make an instance in {lineage}: {error}") from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def read(folder: Path) -> Record | None:
    """None where it is not there, or is not readable as one: a crash of the machine may have cut it."""
    content = _content(folder / "instance.json")
    try:
        return decode_strictly(content, Record) if content is not None else None
    except msgspec.MsgspecError:
        return None


def follow(folder: Path, *, address: str) -> None:
    """The state that it belongs to lies at `address` now: it must be missed there, not where it was."""
    record = read(folder)
    if record is None or record.state_address == address or read_ended(folder):
        return
    fresh = folder / f".instance.{uuid.uuid4().hex}"
    try:
        fresh.write_bytes(msgspec.json.encode(msgspec.structs.replace(record, state_address=address)))
        os.replace(fresh, folder / "instance.json")
    except OSError as error:
        raise TryLater(f"cannot write {folder}: {error}") from error


def read_ended(folder: Path) -> Ended | None:
    """None while it lives. The file's existence is the end, whatever a crash of the machine left in it."""
    content = _content(folder / "ended.json")
    try:
        return decode_strictly(content, Ended) if content is not None else None
    except msgspec.MsgspecError:
        return Ended(at=0)


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise TryLater(f"cannot read {path}: {error}") from error


def forbid_starts(folder: Path) -> None:
    """From now on no job starts there, and a supervisor that begins ends itself."""
    with suppress(FileNotFoundError):
        (folder / "host" / "ending").touch()


def end(folder: Path, ended: Ended) -> None:
    """Remove everything but the record, then write the end. What cannot be removed is told in its reason."""
    shutil.rmtree(folder / "host", onerror=_insist)
    left = (folder / "host").exists()
    told = msgspec.structs.replace(ended, reason="not everything in its folder could be removed") if left else ended
    fresh = folder / f".ended.{uuid.uuid4().hex}"
    fresh.write_bytes(msgspec.json.encode(told))
    os.replace(fresh, folder / "ended.json")


def _insist(function: Any, path: str, _: Any) -> None:
    """A job may have left folders that even their owner cannot write; the rest is told by `end`."""
    with suppress(OSError):
        os.chmod(Path(path).parent, stat.S_IRWXU)
        if os.path.isdir(path) and not os.path.islink(path):
            os.chmod(path, stat.S_IRWXU)
            shutil.rmtree(path, ignore_errors=True)
        else:
            function(path)


def make_private(folder: Path) -> None:
    """With whatever is missing above it, 0700: `mkdir(parents=True)` leaves the parents to the umask."""
    if not folder.is_dir():
        make_private(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


@contextmanager
def alone(lineage: Path) -> Iterator[None]:
    """One launch at a time in a lineage; the kernel lets go when a process dies."""
    try:
        make_private(lineage)
        descriptor = os.open(lineage / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise LackingHere(f"cannot write in {lineage}: {error}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
