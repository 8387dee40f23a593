"""Which state a lineage's instances on this machine belong to: a copy of its folder must not use them.

<base>/<project>/<lineage>/home.json has the state's address and the inode of the folder that it lies in.
"""

from __future__ import annotations

import os
import re
import uuid
from contextlib import suppress
from pathlib import Path

import msgspec

from backends.errors import BackendError
from backends.local import records
from schemas.base import Value
from schemas.strict_json import decode_strictly

_FILE = "home.json"
_HEAD = 4096
_LINEAGE = re.compile(rb'"?lineage"?: ?"?([a-z0-9-]+)')


class Home(Value, frozen=True, kw_only=True):
    """Where the state of a lineage lies."""

    state_address: str
    device: int = 0
    """Of the folder `.dstack` around the state, else of the state's folder; 0: it is no path."""
    inode: int = 0


def other_home(lineage: Path, *, address: str) -> str:
    """The address of another state of this lineage that still exists; "" where `address` is the only one.

    A folder that was moved, or is reached by another path, is the same one: its inode is.
    """
    known = _read(lineage) or _of_records(lineage)
    if known is None or _same(known.state_address, address):
        return ""
    here = _home(address)
    if known.inode and (known.device, known.inode) == (here.device, here.inode):
        return ""
    return known.state_address if _holds(known.state_address, lineage=lineage.name) else ""


def settle(lineage: Path, *, address: str) -> None:
    """Remember that the state of `lineage` lies at `address`. Raises `BackendError` where this is a copy of it."""
    if other := other_home(lineage, address=address):
        raise BackendError(copy_words(address, other=other))
    home = _home(address)
    if not lineage.is_dir() or _read(lineage) == home:
        return
    fresh = lineage / f".home.{uuid.uuid4().hex}"
    try:
        fresh.write_bytes(msgspec.json.encode(home))
        os.replace(fresh, lineage / _FILE)
    except OSError as error:
        raise BackendError(f"cannot write in {lineage}: {error}") from error


def copy_words(address: str, *, other: str) -> str:
    """Why nothing is done from a copy, and the ways out."""
    return (
        f"{address} is a copy of the state at {other}, which still exists: its instances and runs on this machine "
        "belong to that one. Work there, or give this copy a state id of its own: `dstack state new-lineage`"
    )


def _read(lineage: Path) -> Home | None:
    """None where it is not there, or a crash of the machine cut it."""
    with suppress(FileNotFoundError, NotADirectoryError, msgspec.MsgspecError):
        return decode_strictly((lineage / _FILE).read_bytes(), Home)
    return None


def _of_records(lineage: Path) -> Home | None:
    """As the instances remember it, which were made before there was a file for it."""
    for folder in records.folders(lineage):
        record = records.read(folder)
        if record is not None and records.read_ended(folder) is None:
            return Home(state_address=record.state_address)
    return None


def _home(address: str) -> Home:
    path = Path(address)
    if not path.is_absolute():
        return Home(state_address=address)
    folder = next((one for one in path.parents if one.name == ".dstack"), path.parent)
    try:
        found = folder.stat()
    except OSError:
        return Home(state_address=address)
    return Home(state_address=address, device=found.st_dev, inode=found.st_ino)


def _same(one: str, other: str) -> bool:
    if one == other:
        return True
    return one.startswith("/") and other.startswith("/") and os.path.realpath(one) == os.path.realpath(other)


def _holds(address: str, *, lineage: str) -> bool:
    """Whether a state of `lineage` lies there: none that was moved to another store, and none of another lineage."""
    if not address.startswith("/"):
        return False
    try:
        with open(address, "rb") as file:
            head = file.read(_HEAD)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True  # it is there, and cannot be read: nobody can say that it is another one
    found = _LINEAGE.search(head)
    return b'"moved_to"' not in head and (found is None or found[1].decode() == lineage)
