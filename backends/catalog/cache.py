"""The user's cache of catalogs: small files, trusted only where no other user could write them."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TypeVar

import msgspec

LARGEST = 64 * 2**20  # bytes; a catalog of a million offers is smaller
T = TypeVar("T")


class Spoiled(Exception):
    """A file that is there and cannot be used; the message says why. It can be deleted."""


@dataclass(frozen=True, kw_only=True)
class Cache:
    """A folder that may be missing."""

    folder: Path

    def read(self, name: str, kind: type[T]) -> T | None:
        """`None` where it is not there. Raises `Spoiled`."""
        try:
            data = _owned(self.folder, name)
        except FileNotFoundError:
            return None
        except OSError as error:
            whole = error.filename == self.folder
            raise Spoiled(f"{self.folder if whole else self.folder / name} is left out: {error.strerror}") from None
        try:
            return msgspec.json.decode(data, type=kind)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise Spoiled(f"{self.folder / name} is left out: it cannot be read ({error})") from None

    def write(self, name: str, value: object) -> None:
        """In one step: whoever reads sees the old file or the new one. Raises `OSError`."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if why := _distrust(os.lstat(self.folder), folder=True):
            raise OSError(errno.EPERM, why, str(self.folder))
        with NamedTemporaryFile(dir=self.folder, prefix=f".{name}.", delete=False) as file:
            made = Path(file.name)
            try:
                file.write(msgspec.json.encode(value))
                file.flush()
                os.fsync(file.fileno())
                made.replace(self.folder / name)
            except BaseException:
                made.unlink(missing_ok=True)
                raise


def cache_of(environ: Mapping[str, str]) -> Cache:
    """`$XDG_CACHE_HOME/dstack`, or `~/.cache/dstack`."""
    given = environ.get("XDG_CACHE_HOME", "")
    home = Path(given) if given.startswith("/") else Path(environ.get("HOME") or "~").expanduser() / ".cache"
    return Cache(folder=home / "dstack")


def _owned(folder: Path, name: str) -> bytes:
    """No link is followed, neither of the folder nor of the file: a price that another user wrote is no price."""
    there = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if why := _distrust(os.fstat(there), folder=True):
            raise OSError(errno.EPERM, why, folder)
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=there)
    finally:
        os.close(there)
    with os.fdopen(file, "rb") as opened:
        if why := _distrust(os.fstat(file), folder=False):
            raise OSError(errno.EPERM, why)
        data = opened.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise OSError(errno.EFBIG, f"it is larger than {LARGEST // 2**20} MiB")
    return data


def _distrust(info: os.stat_result, *, folder: bool) -> str:
    if not (stat.S_ISDIR if folder else stat.S_ISREG)(info.st_mode):
        return "it is no folder of our own" if folder else "it is no plain file"
    if info.st_uid not in (0, os.geteuid()):
        return f"it belongs to user {info.st_uid}"
    return "others may write to it" if info.st_mode & 0o022 and not info.st_mode & stat.S_ISVTX else ""
